"""``fastdat reproduce fig3`` on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastdat.cli import app
from fastdat.experiments.points import fig3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[fig3.Fig3Config, Path]]:
    """The runs that the command asks for; none is carried out."""
    made: list[tuple[fig3.Fig3Config, Path]] = []
    monkeypatch.setattr(fig3, "run", lambda *args: made.append(args))
    return made


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--full"], {"iterations": 10_000}),
        (
            ["--iterations", "50", "--seeds", "2", "--no-compile"],
            {"iterations": 50, "seeds": 2, "compile": False},
        ),
        (["--device", "cpu", "--init", "torch"], {"device": "cpu", "init": "torch"}),
    ],
)
def test_options(arguments: list[str], expected: dict[str, Any], calls: list[Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "fig3", "--outdir", str(tmp_path), *arguments])
    assert result.exit_code == 0, result.output
    assert calls == [(fig3.Fig3Config(**expected), tmp_path)]
    assert "fig3.png" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--full", "--iterations", "3"], "--full"),
        (["--iterations", "0"], "iterations must be an integer >= 1"),
        (["--device", "tpu"], "device must be one of"),
        (["--landing", "--full"], "--landing"),
        (["--landing", "--iterations", "3"], "--landing"),
        (["--landing", "--outdir", "nowhere"], "nowhere needs fig3.json and fig3.png"),
    ],
)
def test_user_errors(arguments: list[str], message: str, calls: list[Any]) -> None:
    result = CliRunner().invoke(app, ["reproduce", "fig3", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not calls


def test_end_to_end(tmp_path: Path) -> None:
    arguments = [
        "--iterations",
        "2",
        "--seeds",
        "1",
        "--no-compile",
        "--device",
        "cpu",
        "--outdir",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, ["reproduce", "fig3", *arguments])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "fig3.png").read_bytes().startswith(b"\x89PNG")


def test_landing_picture(small_run: Path, calls: list[Any], tmp_path: Path) -> None:
    folder = shutil.copytree(small_run, tmp_path / "run")
    result = CliRunner().invoke(app, ["reproduce", "fig3", "--landing", "--outdir", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output == f"{folder / 'landing.png'}\n"
    assert (folder / "landing.png").read_bytes().startswith(b"\x89PNG")
    assert not calls
