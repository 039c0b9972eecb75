"""The experiment behind the demo, from its settings to its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.experiments.points.fig3 import ARMS, Fig3Config, run
from fastdat.util.errors import ConfigError, RunFolderError


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [(10_000, (2_000, 3_000, 10_000)), (3_000, (1_000, 2_000, 3_000)), (2, (1, 2)), (1, (1,))],
)
def test_checkpoints(iterations: int, expected: tuple[int, ...]) -> None:
    config = Fig3Config(iterations=iterations)
    assert config.checkpoints == expected
    assert set(expected) <= set(config.measurements)
    assert config.measurements[-1] == iterations


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer >= 1"),
        ({"seeds": -1}, "seeds must be an integer >= 1; got -1"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda"),
        ({"init": "he"}, "init must be one of kaiming, torch"),
    ],
)
def test_bad_config(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fig3Config(**setting)


def test_same_config_gives_same_numbers_and_a_shorter_run_their_beginning(
    small_config: Fig3Config, small_run: Path, tmp_path: Path
) -> None:
    run(replace(small_config, iterations=4), tmp_path)
    long, short = (json.loads((path / "fig3.json").read_text())["arms"] for path in (small_run, tmp_path))
    for name in ARMS:
        assert short[name]["measurements"] == long[name]["measurements"][:4]


def test_second_run_into_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Fig3Config(iterations=1, seeds=1, compile=False, device="cpu", init="torch")
    run(config, tmp_path)
    before, files = capsys.readouterr().out, {p.name: p.read_bytes() for p in tmp_path.glob("fig3.*")}
    assert "fig3: 3 arms x 2 mixtures x 1 seed, 1 iterations each, on cpu" in before
    assert "0/1  starting  no attack" in before
    assert "1/1  ETA 0:00:00" in before
    run(config, tmp_path)
    again = capsys.readouterr().out
    assert "1/1  read  no attack" in again
    assert "starting" not in again
    assert len(files) == 5
    assert {p.name: p.read_bytes() for p in tmp_path.glob("fig3.*")} == files


def test_folder_of_other_settings(tmp_path: Path) -> None:
    config = Fig3Config(iterations=1, seeds=1, compile=False, device="cpu")
    run(config, tmp_path)
    message = r"holds 'no attack' with other settings: iterations = 1 there, iterations = 2 now.*--outdir"
    with pytest.raises(RunFolderError, match=message):
        run(replace(config, iterations=2), tmp_path)


def test_outdir_is_a_file(small_config: Fig3Config, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFolderError, match="taken"):
        run(small_config, tmp_path / "taken")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu(small_config: Fig3Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        run(replace(small_config, device="cuda"), tmp_path)
