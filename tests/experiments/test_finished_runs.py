"""Finished runs as small files: what was written is read, and nothing else is needed for a page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.experiments.evidence.finished_runs import FinishedRuns, check_scored_alike
from fastdat.experiments.images.image_study import Arm, Trained, train_all
from fastdat.training.png import grid
from fastdat.training.trained import load_trained
from fastdat.util.errors import ConfigError, RunFolderError
from tests.experiments.image_runs import OPTIONS, ended, images, score, tiny_arm

ARM = tiny_arm("LR 1e-3, DAT", "dcgan-dat-cifar10", lr=1e-3)
SECOND = 1


def made_up(*, diverged: bool = False) -> Trained:
    """A run of :data:`ARM`, of which no file exists."""
    run = ended(
        ARM.name, [score(2, kid=3.0), score(4, kid=1.5)], SECOND, config=ARM.config, diverged=diverged
    )
    return replace(run, config=ARM.config.replace({"seed": SECOND, "precision": "fp32"}))


@pytest.mark.usefixtures("means_extractor")
def test_a_run_is_read_as_it_was_trained_without_its_folder(tmp_path: Path) -> None:
    run = train_all([ARM], 2, OPTIONS, tmp_path, images=images())[ARM.name][SECOND]
    samples = torch.cat(list(load_trained(run.folder, "latest", device="cpu").samples(32)))
    FinishedRuns(tmp_path / "finished").write(ARM, run)
    assert sorted(file.name for file in (tmp_path / "finished").iterdir()) == [
        "lr-1e-3-dat-1.json",
        "lr-1e-3-dat-1.png",
    ]
    shutil.rmtree(tmp_path / "runs")
    shutil.move(tmp_path / "finished", tmp_path / "elsewhere")
    again = FinishedRuns(tmp_path / "elsewhere")
    found = again.read(ARM, SECOND)
    assert found is not None
    assert (found.arm, found.seed, found.diverged) == (run.arm, SECOND, False)
    assert (found.scores, found.origin) == (run.scores, run.origin)
    assert found.stats == run.stats[-1:]
    assert found.config == run.config.replace({"data": None, "device": ARM.config.device})
    picture = again.samples(found)
    assert picture is not None
    assert torch.equal(picture, grid(samples, columns=8).permute(1, 2, 0))
    assert again.read(ARM, 0) is None
    assert again.samples(replace(found, seed=0)) is None


def written(tmp_path: Path, arm: Arm = ARM) -> FinishedRuns:
    finished = FinishedRuns(tmp_path)
    finished.write(arm, made_up(diverged=True))
    return finished


def test_a_run_that_diverged_has_no_picture(tmp_path: Path) -> None:
    found = written(tmp_path).read(ARM, SECOND)
    assert found is not None
    assert found.diverged
    assert found.scores == made_up().scores
    assert [file.name for file in tmp_path.iterdir()] == ["lr-1e-3-dat-1.json"]


def test_the_place_of_the_data_is_not_written(tmp_path: Path) -> None:
    arm = Arm(ARM.name, ARM.config.replace({"data": str(tmp_path)}))
    written(tmp_path / "finished", arm)
    assert str(tmp_path) not in (tmp_path / "finished" / "lr-1e-3-dat-1.json").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 2e-3}, "lr 0.001 then, 0.002 now"),
        ({"steps": 8}, "steps 4 then, 8 now"),
        ({"eval.fakes": 21}, "eval.fakes 20 then, 21 now"),
        ({"dat.eps": 2.0}, "dat.eps 1.0 then, 2.0 now"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, float], said: str) -> None:
    other = Arm(ARM.name, ARM.config.replace(change))
    with pytest.raises(
        ConfigError, match=rf"lr-1e-3-dat-1.json is a run with other settings: {said}\. Give"
    ) as raised:
        written(tmp_path / "finished").read(other, SECOND)
    assert str(raised.value).endswith(f"and {tmp_path / 'runs' / 'lr-1e-3-dat-1'}")


def change(file: Path, changes: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_settings_that_did_not_exist_then_count_as_their_defaults(tmp_path: Path) -> None:
    finished, file = written(tmp_path), tmp_path / "lr-1e-3-dat-1.json"
    config = json.loads(file.read_text())["config"]
    assert config.pop("hang_timeout") == ARM.config.hang_timeout
    change(file, {"config": config})
    assert finished.read(ARM, SECOND) is not None
    other = Arm(ARM.name, ARM.config.replace({"hang_timeout": 7.0}))
    with pytest.raises(ConfigError, match=r"hang_timeout 600.0 then, 7.0 now"):
        finished.read(other, SECOND)


def test_settings_that_are_unknown_now_are_named(tmp_path: Path) -> None:
    finished, file = written(tmp_path), tmp_path / "lr-1e-3-dat-1.json"
    change(file, {"config": {**json.loads(file.read_text())["config"], "momentum": 0.5}})
    with pytest.raises(ConfigError, match=r"lr-1e-3-dat-1.json has settings that .* refuses: .*momentum"):
        finished.read(ARM, SECOND)


@pytest.mark.parametrize(("arm", "seed"), [(ARM.name, 0), ("LR 1e-3 DAT", SECOND)])
def test_a_copy_with_a_wrong_name_is_refused(tmp_path: Path, arm: str, seed: int) -> None:
    """Else a run that is there twice would make the spread too small."""
    finished, file = written(tmp_path), tmp_path / "lr-1e-3-dat-1.json"
    file.rename(tmp_path / f"lr-1e-3-dat-{seed}.json")
    with pytest.raises(RunFolderError, match=r"should hold '.*', seed \d, but holds 'LR 1e-3, DAT', seed 1"):
        finished.read(Arm(arm, ARM.config), seed)


def test_a_run_that_reached_its_end_has_all_its_scores(tmp_path: Path) -> None:
    finished = FinishedRuns(tmp_path, pictures=False)
    finished.write(ARM, made_up())
    assert finished.read(ARM, SECOND) is not None
    for scores, missing in ((made_up().scores[:1], "4"), ((), "2, 4")):
        change(tmp_path / "lr-1e-3-dat-1.json", {"scores": scores})
        with pytest.raises(
            RunFolderError, match=rf"lr-1e-3-dat-1.json lacks the scores after steps {missing}\."
        ):
            finished.read(ARM, SECOND)


@pytest.mark.parametrize("key", ["data_sha256", "extractor_sha256", "kid_subset_size"])
def test_runs_that_were_scored_otherwise_are_refused(key: str) -> None:
    def scored(value: int) -> Trained:
        lines = tuple({**line, key: value} for line in made_up().scores)
        return replace(made_up(), scores=lines, seed=value)

    check_scored_alike([scored(3), scored(3), made_up(diverged=True)][:2])
    with pytest.raises(
        ConfigError, match=rf"DAT, seed 7, was scored otherwise than .*, seed 3: {key} 3 then, 7 now"
    ):
        check_scored_alike([scored(3), scored(7)])


def test_the_device_and_compilation_are_no_settings_of_the_protocol(tmp_path: Path) -> None:
    other = Arm(ARM.name, ARM.config.replace({"device": "cpu", "compile": True, "data": "elsewhere"}))
    assert written(tmp_path).read(other, SECOND) is not None


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"config": {}}'])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: str) -> None:
    finished = written(tmp_path)
    (tmp_path / "lr-1e-3-dat-1.json").write_text(damage)
    with pytest.raises(
        RunFolderError, match=r"lr-1e-3-dat-1.json is damaged .* Remove it to train the run again"
    ):
        finished.read(ARM, SECOND)


def test_wrong_types_in_the_file(tmp_path: Path) -> None:
    finished, file = written(tmp_path), tmp_path / "lr-1e-3-dat-1.json"
    for key, value in {"scores": 3, "computed": [1], "last": "no", "commits": None, "config": 4}.items():
        whole = json.loads(file.read_text())
        file.write_text(json.dumps({**whole, key: value}))
        with pytest.raises(RunFolderError, match="is damaged"):
            finished.read(ARM, SECOND)
        file.write_text(json.dumps(whole))
