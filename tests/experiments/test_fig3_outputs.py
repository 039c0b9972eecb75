"""The files that a run of Fig. 3 writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib import image

from fastdat.experiments.outcome_files import markdown
from fastdat.experiments.points import fig3_outputs
from fastdat.experiments.points.fig3 import ARMS, Fig3Config
from fastdat.experiments.points.study import Arm, Measurement, StudyResult, Times
from fastdat.metrics.modes import coverage
from fastdat.util.files import write_atomically


def test_files(small_run: Path) -> None:
    files = {path.name for path in small_run.iterdir() if path.is_file()}
    assert files == {"fig3.json", "fig3.md", "fig3.csv", "fig3.png", "fig3.svg"}
    height, width, _ = image.imread(small_run / "fig3.png").shape
    assert width > 1000
    assert height > 400
    text = (small_run / "fig3.md").read_text()
    assert text.startswith("# Fig. 3, scaled down: 6 of 10,000 iterations\n")
    for expected in (
        "imbalanced",
        "DAT, second order, 4",
        "±",
        "KL",
        "not compiled",
        "--iterations 6 --seeds 2",
    ):
        assert expected in text


def test_json(small_run: Path) -> None:
    found = json.loads((small_run / "fig3.json").read_text())
    assert found["config"]["iterations"] == 6
    assert found["config"]["recipe"]["lr"] == 1e-3
    assert found["seeds"] == [0, 1]
    assert found["machine"]["torch"] == torch.__version__
    assert markdown(found) == (small_run / "fig3.md").read_text()  # RESULTS.md is made of the JSON
    assert list(found["arms"]) == list(ARMS)
    assert found["arms"]["DAT, second order"]["attack"]["second_order"]
    for arm in found["arms"].values():
        assert arm["milliseconds_per_iteration"] > 0
        assert [m["iteration"] for m in arm["measurements"]] == [1, 2, 3, 4, 5, 6]
        last = arm["measurements"][-1]["imbalanced"]
        for name in ("modes", "high_quality", "kl"):
            values = last[name]["values"]
            assert len(values) == 2
            assert last[name]["mean"] == pytest.approx(sum(values) / 2)
            assert last[name]["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert [sum(histogram) for histogram in last["histogram"]] == pytest.approx([1, 1])


def test_table_holds_the_measurements_at_the_checkpoints(small_run: Path) -> None:
    found = json.loads((small_run / "fig3.json").read_text())
    table = found["tables"][0]
    rows = {row["label"]: row["cells"] for row in table["rows"]}
    assert list(rows) == [f"{arm}, {iteration}" for arm in ARMS for iteration in (2, 4, 6)]
    for arm in ARMS:
        for measured in found["arms"][arm]["measurements"][1::2]:
            cells = rows[f"{arm}, {measured['iteration']}"]
            for mixture in ("balanced", "imbalanced"):
                for what, key in (("modes", "modes"), ("quality", "high_quality"), ("KL", "kl")):
                    assert cells[f"{what}, {mixture}"]["values"] == measured[mixture][key]["values"]


def test_findings_are_computed(small_run: Path, small_config: Fig3Config) -> None:
    """The sentences of a result with other numbers of modes."""
    study = small_config.study
    modes = {"no attack": (3, 5), "DAT": (9, 8), "DAT, second order": (7, 8)}
    early = {1: 6, 2: -1}  # all modes at first, which is no success

    def measured(arm: str, iteration: int) -> Measurement:
        x = torch.zeros(2, 10, 2)
        shown = torch.full((2, 5, 2), 0.5) if iteration in study.checkpoints else None
        found = {
            m.name: replace(coverage(x, m), modes=torch.tensor(modes[arm]) - k + early.get(iteration, 0))
            for k, m in enumerate(study.mixtures)
        }
        return Measurement(iteration, found, shown)

    arms = tuple(
        Arm(name, attack, study.recipe, tuple(measured(name, i) for i in study.measurements), Times())
        for name, attack in study.arms.items()
    )
    config = {"iterations": 6, "seeds": 2, "init": "kaiming", "compile": True}
    found = fig3_outputs.outcome(StudyResult(study, True, torch.device("cpu"), arms, 1.0), config)
    assert found.findings == (
        "Modes found of 9 after 6 iterations (balanced, imbalanced): no attack 4.0 / 3.0; DAT 8.5 / 7.5; "
        "DAT, second order 7.5 / 6.5.",
        "8 modes or more, mean of all GANs, at every measurement from some iteration on: no attack never; DAT from 3; "
        "DAT, second order never.",
    )
    assert found.command == "fastdat reproduce fig3 --iterations 6 --seeds 2"


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
