"""A study of curves: what is trained and in which order, and that each number stands at its place on the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.experiments import outcome_files
from fastdat.experiments.catalogue import Options
from fastdat.experiments.evidence import curve_study, run_cost
from fastdat.experiments.evidence.curve_figures import SweepLines
from fastdat.experiments.evidence.curve_groups import Group
from fastdat.experiments.evidence.curve_study import CurveStudy
from fastdat.experiments.evidence.finished_runs import FinishedRuns
from fastdat.experiments.evidence.run_cost import Cost, Costs
from fastdat.experiments.images.image_study import Arm, Trained, train_all
from fastdat.experiments.outcome import Outcome, Runs
from fastdat.training.png import grid_png
from fastdat.util.errors import ConfigError
from tests.experiments.image_runs import OPTIONS, ended, images, score, tiny_arm

FULL = replace(OPTIONS, quick=False)
COMPILED = replace(FULL, compile=True)
ARMS = (tiny_arm("no attack"), tiny_arm("DAT", "dcgan-dat-cifar10"), tiny_arm("DAT + LP", lr=1e-3))
STUDY = CurveStudy("study", "A study", (Group(ARMS, "no attack"),), seeds=2)
RATES = CurveStudy(
    "rates",
    "Rates",
    tuple(
        Group(
            (
                tiny_arm(f"LR {lr:g}, no attack", lr=lr),
                tiny_arm(f"LR {lr:g}, DAT", "dcgan-dat-cifar10", lr=lr),
            ),
            f"LR {lr:g}, no attack",
            f"LR {lr:g}",
        )
        for lr in (0.1, 0.2)
    ),
    seeds=2,
    sweep=SweepLines(
        "rate", {arm: [(lr, f"LR {lr:g}, {arm}") for lr in (0.1, 0.2)] for arm in ("no attack", "DAT")}
    ),
)


@pytest.fixture
def on_noise(monkeypatch: pytest.MonkeyPatch, means_extractor: None) -> list[str]:
    """Train on noise; the list has the runs in the order in which they ended."""
    order: list[str] = []

    def training(*args: Any, **settings: Any) -> Any:
        write = settings.pop("ended")

        def ended(run: Trained) -> None:
            order.append(f"{run.arm} {run.seed}")
            write(run)

        return train_all(*args, **{**settings, "images": images(), "ended": ended})

    monkeypatch.setattr(curve_study, "train_all", training)
    return order


def test_all_arms_of_a_seed_come_before_the_next_seed(on_noise: list[str], tmp_path: Path) -> None:
    found = STUDY.train(replace(FULL, only=("no attack", "DAT")), tmp_path)
    assert on_noise == ["no attack 0", "DAT 0", "no attack 1", "DAT 1"]
    assert {name: [run.seed for run in runs] for name, runs in found.items()} == {
        "no attack": [0, 1],
        "DAT": [0, 1],
    }
    assert [line["step"] for line in found["DAT"][1].scores] == [2, 4]
    assert {file.suffix for file in (tmp_path / "finished").iterdir()} == {".json", ".png"}


def test_a_sweep_keeps_no_pictures(on_noise: list[str], tmp_path: Path) -> None:
    RATES.train(replace(FULL, seeds=1, only=("LR 0.1, DAT",)), tmp_path)
    assert on_noise == ["LR 0.1, DAT 0"]
    assert [file.name for file in (tmp_path / "finished").iterdir()] == ["lr-0.1-dat-0.json"]


def test_finished_runs_from_elsewhere_are_not_trained(on_noise: list[str], tmp_path: Path) -> None:
    one = replace(FULL, only=("no attack",))
    first = STUDY.train(one, tmp_path / "one machine")
    shutil.copytree(tmp_path / "one machine" / "finished", tmp_path / "another" / "finished")
    (tmp_path / "another" / "finished" / "no-attack-0.json").unlink()
    on_noise.clear()
    again = STUDY.train(one, tmp_path / "another")
    assert on_noise == ["no attack 0"]
    scores = [
        [[line["scores"] for line in run.scores] for run in runs["no attack"]] for runs in (first, again)
    ]
    assert scores[0] == scores[1]


def test_quick_runs_do_not_take_the_place_of_whole_ones(
    on_noise: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(curve_study, "QUICK_STEPS", 4)
    monkeypatch.setattr(curve_study, "QUICK_SCORES", 2)
    STUDY.train(replace(OPTIONS, only=("DAT",), seeds=1), tmp_path)
    assert on_noise == ["DAT 0"]
    assert not (tmp_path / "finished").exists()
    assert {file.name for file in (tmp_path / "finished-quick").iterdir()} == {"dat-0.json", "dat-0.png"}


def test_runs_that_were_scored_otherwise_do_not_make_a_page(on_noise: list[str], tmp_path: Path) -> None:
    one = replace(FULL, only=("DAT",))
    STUDY.train(one, tmp_path)
    file = tmp_path / "finished" / "dat-1.json"
    record = json.loads(file.read_text())
    for line in record["scores"]:
        line["data_sha256"] = "of other images"
    file.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="DAT, seed 1, was scored otherwise than DAT, seed 0: data_sha256"):
        STUDY.train(one, tmp_path)


def test_quick_runs_are_short_and_not_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(curve_study, "train_all", lambda *args, **kwargs: asked.append(args))
    STUDY.train(Options(quick=True, compile=True, only=("DAT",)), tmp_path)
    STUDY.train(Options(quick=False, compile=True, seeds=5), tmp_path)
    quick, full = asked
    (arm,), seeds, options, _ = quick
    assert (arm.name, arm.config.steps, arm.config.eval.every, seeds) == ("DAT", 200, 50, 2)
    assert arm.config.checkpoints.every == 50
    assert not options.compile
    assert [arm.config.steps for arm in full[0]] == [4, 4, 4]
    assert full[1] == 5
    assert full[2].compile


# --- the page --------------------------------------------------------------------------------------------------------


def given(monkeypatch: pytest.MonkeyPatch, kids: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Let studies find runs with these KIDs after steps 1, 2, 3, 4; fewer of a run that diverged."""

    def found(self: CurveStudy, options: Options, folder: Path) -> dict[str, tuple[Trained, ...]]:
        return {
            arm.name: tuple(
                ended(
                    arm.name,
                    [score(step, kid=kid) for step, kid in enumerate(of_run, 1)],
                    seed,
                    diverged=len(of_run) < 4,
                    config=arm.config,
                )
                for seed, of_run in enumerate(kids[arm.name])
            )
            for arm in self.arms(options)
        }

    monkeypatch.setattr(CurveStudy, "train", found)


