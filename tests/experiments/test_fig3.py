"""The command behind the demo, end to end in a few iterations."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import image
from rich.console import Console

from fastdat.experiments import fig3, report
from fastdat.experiments.ensemble import Ensemble
from fastdat.experiments.fig3 import Fig3Config, run
from fastdat.experiments.plan import ARMS
from fastdat.util.errors import ConfigError, NonFiniteError, RunFolderError
from fastdat.util.files import write_atomically

SMALL: dict[str, Any] = {"iterations": 6, "seeds": 2, "compile": False, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one small run wrote."""
    outdir = tmp_path_factory.mktemp("fig3") / "new" / "folder"
    run(Fig3Config(**SMALL), outdir)
    return outdir


def test_files(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["fig3.json", "fig3.png", "fig3.txt"]
    height, width, _ = image.imread(folder / "fig3.png").shape
    assert width > 1000
    assert height > 400
    text = (folder / "fig3.txt").read_text()
    for expected in ("imbalanced", "DAT, second order", "±", "KL", "not compiled"):
        assert expected in text


def test_json(folder: Path) -> None:
    found = json.loads((folder / "fig3.json").read_text())
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


def test_same_config_same_numbers_and_a_shorter_run_is_the_beginning(folder: Path, tmp_path: Path) -> None:
    shorter = Fig3Config(**SMALL | {"iterations": 4})
    run(shorter, tmp_path)
    long, short = (json.loads((path / "fig3.json").read_text())["arms"] for path in (folder, tmp_path))
    for name in ARMS:
        assert short[name]["measurements"] == long[name]["measurements"][:4]


def test_again_into_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Fig3Config(iterations=1, seeds=1, compile=False, device="cpu", init="torch")
    run(config, tmp_path)
    run(config, tmp_path)
    shown = capsys.readouterr().out
    assert "fig3: 3 arms x 2 mixtures x 1 seed, 1 iterations each, on cpu" in shown
    assert "0/1  starting  no attack" in shown
    assert "1/1  ETA 0:00:00" in shown
    assert "± 0.0" in shown  # one seed has no spread


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
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"seeds": -1}, "seeds=-1"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda"),
        ({"init": "he"}, "init must be one of kaiming, torch"),
    ],
)
def test_bad_config(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fig3Config(**setting)


def test_outdir_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFolderError, match="taken"):
        run(Fig3Config(**SMALL), tmp_path / "taken")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        run(Fig3Config(**SMALL | {"device": "cuda"}), tmp_path)


def test_divergence_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ensemble, "sample", lambda self, count: torch.full((2, 2, count, 2), torch.nan))
    with pytest.raises(NonFiniteError, match="no attack: G gives NaN or infinity after 1 "):
        run(Fig3Config(**SMALL), tmp_path)


def test_runs_where_nothing_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(fig3.torch, "compile", no_compiler)
    result = run(Fig3Config(iterations=1, seeds=1, device="cpu"), tmp_path)
    assert not result.compiled
    assert "torch.compile does not work here (no C++ compiler)" in capsys.readouterr().out


def test_table_fits_eighty_columns(folder: Path, tmp_path: Path) -> None:
    result = run(Fig3Config(iterations=2, seeds=2, compile=False, device="cpu"), tmp_path)
    text = io.StringIO()
    Console(file=text, width=80).print(report.table(result))
    assert all(len(line) <= 80 for line in text.getvalue().splitlines())
    assert "DAT, second order" in text.getvalue()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    write_atomically(target, b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
