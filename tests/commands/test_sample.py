"""`fastdat sample`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.commands.command_line import invoke
from tests.training.runs import tiny, trainer_of


def test_sample_grid_and_folder(run: Path, tmp_path: Path) -> None:
    assert invoke("sample", run, "-n", 6, "--grid", tmp_path / "a" / "grid.png")[0] == 0
    with Image.open(tmp_path / "a" / "grid.png") as grid:
        assert grid.size == (2 + 3 * 34, 2 + 2 * 34)
        first = grid.crop((2, 2, 34, 34)).tobytes()
    assert invoke("sample", run, "-n", 6, "--folder", tmp_path / "b")[0] == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [f"{i:06d}.png" for i in range(6)]
    with Image.open(tmp_path / "b" / "000000.png") as image:
        assert image.tobytes() == first
    assert invoke("sample", run, "-n", 2, "--interpolate", 5, "--grid", tmp_path / "strips.png")[0] == 0
    with Image.open(tmp_path / "strips.png") as strips:
        assert strips.size == (2 + 5 * 34, 2 + 2 * 34)


def test_sample_refuses(run: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        code, _, err = invoke("sample", run, *arguments)
        assert code == 2
        return err

    assert "exactly one of --grid and --folder" in message()
    assert "exactly one of --grid and --folder" in message("--grid", "a.png", "--folder", "b")
    assert "takes no labels; got 3" in message("--grid", tmp_path / "a.png", "--label", 3)
    (tmp_path / "file").write_text("")
    assert "cannot write" in message("--grid", tmp_path / "file" / "a.png")


def test_points_are_shown_in_one_picture_only(tmp_path: Path) -> None:
    trainer_of(tiny("mlp-dat-gaussians"), None, tmp_path / "run").train()
    assert invoke("sample", tmp_path / "run", "-n", 50, "--grid", tmp_path / "points.png")[0] == 0
    code, _, err = invoke("sample", tmp_path / "run", "-n", 50, "--folder", tmp_path / "points")
    assert (code, "take --grid" in err) == (2, True)
