"""Runs of a comparison on images: each is trained once, resumed where it was stopped, and read when it has ended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.experiments import training_origin
from fastdat.experiments.images import image_study, study_texts
from fastdat.experiments.images.image_study import (
    DIVERGED,
    Arm,
    Trained,
    arms_wanted,
    best_step,
    diverged,
    scores_of,
    slug,
    train_all,
)
from fastdat.experiments.images.measured_settings import MEASURED
from fastdat.experiments.images.run_origin import ORIGIN
from fastdat.experiments.outcome import Runs
from fastdat.experiments.training_origin import Origin
from fastdat.metrics import Extractor, extractors, register_extractor
from fastdat.training import checkpoint
from fastdat.util.errors import ConfigError, DataError, RunFolderError
from tests.experiments.image_runs import OPTIONS, ended, images, score, tiny_arm


class Counting(torch.nn.Module):
    """The mean of each channel, and how many images were seen."""

    seen = 0

    def forward(self, batch: Tensor) -> Tensor:
        Counting.seen += len(batch)
        return batch.float().mean((2, 3)) / 255


@pytest.fixture(autouse=True)
def means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("means", lambda weights: Extractor("means", Counting(), "none"))
    monkeypatch.setenv("FASTDAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "seen", 0)


def weights(run: Trained) -> dict[str, Tensor]:
    saved: dict[str, Tensor] = checkpoint.load(run.folder / "checkpoints" / "latest.pt")["netG"]
    return saved


def untimed(run: Trained) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "it_per_s")} for line in run.stats]


def test_every_seed_of_every_arm_is_a_run_folder_and_reals_are_measured_once(tmp_path: Path) -> None:
    arms = [tiny_arm("no attack"), tiny_arm("DAT", "dcgan-dat-cifar10")]
    found = train_all(arms, 2, OPTIONS, tmp_path, images=images())
    assert list(found) == ["no attack", "DAT"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "dat-0",
        "dat-1",
        "no-attack-0",
        "no-attack-1",
    ]
    for name, runs in found.items():
        for seed, run in enumerate(runs):
            assert (run.arm, run.seed, run.config.seed) == (name, seed, seed)
            assert run.folder == tmp_path / "runs" / f"{slug(name)}-{seed}"
            assert [line["step"] for line in run.stats] == [1, 2, 3, 4]
            assert [line["step"] for line in run.scores] == [2, 4]
            assert not run.diverged
            assert run.config.dat.attacks == (name == "DAT")
            assert not run.config.compile
            assert run.config.precision == "fp32", "what the device chose, and not auto"
    # 30 reals once, and 20 fakes at each of 2 steps of 4 runs.
    assert Counting.seen == 30 + 4 * 2 * 20
    first, second = (weights(run) for run in found["DAT"])
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_a_second_call_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = [tiny_arm("no attack")]
    once = train_all(arms, 1, OPTIONS, tmp_path, images=images())
    assert "run 1 of 1: no attack, seed 0" in capsys.readouterr().out
    again = train_all(arms, 1, OPTIONS, tmp_path, images=images())
    assert again == once
    assert "nothing to do" in capsys.readouterr().out


def test_an_interrupt_ends_the_whole_experiment_and_the_same_call_goes_on(tmp_path: Path) -> None:
    arms = [tiny_arm("a"), tiny_arm("b", lr=1e-3)]
    whole = train_all(arms, 2, OPTIONS, tmp_path / "whole", images=images())
    asked: list[str] = []

    def stopping(arm: Arm) -> list[Any]:
        def callback(trainer: Any) -> None:
            if trainer.config.seed == 0 and arm.name == "b" and trainer.done == 2:
                raise KeyboardInterrupt

        asked.append(arm.name)
        return [callback]

    with pytest.raises(KeyboardInterrupt):
        train_all(arms, 2, OPTIONS, tmp_path / "parts", images=images(), callbacks=stopping)
    assert asked == ["a", "a", "b"]  # made anew for each run, and the last run was not begun
    assert not (tmp_path / "parts" / "runs" / "b-1").exists()
    resumed = train_all(arms, 2, OPTIONS, tmp_path / "parts", images=images())
    for name in ("a", "b"):
        for one, other in zip(whole[name], resumed[name], strict=True):
            assert untimed(one) == untimed(other)
            assert [line["scores"] for line in one.scores] == [line["scores"] for line in other.scores]
            assert all(torch.equal(weights(one)[key], weights(other)[key]) for key in weights(one))


def test_the_commits_and_machines_of_a_run_that_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run with one commit, the second is stopped and goes on with another; a third only reads them."""

    def stops(arm: Arm) -> list[Any]:
        def callback(trainer: Any) -> None:
            if trainer.config.seed == 1 and trainer.done == 2:
                raise KeyboardInterrupt

        return [callback]

    arms = [tiny_arm("a")]
    for commit, machine in (("first", "a slow one"), ("second", "a fast one"), ("third", "another one")):
        monkeypatch.setattr(training_origin, "_commit", lambda commit=commit: commit)
        monkeypatch.setattr(training_origin, "processor_name", lambda machine=machine: machine)
        if commit == "first":
            with pytest.raises(KeyboardInterrupt):
                train_all(arms, 2, OPTIONS, tmp_path, images=images(), callbacks=stops)
        else:
            found = train_all(arms, 2, OPTIONS, tmp_path, images=images())
    assert [run.origin.commits for run in found["a"]] == [("first",), ("first", "second")]
    assert study_texts.origin(found) == Origin(("first", "second"), ("a slow one", "a fast one"))