KIDS = {
    "no attack": [[9, 8, 3, 5], [9, 7, 6, 8]],  # scores 4 and 7
    "DAT": [[9, 6, 1, 2], [9, 6, 2, 3]],  # 1.5 and 2.5
    "DAT + LP": [[9, 20, 30, 31], [5, 6]],
}


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"no attack": Cost(0.1, 0.25), "DAT": Cost(0.15, 0.5), "DAT + LP": Cost(0.4, 0.75)}

    def measured(arms: Sequence[Arm], options: Options, folder: Path) -> Costs:
        assert options.compile
        assert folder.name == "finished"
        machine = {"device": "a processor", "threads": 3}
        return Costs({arm.name: seconds[arm.name] for arm in arms}, machine, "abc")

    monkeypatch.setattr(run_cost, "measured", measured)


def cells(outcome: Outcome, table: int) -> dict[str, Any]:
    return {row.label: row.cells for row in outcome.tables[table].rows}


@pytest.mark.usefixtures("costs")
def test_each_number_stands_at_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, KIDS)
    outcome = STUDY.run(COMPILED, tmp_path)
    scores = cells(outcome, 0)
    kid = "train KID (efficientnet-lite0)"
    assert scores["no attack"] == {
        kid: Runs((4.0, 7.0)),
        "after the last step": Runs((5.0, 8.0)),
        "best": Runs((3.0, 6.0)),
    }
    assert scores["DAT"][kid] == Runs((1.5, 2.5))
    assert scores["DAT"]["difference"] == -3.5
    # Variances of the means: 4.5 / 2 and 0.5 / 2.
    assert scores["DAT"]["in standard errors"] == pytest.approx(-3.5 / 2.5**0.5)
    assert scores["DAT + LP"][kid] == Runs((30.5,))
    assert scores["DAT + LP"]["in standard errors"] is None
    over = cells(outcome, 1)
    assert over["no attack"] == {"step 2": 7.5, "step 4": 6.5}
    assert over["DAT + LP"] == {"step 2": 20.0, "step 4": 31.0}
    cost = cells(outcome, 2)
    assert cost["DAT"] == {
        "seconds, compiled": pytest.approx(0.6),
        "times the base": pytest.approx(1.5),
        "seconds, eager": 2.0,
        kid: Runs((1.5, 2.5)),
    }
    assert "4 steps" in outcome.tables[2].title
    assert outcome.tables[2].title.endswith("(a processor, 3 threads, fastdat abc)")
    assert cells(outcome, 3) == {"DAT + LP": {"runs": "1 of 2"}}
    assert outcome.command == "fastdat reproduce study --full --seeds 2"
    assert set(outcome.figures) == {""}
    assert outcome.seconds == 6 * 7.0
    assert not outcome.quick
    assert outcome_files.write(outcome, tmp_path)


