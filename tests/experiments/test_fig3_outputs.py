"""The files that a run of Fig. 3 writes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from matplotlib import image
from rich.console import Console

from fastdat.experiments.points import fig3_outputs
from fastdat.experiments.points.fig3 import ARMS, Fig3Config, run
from fastdat.util.files import write_atomically


def test_files(small_run: Path) -> None:
    assert sorted(path.name for path in small_run.iterdir()) == ["fig3.json", "fig3.png", "fig3.txt"]
    height, width, _ = image.imread(small_run / "fig3.png").shape
    assert width > 1000
    assert height > 400
    text = (small_run / "fig3.txt").read_text()
    for expected in ("imbalanced", "DAT, second order", "±", "KL", "not compiled"):
        assert expected in text


def test_json(small_run: Path) -> None:
    found = json.loads((small_run / "fig3.json").read_text())
    assert found["config"]["iterations"] == 6
    assert found["config"]["recipe"]["lr"] == 1e-3
    assert found["seeds"] == [0, 1]
    assert found["machine"]["torch"] == torch.__version__
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


def test_table_fits_eighty_columns(tmp_path: Path) -> None:
    result = run(Fig3Config(iterations=2, seeds=2, compile=False, device="cpu"), tmp_path)
    text = io.StringIO()
    Console(file=text, width=80).print(fig3_outputs.table(result))
    assert all(len(line) <= 80 for line in text.getvalue().splitlines())
    assert "DAT, second order" in text.getvalue()


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
