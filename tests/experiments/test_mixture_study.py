"""Training and measuring the arms of a comparison."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments import training_origin
from fastdat.experiments.points.ensemble import Ensemble, Recipe
from fastdat.experiments.points.fig3 import Fig3Config
from fastdat.experiments.points.mixture_study import run_study
from fastdat.experiments.points.study import SHOWN, Study, StudyResult
from fastdat.experiments.points.study_record import arms_as_dict
from fastdat.regularizers import GP
from fastdat.util.errors import NonFiniteError, RunFolderError

CPU = torch.device("cpu")


def test_points_are_kept_at_checkpoints() -> None:
    study = Fig3Config(iterations=6, seeds=2).study
    result = run_study(study, CPU, compile=False)
    assert [arm.name for arm in result.arms] == list(study.arms)
    for arm in result.arms:
        assert arm.members == 4
        kept = {m.iteration: m.points.shape for m in arm.measurements if m.points is not None}
        assert kept == dict.fromkeys((2, 4, 6), (2, SHOWN, 2))
        assert arm.at(4).coverage["balanced"].modes.shape == (2,)


def test_divergence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ensemble, "sample", lambda self, count: torch.full((2, 2, count, 2), torch.nan))
    with pytest.raises(NonFiniteError, match="no attack: G gives NaN or infinity after 1 "):
        run_study(Fig3Config(iterations=6, seeds=2).study, CPU, compile=False)


def test_an_arm_that_diverges_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second of two arms, at its second measurement."""
    samples, sample = count(), Ensemble.sample

    def diverges(self: Ensemble, points: int) -> torch.Tensor:
        found = sample(self, points)
        return found if next(samples) != 5 else torch.full_like(found, torch.inf)

    monkeypatch.setattr(Ensemble, "sample", diverges)
    result = run_study(STUDY, CPU, compile=False, leave_out_diverged=True)
    assert [arm.name for arm in result.arms] == ["none"]
    message = "DAT, GP: G gives NaN or infinity after 3 iterations"
    assert result.diverged == {"DAT, GP": message}
    assert f"{message}: left out" in capsys.readouterr().out
    monkeypatch.setattr(Ensemble, "sample", lambda self, points: torch.full((2, 2, points, 2), torch.nan))
    result = run_study(STUDY, CPU, compile=False, leave_out_diverged=True)
    assert (result.arms, list(result.diverged)) == ((), ["none", "DAT, GP"])


def test_study_runs_where_nothing_compiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", no_compiler)
    result = run_study(Fig3Config(iterations=1, seeds=1).study, CPU, compile=True)
    assert not result.compiled
    assert "torch.compile does not work here (no C++ compiler)" in capsys.readouterr().out