@pytest.mark.usefixtures("costs")
def test_the_sentences_say_what_the_test_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    far = {**KIDS, "no attack": [[9, 9, 4, 4], [9, 9, 5, 5]], "DAT + LP": [[0, 0, 4, 4], [0, 0, 5, 6]]}
    given(monkeypatch, far)  # DAT 2 against 4.5: -2.5 / sqrt(0.25 + 0.25)
    first, base, lower, alike = STUDY.run(COMPILED, tmp_path).findings
    assert first == (
        "By 3 standard errors or more the KID is lower than that of 'no attack' with DAT (-3.5), and higher with no "
        "arm; 1 of 2 arms cannot be told apart from it."
    )
    assert base == "KID of 'no attack': 4.50 ± 0.71 (2 runs)."
    assert lower == "Lower (KID, difference in standard errors): DAT 2.00 ± 0.71 (2 runs), -3.5."
    assert alike.startswith("Not told apart (KID, difference in standard errors): DAT + LP 4.75")


def test_without_compilation_no_cost_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, KIDS)
    monkeypatch.setattr(run_cost, "measured", None)
    titles = [table.title for table in STUDY.run(FULL, tmp_path).tables]
    assert not any("Cost" in title for title in titles)


@pytest.mark.usefixtures("costs")
def test_the_sentences_name_runs_that_diverged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, KIDS)
    assert STUDY.run(COMPILED, tmp_path).findings[-1] == (
        "NaN or infinity ended runs of DAT + LP, 1 of 2. Means are those of the other runs."
    )
    given(monkeypatch, {**KIDS, "no attack": [[3], [4]]})
    assert STUDY.run(COMPILED, tmp_path).findings == (
        "NaN or infinity ended runs of no attack, 2 of 2; DAT + LP, 1 of 2. Means are those of the other runs.",
    )


def test_a_base_that_diverged_is_named_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = {"LR 0.1, no attack": [[1], [2]], "LR 0.1, DAT": [[0, 0, 5, 6]] * 2}
    given(
        monkeypatch,
        {**broken, "LR 0.2, no attack": [[0, 0, 1, 1], [0, 0, 2, 2]], "LR 0.2, DAT": [[0, 0, 3, 4]] * 2},
    )
    findings = RATES.run(FULL, tmp_path).findings
    assert findings[1] == "KID of 'no attack': diverged at LR 0.1; 1.50 ± 0.71 (2 runs) at LR 0.2."
    assert findings[-1].startswith("NaN or infinity ended runs of LR 0.1, no attack, 2 of 2.")


@pytest.mark.usefixtures("costs")
def test_runs_of_different_precision_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(self: CurveStudy, options: Options, folder: Path) -> dict[str, tuple[Trained, ...]]:
        return {
            arm.name: tuple(
                ended(
                    arm.name,
                    [score(3, kid=1.0), score(4, kid=2.0)],
                    config=arm.config.replace({"precision": kind}),
                )
                for kind in kinds
            )
            for arm in self.arms(options)
        }

    monkeypatch.setattr(CurveStudy, "train", found)
    kinds = ["fp32"]
    assert not [note for note in STUDY.run(COMPILED, tmp_path).notes if "precision" in note]
    kinds = ["fp32", "bf16"]
    assert 'precision "auto" was bf16 or fp32' in STUDY.run(COMPILED, tmp_path).notes[-1]