def test_a_run_of_an_earlier_version_or_with_a_damaged_record_of_its_origin(tmp_path: Path) -> None:
    arms = [tiny_arm("a")]
    train_all(arms, 1, OPTIONS, tmp_path, images=images())
    noted = tmp_path / "runs" / "a-0" / ORIGIN
    noted.unlink()
    assert train_all(arms, 1, OPTIONS, tmp_path, images=images())["a"][0].origin == Origin()
    for content in ("", "[]", '{"commits": []}'):
        noted.write_text(content)
        with pytest.raises(
            RunFolderError, match=r"origin\.json is damaged .*: remove it, and the page does not say"
        ):
            train_all(arms, 1, OPTIONS, tmp_path, images=images())


def test_a_run_that_diverges_is_kept_and_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = [tiny_arm("wild", lr=1e30), tiny_arm("tame")]
    found = train_all(arms, 1, OPTIONS, tmp_path, images=images())
    assert found["wild"][0].diverged
    assert not found["tame"][0].diverged
    assert "NaN" in (tmp_path / "runs" / "wild-0" / DIVERGED).read_text()
    assert diverged(found["wild"]) == "1 of 1"
    assert scores_of(found["wild"], "kid") == "diverged"
    assert isinstance(scores_of(found["tame"], "kid"), Runs)

    capsys.readouterr()
    monkeypatch.setattr(image_study, "build_trainer", None)  # is not called
    again = train_all(arms[:1], 1, OPTIONS, tmp_path, images=images())
    assert again["wild"] == found["wild"]
    assert "it has diverged; remove" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"wild-0 holds a run with other settings: lr .*1e\+30.*1e\+29"):
        train_all([tiny_arm("wild", lr=1e29)], 1, OPTIONS, tmp_path, images=images())


def test_callbacks_numbers_are_in_the_lines(tmp_path: Path) -> None:
    found = train_all(
        [tiny_arm("a")],
        1,
        OPTIONS,
        tmp_path,
        images=images(),
        callbacks=lambda arm: [lambda trainer: {"own": 2.5}],
    )
    assert [line["own"] for line in found["a"][0].stats] == [2.5] * 4


def test_two_arms_may_not_share_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two arms would have the run folders a-b: give them other names"):
        train_all([tiny_arm("A, b"), tiny_arm("a b")], 1, OPTIONS, tmp_path, images=images())