@pytest.mark.slow
def test_each_arm_is_compiled_once_and_g_once_for_all_of_them(
    compile_counters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight arms and G, more than torch keeps graphs of one function. What others have compiled stays."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled(f, **options, backend="eager"))
    others = torch.compile(torch.vmap(torch.sin))
    others(torch.zeros(3))
    before = compile_counters["stats"]["unique_graphs"]
    study = replace(
        STUDY,
        arms={f"{k}": replace(STUDY.arms["none"], eps=1.0 + k) for k in range(8)},  # type: ignore[type-var]
        iterations=2,
        measurements=(2,),
        checkpoints=(),
        recipe=Recipe(hidden=7, layers=1, batch_size=4),  # of no other test: the functions are cached
        regularizers={},
    )
    found = run_study(study, CPU, compile=True)
    assert compile_counters["stats"]["unique_graphs"] == before + 1 + 8 + 1  # the trial, D's steps, G's
    others(torch.zeros(3))
    assert compile_counters["stats"]["unique_graphs"] == before + 10
    expected = run_study(study, CPU, compile=False)
    for ours, theirs in zip(found.arms, expected.arms, strict=True):
        for name, coverage in ours.last.coverage.items():
            torch.testing.assert_close(coverage.kl, theirs.last.coverage[name].kl)


# --- a study that is stopped and goes on -----------------------------------------------------------------------------

_ATTACK = DATConfig(bounds=None)
STUDY = Study(
    name="a study",
    arms={"none": replace(_ATTACK, real=False, fake=False), "DAT, GP": _ATTACK},
    mixtures=(BALANCED, IMBALANCED),
    seeds=2,
    iterations=7,
    measurements=(2, 3, 5, 7),
    checkpoints=(3, 7),
    recipe=Recipe(hidden=6, layers=2, batch_size=10),
    regularizers={"DAT, GP": (GP(10.0, every=2),)},  # draws random numbers, in every other iteration
)


@pytest.fixture(scope="module")
def whole() -> StudyResult:
    """The study in one go."""
    return run_study(STUDY, CPU, compile=False)


class KilledError(Exception):
    """What stops a run in these tests."""


def assert_equal_measurements(found: StudyResult, expected: StudyResult) -> None:
    for arm, of in zip(found.arms, expected.arms, strict=True):
        assert [m.iteration for m in arm.measurements] == [m.iteration for m in of.measurements]
        for ours, theirs in zip(arm.measurements, of.measurements, strict=True):
            assert (ours.points is None) == (theirs.points is None)
            assert ours.points is None or torch.equal(ours.points, theirs.points)
            for mixture, coverage in ours.coverage.items():
                for name, value in vars(coverage).items():
                    assert torch.equal(value, getattr(theirs.coverage[mixture], name))


@pytest.mark.parametrize("killed_at", range(9))
def test_a_killed_study_goes_on_with_equal_numbers(
    killed_at: int, whole: StudyResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed while it draws the points of measurement ``killed_at`` of the eight, and then not any more."""
    samples, sample = count(), Ensemble.sample

    def dies(self: Ensemble, points: int) -> torch.Tensor:
        if next(samples) == killed_at:
            raise KilledError
        return sample(self, points)

    monkeypatch.setattr(Ensemble, "sample", dies)
    if killed_at < 8:
        with pytest.raises(KilledError):
            run_study(STUDY, CPU, compile=False, folder=tmp_path)
    result = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    assert next(samples) == 8 + (
        killed_at < 8
    )  # nothing is measured twice but the measurement that was cut short
    assert_equal_measurements(result, whole)
    assert [arm.times.timed for arm in result.arms] == [
        6 - (killed_at % 4 > 0 and killed_at // 4 == k) for k in range(2)
    ]  # a process times its first iteration apart
    assert result.seconds == sum(arm.times.everything for arm in result.arms) > 0


def test_a_finished_study_is_only_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    monkeypatch.delattr(Ensemble, "train")
    capsys.readouterr()
    again = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    assert_equal_measurements(again, first)
    assert [arm.times for arm in again.arms] == [arm.times for arm in first.arms]
    assert "7/7  read  DAT, GP" in capsys.readouterr().out


def test_another_arm_in_the_same_folder(whole: StudyResult, tmp_path: Path) -> None:
    """The arms of a study do not depend on each other, so a part of them may be trained first."""
    part = replace(STUDY, arms={"DAT, GP": _ATTACK})
    run_study(part, CPU, compile=False, folder=tmp_path)
    result = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    assert_equal_measurements(result, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 3}, "'none' with other settings: seeds = 2 there, seeds = 3 now"),
        ({"iterations": 8, "measurements": (2, 8)}, "iterations = 7 there, iterations = 8 now"),
        ({"mixtures": (BALANCED,)}, "mixtures .*0.26"),
        ({"recipe": replace(STUDY.recipe, lr=0.5)}, "recipe .*0.001.* there, recipe .*0.5.* now"),
        ({"regularizers": {}}, "'DAT, GP' with other settings: recipe .*gp.* there"),
        ({"arms": {**STUDY.arms, "DAT, GP": replace(_ATTACK, eps=2.0)}}, 'attack .*"eps": 1.0.*"eps": 2.0'),
    ],
)
def test_folder_with_other_settings(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run_study(STUDY, CPU, compile=False, folder=tmp_path)
    with pytest.raises(RunFolderError, match=message + r".*Give another folder \(--outdir\), or delete"):
        run_study(replace(STUDY, **changes), CPU, compile=False, folder=tmp_path)


def test_commits_of_a_study_that_went_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first arm and a part of the second with one commit, the rest with another."""
    sample, samples = Ensemble.sample, count()

    def dies(self: Ensemble, points: int) -> torch.Tensor:
        if next(samples) == 5:
            raise KilledError
        return sample(self, points)

    monkeypatch.setattr(Ensemble, "sample", dies)
    monkeypatch.setattr(training_origin, "_commit", lambda: "first")
    with pytest.raises(KilledError):
        run_study(STUDY, CPU, compile=False, folder=tmp_path)
    monkeypatch.setattr(training_origin, "_commit", lambda: "second with changes")
    result = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    commits = {name: arm["commits"] for name, arm in arms_as_dict(result).items()}
    assert commits == {"none": ["first"], "DAT, GP": ["first", "second with changes"]}
    assert result.origin.commits == ("first", "second with changes")


def test_machines_of_a_study_stay_those_that_trained_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(training_origin, "processor_name", lambda: "a fast one")
    run_study(STUDY, CPU, compile=False, folder=tmp_path)
    monkeypatch.setattr(training_origin, "processor_name", lambda: "another one")
    monkeypatch.setattr(training_origin, "_commit", lambda: "a later one")
    read = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    assert read.origin.machines == ("a fast one",)
    assert "a later one" not in read.origin.commits


def test_a_state_of_an_earlier_version_has_no_machine(tmp_path: Path) -> None:
    run_study(STUDY, CPU, compile=False, folder=tmp_path)
    for file in (tmp_path / "states").iterdir():
        record = torch.load(file, weights_only=True)
        del record["machines"]
        torch.save(record, file)
    read = run_study(STUDY, CPU, compile=False, folder=tmp_path)
    assert read.origin.machines == ()
    assert len(read.origin.commits) == 1


def test_damaged_state(tmp_path: Path) -> None:
    run_study(STUDY, CPU, compile=False, folder=tmp_path)
    files = sorted((tmp_path / "states").iterdir())
    assert [file.name for file in files] == ["a-study--dat-gp.pt", "a-study--none.pt"]
    files[0].write_bytes(files[0].read_bytes()[:100])
    with pytest.raises(RunFolderError, match=r"a-study--dat-gp\.pt is damaged .*: delete it"):
        run_study(STUDY, CPU, compile=False, folder=tmp_path)


def test_only_a_new_ensemble_is_restored() -> None:
    ensemble = Ensemble((BALANCED,), (0,), _ATTACK, STUDY.recipe)
    ensemble.train(2)
    with pytest.raises(ValueError, match="restore a new ensemble; this one has trained for 2"):
        ensemble.restore(ensemble.state())