def test_an_arm_looks_alike_in_all_panels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, {arm.name: [[9, 8, 3, 5]] for group in RATES.groups for arm in group.arms})
    wanted = ("LR 0.1, no attack", "LR 0.2, no attack", "LR 0.2, DAT")
    figure = RATES.run(replace(FULL, only=wanted), tmp_path).figures["-curves"]
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in figure.axes]
    assert colours[0]["no attack"] == colours[1]["no attack"] != colours[1]["DAT"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["no attack", "DAT"]


def test_lines_of_many_arms_can_be_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arms = tuple(tiny_arm(f"arm {k}") for k in range(13))
    given(monkeypatch, {arm.name: [[9, 8, 3, 5]] for arm in arms})
    many = CurveStudy("many", "Many", (Group(arms, "arm 0"),), seeds=1)
    figure = many.run(FULL, tmp_path).figures[""]
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 13
    assert len(figure.legends[0].get_texts()) == 13


def test_a_part_of_the_arms_measures_no_cost_and_compares_with_nothing_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given(monkeypatch, KIDS)
    outcome = STUDY.run(replace(FULL, only=("DAT", "DAT + LP")), tmp_path)
    assert not [said for said in outcome.findings if "standard error" in said]
    assert [table.title.split()[0] for table in outcome.tables] == ["Mean", "Mean", "Runs"]
    assert "difference" not in cells(outcome, 0)["DAT + LP"]


def test_arms_are_compared_with_the_base_of_their_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = {"LR 0.1, no attack": 1.0, "LR 0.1, DAT": 2.0, "LR 0.2, no attack": 30.0, "LR 0.2, DAT": 20.0}
    given(monkeypatch, {name: [[0, 0, kid, kid], [0, 0, kid, kid + 2]] for name, kid in runs.items()})
    outcome = RATES.run(FULL, tmp_path)
    scores = cells(outcome, 0)
    assert (scores["LR 0.1, DAT"]["difference"], scores["LR 0.2, DAT"]["difference"]) == (1.0, -10.0)
    assert (
        outcome.findings[1]
        == "KID of 'no attack': 1.50 ± 0.71 (2 runs) at LR 0.1; 30.5 ± 0.7 (2 runs) at LR 0.2."
    )
    assert set(outcome.figures) == {"", "-curves"}
    titles = [axes.get_title() for axes in outcome.figures["-curves"].axes]
    assert titles == ["LR 0.1", "LR 0.2"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in outcome.figures[""].axes[0].lines}
    assert lines == {"no attack": [[0.1, 1.5], [0.2, 30.5]], "DAT": [[0.1, 2.5], [0.2, 20.5]]}


@pytest.mark.usefixtures("costs")
def test_samples_are_those_of_the_median_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, {**KIDS, "no attack": [[0, 0, 7, 7], [0, 0, 5, 5], [0, 0, 6, 6]]})
    finished = FinishedRuns(tmp_path / "finished")
    (tmp_path / "finished").mkdir()
    for seed in range(3):
        picture = grid_png(torch.full((32, 3, 4, 4), seed / 2), columns=8)
        (tmp_path / "finished" / f"no-attack-{seed}.png").write_bytes(picture)
    (axes,) = STUDY.run(COMPILED, tmp_path).figures["-samples"].axes
    assert axes.get_title() == "no attack: seed 2, KID 6.00"
    shown = axes.images[0].get_array()
    median = finished.samples(ended("no attack", [], 2))
    assert shown is not None
    assert median is not None
    assert torch.equal(torch.as_tensor(shown), median)


def test_a_page_from_real_runs(on_noise: list[str], tmp_path: Path) -> None:
    outcome = partial(STUDY.run, replace(FULL, only=("no attack", "DAT")))(tmp_path)
    assert len(on_noise) == 4
    assert set(outcome.figures) == {"", "-samples"}
    assert outcome.seconds > 0
    assert len(outcome.details["runs"]) == 4
    assert [axes.get_title().split(":")[0] for axes in outcome.figures["-samples"].axes] == [
        "no attack",
        "DAT",
    ]
    outcome_files.write(outcome, tmp_path)
    assert "difference in standard errors" in (tmp_path / "study.md").read_text()