def test_data_and_device_of_the_options_reach_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(image_study, "load_data", lambda config: asked.append(config.data) or images())
    options = image_study.Options(compile=False, device="cpu", data=str(tmp_path / "data"))
    found = train_all([tiny_arm("a"), tiny_arm("b", seed=5)], 1, options, tmp_path)
    assert asked == [str(tmp_path / "data")]  # both runs share the images
    config = json.loads(json.dumps(found["b"][0].config.to_dict()))
    assert (config["data"], config["device"], config["seed"]) == (str(tmp_path / "data"), "cpu", 0)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_last_and_best_scores() -> None:
    # The best KID on train, the first metric, is at step 2; the best FID is at step 4.
    scores = [
        score(2, kid=0.1, fid=9.0),
        score(4, kid=0.3, fid=5.0),
        score(2, "test", fid=11.0),
        score(4, "test", fid=12.5),
    ]
    other = [score(2, kid=0.5, fid=1.0), score(4, kid=0.2, fid=2.0), score(4, "test", fid=3.0)]
    runs = [ended("a", scores), ended("a", other, 1)]
    assert [best_step(run) for run in runs] == [2, 4]
    assert scores_of(runs, "fid") == Runs((5.0, 2.0))
    assert scores_of(runs, "fid", which="best") == Runs((9.0, 2.0))
    assert scores_of(runs, "fid", "test") == Runs((12.5, 3.0))
    assert scores_of(runs, "fid", "test", "best") == Runs((11.0, 3.0))
    assert scores_of(runs, "is") is None
    assert scores_of([], "fid") is None


def test_the_greatest_is_is_the_best() -> None:
    config = ended("a", []).config.replace({"eval.metrics": ["is"]})
    assert best_step(ended("a", [score(2, **{"is": 3.0}), score(4, **{"is": 2.0})], config=config)) == 2


def test_of_a_step_that_was_scored_twice_the_later_score_counts() -> None:
    run = ended("a", [score(2, kid=0.6), score(4, kid=0.4), score(4, kid=0.7)])
    assert scores_of([run], "kid") == Runs((0.7,))


@pytest.mark.parametrize(
    "other",
    [
        {"by": "eval"},
        {"extractor": "efficientnet-lite0"},
        {"fake_count": 500},
        {"real_count": 60_000},
        {"weights": "ema"},
        {"split": "test"},
    ],
)
def test_scores_that_a_user_adds_later_do_not_replace_those_of_the_experiment(other: dict[str, Any]) -> None:
    run = ended(
        "a", [score(2, kid=0.6), score(4, kid=0.4), score(4, kid=0.1) | other, score(2, kid=0.1) | other]
    )
    assert scores_of([run], "kid") == Runs((0.4,))
    assert best_step(run) == 4
    assert scores_of([run], "kid", which="best") == Runs((0.4,))


