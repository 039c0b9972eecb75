"""Which checkpoints a run keeps, and how it goes on when the latest one is damaged or gone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.training import ConfigError, RunFolderError, checkpoint
from fastdat.training.snapshots import Snapshots
from fastdat.training.train_config import CheckpointConfig
from tests.training.checkpoint_states import flip, small_state
from tests.training.runs import (
    assert_same,
    change_reals,
    latest,
    read_log,
    read_scores,
    read_stats,
    results,
    resumable,
    scored,
    trainer_of,
)


def written(run: Path, steps: list[int], **config: Any) -> Snapshots:
    """What is kept of checkpoints after these steps."""
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    files = Snapshots(run, CheckpointConfig(**config))
    for step in steps:
        checkpoint.save(files.latest, small_state(step=step))
        files.keep(step)
    return files


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_file())


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, ["latest.pt", "step-000040.pt", "step-000050.pt"]),
        ({"keep": 0}, ["latest.pt", "step-000040.pt", "step-000050.pt"]),
        ({"keep": 3}, ["latest.pt", "step-000030.pt", "step-000040.pt", "step-000050.pt"]),
        ({"keep": 1, "keep_every": 20}, ["latest.pt", "step-000020.pt", "step-000040.pt", "step-000050.pt"]),
        ({"keep_every": 25}, ["latest.pt", "step-000030.pt", "step-000040.pt", "step-000050.pt"]),
        (
            {"keep_every": 15},
            ["latest.pt", "step-000020.pt", "step-000030.pt", "step-000040.pt", "step-000050.pt"],
        ),
        ({"keep": 0, "keep_every": 20}, ["latest.pt", "step-000020.pt", "step-000040.pt", "step-000050.pt"]),
    ],
    ids=str,
)
def test_the_newest_and_those_of_every_so_many_steps_are_kept(
    config: dict[str, Any], kept: list[str], tmp_path: Path
) -> None:
    written(tmp_path, [10, 20, 30, 40, 50], **config)
    assert names(tmp_path) == kept
    for name in kept:
        step = 50 if name == "latest.pt" else int(name[5:11])
        assert checkpoint.load(tmp_path / "checkpoints" / name)["step"] == step


def test_the_newest_one_takes_no_room_of_its_own(tmp_path: Path) -> None:
    files = written(tmp_path, [1, 2])
    assert files.latest.samefile(tmp_path / "checkpoints" / "step-000002.pt")
    assert not files.latest.samefile(tmp_path / "checkpoints" / "step-000001.pt")


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    files = written(tmp_path, [1, 2])
    assert (tmp_path / "checkpoints" / "step-000002.pt").read_bytes() == files.latest.read_bytes()
    assert names(tmp_path) == ["latest.pt", "step-000001.pt", "step-000002.pt"]


def ended(data: ImageSet, run: Path, **changes: Any) -> Any:
    """A finished run of 6 steps with checkpoints at 2, 4 and 6, and its configuration of 8 steps."""
    config = resumable(lr_decay="none", **{"checkpoints.keep": 3} | changes)
    trainer_of(config.replace({"steps": 6}), data, run).train()
    return config


def test_those_for_good_stay_in_a_process_that_is_not_told_to_keep_them(tmp_path: Path) -> None:
    written(tmp_path, [10, 20, 30, 40, 50], keep=1, keep_every=20)
    files = Snapshots(tmp_path, CheckpointConfig(keep=1))
    files.go_on(50, keep_every=20)
    checkpoint.save(files.latest, small_state(step=60))
    files.keep(60)
    assert names(tmp_path) == [
        "latest.pt",
        "step-000020.pt",
        "step-000040.pt",
        "step-000050.pt",
        "step-000060.pt",
    ]
    again = Snapshots(tmp_path, CheckpointConfig(keep=1))
    again.go_on(60, keep_every=None)
    checkpoint.save(again.latest, small_state(step=70))
    again.keep(70)
    assert names(tmp_path) == [
        "latest.pt",
        "step-000020.pt",
        "step-000040.pt",
        "step-000060.pt",
        "step-000070.pt",
    ]


def test_a_file_of_a_later_step_is_not_the_newest(tmp_path: Path) -> None:
    """It may have been left by someone who restored latest.pt from a backup."""
    files = written(tmp_path, [90])
    for step in (10, 20):
        checkpoint.save(files.latest, small_state(step=step))
        files.keep(step)
    assert names(tmp_path) == ["latest.pt", "step-000010.pt", "step-000020.pt", "step-000090.pt"]


def test_the_newest_one_may_be_the_best(tmp_path: Path) -> None:
    files = written(tmp_path, [10, 20], keep=1)
    checkpoint.save(files.best, small_state(step=30))
    found = files.to_resume("newest")
    assert found is not None
    assert (found.path, found.step) == (files.best, 30)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_the_one_before_takes_the_place_of_a_lost_latest_checkpoint(
    damage: str, few_images: ImageSet, tmp_path: Path
) -> None:
    """It is said which file was damaged, why, and how much is done again; the damaged file is kept."""
    config = ended(few_images, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    trainer_of(config, few_images, tmp_path / "straight").train()
    if damage == "flip":
        flip(folder / "latest.pt")
        flip(folder / "step-000006.pt", 100)
    elif damage == "cut":  # both names of the same file
        with (folder / "latest.pt").open("r+b") as file:
            file.truncate(5000)
    else:
        (folder / "latest.pt").unlink()
        flip(folder / "step-000006.pt")
    trainer = trainer_of(config, few_images, tmp_path / "run")
    assert trainer.done == 4
    assert checkpoint.load(folder / "latest.pt")["step"] == 4
    aside = sorted(path.name for path in (folder / "set-aside").iterdir())
    assert aside == ([] if damage == "delete" else ["latest-damaged.pt"]) + [
        "stats.jsonl",
        "step-000006-damaged.pt",
        "step-000006.png",
    ]
    trainer.train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "run"))
    log = read_log(tmp_path / "run")
    why = {
        "flip": f"{folder / 'latest.pt'} is damaged: its bytes are not those that were written (SHA-256)",
        "cut": f"{folder / 'latest.pt'} is damaged, or was not written by fastdat: it does not end with the SHA-256",
        "delete": f"there is no checkpoint {folder / 'latest.pt'} any more.",
    }
    assert why[damage] in log
    assert (f"{folder / 'step-000006.pt'} is damaged: its bytes" in log) == (damage != "cut")
    assert "going on from step-000004, step 4: the 2 steps after it are done again" in log
    assert "resumed after 4 steps" in log
    assert "step-000004.pt; set aside: checkpoints/set-aside/" in log


def test_a_damaged_checkpoint_that_was_asked_for_is_an_error(few_images: ImageSet, tmp_path: Path) -> None:
    """Nothing is changed, and the undamaged ones are named."""
    config = ended(few_images, tmp_path)
    flip(tmp_path / "checkpoints" / "step-000004.pt")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError) as caught:
        trainer_of(config, few_images, tmp_path, resume_from="step-000004")
    assert "step-000004.pt is damaged" in str(caught.value)
    assert "latest (step 6), step-000002 (step 2). To go on from the newest" in str(caught.value)
    assert "give --from newest" in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_latest_checkpoint_of_another_version_is_not_passed_over(tmp_path: Path) -> None:
    """It is no damage: going on from an older one would undo what the other version did."""
    files = written(tmp_path, [10, 20])
    files.latest.unlink()
    checkpoint.save(files.latest, small_state(format=1))
    with pytest.raises(RunFolderError, match="its format is 1"):
        files.to_resume(None)


def test_the_best_one_may_be_all_that_is_left(tmp_path: Path) -> None:
    files = written(tmp_path, [10, 20])
    checkpoint.save(files.best, small_state(step=5))
    for path in (tmp_path / "checkpoints").glob("[ls]*.pt"):
        flip(path)
    found = files.to_resume(None)
    assert found is not None
    assert (found.path, found.step) == (files.best, 5)
    assert "step-000010.pt is damaged" in found.remarks[2]
    assert found.remarks[3] == "going on from best, step 5: the 15 steps after it are done again"


@pytest.mark.parametrize("step", [0, 4])
def test_nothing_is_said_of_steps_after_the_last_one_that_is_known(step: int, tmp_path: Path) -> None:
    """Also of a run that was stopped before its first step."""
    files = written(tmp_path, [])
    files.latest.write_bytes(b"damaged")
    checkpoint.save(files.best, small_state(step=step))
    (tmp_path / "stats.jsonl").write_text(f'{{"step": {step}}}\n' if step else "")
    found = files.to_resume(None)
    assert found is not None
    assert found.remarks[1:] == (f"going on from best, step {step}",)


def test_a_rollback_finds_the_last_checkpoint_damaged(few_images: ImageSet, tmp_path: Path) -> None:
    """NaN in step 6, after checkpoints of steps 2 and 4: on from step 2."""
    config = resumable(on_nan="rollback")
    trainer = trainer_of(config, few_images, tmp_path)
    broken = [True]

    def breaking(step: int, reals: Tensor) -> Tensor:
        if step == 10 and broken:
            broken.clear()
            with (tmp_path / "checkpoints" / "latest.pt").open("r+b") as file:
                file.truncate(5000)
            return reals * math.nan
        return reals

    change_reals(trainer, breaking)
    trainer.train()
    log = read_log(tmp_path)
    assert "latest.pt is damaged" in log
    assert "going on from step-000002, step 2: the 2 steps after it are done again" in log
    assert "back to step 2, retry 1 of 3" in log
    assert latest(tmp_path)["step"] == 8
    aside = {path.name for path in (tmp_path / "checkpoints" / "set-aside").glob("*.pt")}
    assert aside == {"latest-damaged.pt", "step-000004-damaged.pt"}


def test_an_earlier_step_may_be_asked_for(few_images: ImageSet, tmp_path: Path) -> None:
    """Later checkpoints are set aside, so that none of them is taken for the newest afterwards."""
    config = ended(few_images, tmp_path)
    trainer_of(config, few_images, tmp_path, resume_from="step-000002")
    folder = tmp_path / "checkpoints"
    assert names(tmp_path) == ["latest.pt", "step-000002.pt"]
    aside = {"latest-of-step-6.pt", "step-000004.pt", "step-000006.pt"}
    assert {path.name for path in (folder / "set-aside").glob("*.pt")} == aside
    records = [json.loads(line) for line in (folder / "set-aside" / "stats.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6]
    assert {path.name for path in (folder / "set-aside").glob("*.png")} == {
        "step-000003.png",
        "step-000006.png",
    }
    assert [line["step"] for line in read_stats(tmp_path)] == []
    trainer_of(config, few_images, tmp_path).train()
    trainer_of(config, few_images, tmp_path, resume_from="step-000004")
    aside |= {"latest-of-step-8.pt", "step-000006-2.pt", "step-000008.pt"}
    assert {path.name for path in (folder / "set-aside").glob("*.pt")} == aside


def test_a_run_whose_checkpoints_were_moved_away_does_not_begin_anew(
    few_images: ImageSet, tmp_path: Path
) -> None:
    """It would drop its records."""
    config = ended(few_images, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    before = read_stats(tmp_path)
    with pytest.raises(RunFolderError, match="has records up to step 6, but no checkpoint any more"):
        trainer_of(config, few_images, tmp_path)
    with pytest.raises(RunFolderError, match="has no checkpoint yet: leave --from out"):
        trainer_of(config, few_images, tmp_path, resume_from="newest")
    assert read_stats(tmp_path) == before


def test_a_copy_that_fails_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path, [10, 20])
    before = names(tmp_path)
    found = files.to_resume("step-000010")
    assert found is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(RunFolderError, match=r"cannot go back to .*: No space left on device"):
        files.go_back_to(found)
    assert names(tmp_path) == before


def test_a_best_checkpoint_of_a_later_step_is_no_longer_the_best(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """The scores after the step that a run goes back to are made again."""
    config = scored(cifar10_root, steps=6, lr_decay="none", **{"checkpoints.keep": 9})
    trainer_of(config, few_images, tmp_path).train()
    before = read_scores(tmp_path)
    best = checkpoint.load(tmp_path / "checkpoints" / "best.pt")["step"]
    assert best > 2, "or this test proves nothing"
    trainer = trainer_of(config, few_images, tmp_path, resume_from="step-000002")
    assert trainer.state.best is None
    assert "there is no best.pt any more" in "".join(trainer._remarks)
    trainer.train()
    assert read_scores(tmp_path) == before
    assert checkpoint.load(tmp_path / "checkpoints" / "best.pt")["step"] == best


def test_a_kill_before_the_second_name_is_made_good(few_images: ImageSet, tmp_path: Path) -> None:
    config = ended(few_images, tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "step-000006.pt").rename(folder / ".step-000006.pt.tmp")
    trainer_of(config, few_images, tmp_path)
    assert names(tmp_path) == ["latest.pt", "step-000002.pt", "step-000004.pt", "step-000006.pt"]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("best", r"there is no checkpoint .*best\.pt\. Undamaged in"),
        (
            "step-000005",
            r"there is no checkpoint step-000005. Undamaged in .*: latest \(step 6\), step-000004",
        ),
        ("nowhere/x.pt", r"there is no checkpoint nowhere/x\.pt"),
    ],
)
def test_what_is_not_there_is_named(start: str, message: str, few_images: ImageSet, tmp_path: Path) -> None:
    config = ended(few_images, tmp_path)
    with pytest.raises(RunFolderError, match=message):
        trainer_of(config, few_images, tmp_path, resume_from=start)


def test_nothing_undamaged_is_left(few_images: ImageSet, tmp_path: Path) -> None:
    """Each damaged file is named."""
    config = ended(few_images, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        flip(path)
    for start in (None, "newest"):
        with pytest.raises(
            RunFolderError, match=r"has no undamaged checkpoint\. .*another --outdir"
        ) as caught:
            trainer_of(config, few_images, tmp_path, resume_from=start)
        for name in ("latest", "step-000006", "step-000004", "step-000002"):
            assert f"{name}.pt is damaged" in str(caught.value)
    with pytest.raises(
        RunFolderError, match=r"no other that is undamaged\. Begin anew with another --outdir"
    ):
        trainer_of(config, few_images, tmp_path, resume_from="step-000002")


def test_a_new_run_has_no_checkpoint_to_begin_from(few_images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run that could go on from newest: leave --from out"):
        trainer_of(resumable(), few_images, tmp_path / "new", resume_from="newest")


def test_a_damaged_configuration_is_written_anew(few_images: ImageSet, tmp_path: Path) -> None:
    """The checkpoint has the settings too, and is verified."""
    config = ended(few_images, tmp_path)
    good = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(good.replace("ndf: 4", "ndf: [4"))
    trainer_of(config, few_images, tmp_path).train()
    assert "config.yaml cannot be read" in read_log(tmp_path)
    assert "it is written anew" in read_log(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == good.replace("steps: 6", "steps: 8")


def test_a_checkpoint_of_another_run_may_be_given_by_its_path(few_images: ImageSet, tmp_path: Path) -> None:
    config = ended(few_images, tmp_path / "a")
    trainer_of(config.replace({"steps": 2}), few_images, tmp_path / "b").train()
    other = tmp_path / "a" / "checkpoints" / "step-000004.pt"
    trainer = trainer_of(config, few_images, tmp_path / "b", resume_from=other)
    assert trainer.done == 4
    assert_same(dict(trainer.netD.state_dict()), dict(checkpoint.load(other)["netD"]))