@pytest.mark.parametrize("other", [{"made_for": None}, {"fake_count": 50_000}, {"extractor": "mine"}])
def test_nor_those_against_the_test_images(other: dict[str, Any]) -> None:
    run = ended("a", [score(4, kid=0.5), score(4, "test", fid=3.0), score(4, "test", fid=1.0) | other])
    assert scores_of([run], "fid", "test") == Runs((3.0,))
    assert scores_of([ended("a", [score(4, "test", fid=1.0) | other])], "fid", "test") is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"eval.fakes": 24}, r"eval\.fakes 20 then, 24 now"),
        ({"eval.seed": 3}, r"eval\.seed 0 then, 3 now"),
        ({"monitor.every": 2}, r"monitor\.every None then, 2 now, monitor\.latent unknown then, True now"),
    ],
)
def test_a_run_that_was_measured_otherwise_is_refused(
    tmp_path: Path, setting: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_all([tiny_arm("a")], 1, OPTIONS, tmp_path, images=images())
    monkeypatch.setattr(image_study, "build_trainer", None)  # is not called
    expected = f"a-0 holds a run that was measured with other settings: {words}.*give another --outdir"
    with pytest.raises(ConfigError, match=expected):
        train_all([tiny_arm("a", **setting)], 1, OPTIONS, tmp_path, images=images())
    (tmp_path / "runs" / "a-0" / MEASURED).unlink()  # of an earlier version: config.yaml says it, too
    with pytest.raises(ConfigError, match="measured with other settings"):
        train_all([tiny_arm("a", **setting)], 1, OPTIONS, tmp_path, images=images())


def test_settings_of_callbacks_are_kept_with_the_run(tmp_path: Path) -> None:
    def train(measures: dict[str, Any], **changes: Any) -> Any:
        arms = [tiny_arm("a", **changes)]
        return train_all(arms, 1, OPTIONS, tmp_path, images=images(), measures=measures)["a"]

    once = train({"search.steps": 30})
    # Settings that change no number, and those of a monitor that is off, may differ.
    assert train({"search.steps": 30}, **{"eval.batch_size": 7, "monitor.steps": 3})[0].stats == once[0].stats
    with pytest.raises(ConfigError, match=r"search\.steps 30 then, 100 now"):
        train({"search.steps": 100})
    with pytest.raises(ConfigError, match=r"search\.steps 30 then, none now"):
        train({})
    noted = tmp_path / "runs" / "a-0" / MEASURED
    noted.write_text("[1]")
    with pytest.raises(RunFolderError, match=r"measured\.json is damaged: it holds no settings"):
        train({"search.steps": 30})
    noted.unlink()
    with pytest.raises(ConfigError, match=r"search\.steps unknown then, 30 now"):
        train({"search.steps": 30})


def test_diverged_runs_are_left_out_of_the_last_scores() -> None:
    good, bad = (
        ended("a", [score(2, kid=3.0), score(4, kid=1.0)]),
        ended("a", [score(2, kid=2.0)], 1, diverged=True),
    )
    assert scores_of([good, bad], "kid") == Runs((1.0,))
    assert scores_of([good, bad], "kid", which="best") == Runs((1.0, 2.0))
    assert diverged([good, bad]) == "1 of 2"


def test_only_chooses_arms() -> None:
    arms = [tiny_arm("sngan-cifar10"), tiny_arm("sngan-dat-cifar10"), tiny_arm("ssgan-cifar10")]
    assert arms_wanted(arms, ()) == tuple(arms)
    assert [arm.name for arm in arms_wanted(arms, ("dat", "ssgan"))] == ["sngan-dat-cifar10", "ssgan-cifar10"]
    longer = [*arms, tiny_arm("sngan-cifar100")]
    assert [arm.name for arm in arms_wanted(longer, ("sngan-cifar10",))] == ["sngan-cifar10"]
    assert [arm.name for arm in arms_wanted(longer, ("sngan-cifar",))] == ["sngan-cifar10", "sngan-cifar100"]
    with pytest.raises(
        ConfigError, match=r"--only biggan leaves no arm\. The arms are: sngan-cifar10; sngan-dat"
    ):
        arms_wanted(arms, ("biggan",))


def test_slugs() -> None:
    assert slug("LR 1e-3, betas (0.5, 0.999), DCGAN-DAT") == "lr-1e-3-betas-0.5-0.999-dcgan-dat"


def test_without_data_the_error_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="where is cifar10"):
        train_all([tiny_arm("a")], 1, OPTIONS, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_data_set_that_is_missing_is_noticed_before_the_first_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last of five sets would otherwise be opened after days."""
    looked: list[tuple[str, str, int | None]] = []

    def check(dataset: str, root: str, split: str, resolution: int | None) -> None:
        assert root == "data"
        looked.append((dataset, split, resolution))
        if dataset == "lsun-bedroom":
            raise DataError("no bedrooms")

    monkeypatch.setattr(image_study, "check_is_there", check)
    monkeypatch.setattr(image_study, "_train", None)
    arms = [tiny_arm("small"), tiny_arm("large", "sngan-lsun-bedroom")]
    with pytest.raises(DataError, match="no bedrooms"):
        train_all(arms, 1, replace(OPTIONS, data="data"), tmp_path)
    assert looked == [("cifar10", "train", 32), ("lsun-bedroom", "train", 64)]


def test_a_split_that_is_needed_after_the_training_is_looked_for_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a single data set, too."""

    def check(dataset: str, root: str, split: str, resolution: int | None) -> None:
        if split == "test":
            raise DataError("no test images")

    monkeypatch.setattr(image_study, "check_is_there", check)
    monkeypatch.setattr(image_study, "_train", None)
    with pytest.raises(DataError, match="no test images"):
        train_all([tiny_arm("a")], 1, replace(OPTIONS, data="data"), tmp_path, also=("test",))
