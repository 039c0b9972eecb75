"""`fastdat sample`."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastdat.data import ImageSet
from tests.commands.command_line import invoke
from tests.training.runs import scored, tiny, trainer_of


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


def test_samples_of_an_earlier_call_are_not_mixed_with_new_ones(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    assert invoke("sample", run, "-n", 5, "--folder", folder)[0] == 0
    assert invoke("sample", run, "-n", 5, "--folder", folder, "--seed", 1)[0] == 0, "all are written anew"
    before = (folder / "000000.png").read_bytes()
    code, _, err = invoke("sample", run, "-n", 3, "--folder", folder)
    assert (code, "many holds 000003.png and 1 more of an earlier call" in err) == (2, True)
    assert (folder / "000000.png").read_bytes() == before


def test_a_grid_is_a_png(run: Path, tmp_path: Path) -> None:
    code, _, err = invoke("sample", run, "-n", 3, "--grid", tmp_path / "x.jpg")
    assert (code, "a grid is a PNG, a file that ends with .png; got" in err) == (2, True)
    assert not (tmp_path / "x.jpg").exists()


def test_scale_enlarges_every_pixel(run: Path, tmp_path: Path) -> None:
    for scale in (1, 3):
        assert invoke("sample", run, "-n", 2, "--grid", tmp_path / f"{scale}.png", "--scale", scale)[0] == 0
        assert invoke("sample", run, "-n", 2, "--folder", tmp_path / f"{scale}", "--scale", scale)[0] == 0
    for name in ("{}.png", "{}/000001.png"):
        with Image.open(tmp_path / name.format(1)) as small, Image.open(tmp_path / name.format(3)) as large:
            width, height = small.size
            assert large.size == (3 * width, 3 * height)
            assert large.tobytes() == small.resize(large.size, Image.Resampling.NEAREST).tobytes()


def test_an_animation_goes_there_and_back(run: Path, tmp_path: Path) -> None:
    options = ["sample", run, "-n", 2, "--interpolate", 4]
    assert invoke(*options, "--grid", tmp_path / "rows.png")[0] == 0
    assert invoke(*options, "--animation", tmp_path / "walk.webp")[0] == 0
    rows = Image.open(tmp_path / "rows.png")
    with Image.open(tmp_path / "walk.webp") as walk:
        assert (getattr(walk, "n_frames", 1), walk.info["loop"]) == (6, 0)
        assert walk.size == (2 + 2 * 34, 2 + 34)
        for frame, step in enumerate((0, 1, 2, 3, 2, 1)):
            walk.seek(frame)
            for row in range(2):
                shown = walk.convert("RGB").crop((2 + 34 * row, 2, 34 + 34 * row, 34))
                at = (2 + 34 * step, 2 + 34 * row, 34 + 34 * step, 34 + 34 * row)
                assert shown.tobytes() == rows.crop(at).tobytes(), (frame, row)


@pytest.mark.parametrize("name", ["walk.gif", "walk.PNG"])
def test_other_animations(name: str, run: Path, tmp_path: Path) -> None:
    assert invoke("sample", run, "-n", 1, "--animation", tmp_path / name)[0] == 0
    with Image.open(tmp_path / name) as walk:
        assert getattr(walk, "n_frames", 1) == 2 * 24 - 2


def test_a_class_by_number_and_by_name(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer_of(scored(cifar10_root, "csngan-dat-cifar10"), few_images, tmp_path / "run").train()

    def picture(*arguments: object) -> bytes:
        assert invoke("sample", tmp_path / "run", "-n", 2, "--grid", tmp_path / "a.png", *arguments)[0] == 0
        return (tmp_path / "a.png").read_bytes()

    assert picture("--class", 4) == picture("--class", "deer")
    assert picture("--class", 4) != picture("--class", "ship")
    for given in ("10", "dear", "-1"):
        code, _, err = invoke("sample", tmp_path / "run", "--grid", "a.png", f"--class={given}")
        assert (code, f"there is no class {given!r}. " in err) == (2, True)
    assert "Give its number, 0 to 9, or its name: airplane, automobile, bird" in err
    code, _, err = invoke("sample", tmp_path / "run", "--grid", "a.png", "--class", "dear")
    assert "Did you mean deer" in err


def test_a_checkpoint_file_is_enough(run: Path, tmp_path: Path) -> None:
    lone = tmp_path / "mine.pt"
    lone.write_bytes((run / "checkpoints" / "best.pt").read_bytes())
    assert invoke("sample", run, "--checkpoint", "best", "--grid", tmp_path / "a.png")[0] == 0
    assert invoke("sample", lone, "--grid", tmp_path / "b.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_sample_refuses(run: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        code, _, err = invoke("sample", run, *arguments)
        assert code == 2
        return " ".join(err.replace("│", " ").split())

    one = "exactly one of --grid, --folder and --animation"
    assert one in message()
    assert one in message("--grid", "a.png", "--folder", "b")
    assert one in message("--grid", "a.png", "--animation", "b.gif")
    assert "walks can be written with --grid or --animation" in message("--folder", "b", "--interpolate", 3)
    assert "ends with .gif, .webp, .png; got a.mp4" in message("--animation", "a.mp4")
    assert "has no classes; got class 3" in message("--grid", tmp_path / "a.png", "--class", 3)
    assert "at most 10,000 samples, got 12,000" in message("-n", 500, "--animation", "a.gif")
    # 13 columns and 13 rows of 32 pixels with gaps of 2, all enlarged
    too_large = message("-n", 160, "--grid", tmp_path / "a.png", "--scale", 32)
    assert (
        f"may have 170,000,000 pixels in all, and this one would have {(13 * 34 + 2) ** 2 * 32**2:,}"
        in too_large
    )
    too_large = message("-n", 64, "--animation", "a.gif", "--scale", 8)
    assert f"this one would have {46 * (8 * 34 + 2) ** 2 * 64:,}" in too_large
    too_large = message("-n", 2, "--interpolate", 500, "--grid", "a.png", "--scale", 13)
    assert f"this one would have {(2 * 34 + 2) * (500 * 34 + 2) * 169:,}" in too_large
    (tmp_path / "file").write_text("")
    assert "cannot write" in message("--grid", tmp_path / "file" / "a.png")


def test_points_are_shown_in_one_picture_only(tmp_path: Path) -> None:
    trainer_of(tiny("mlp-dat-gaussians"), None, tmp_path / "run").train()
    assert invoke("sample", tmp_path / "run", "-n", 50, "--grid", tmp_path / "points.png")[0] == 0
    for option, value in (
        ("--folder", "points"),
        ("--animation", "a.gif"),
        ("--scale", 2),
        ("--interpolate", 3),
    ):
        grid = ["--grid", tmp_path / "a.png"] if option in ("--scale", "--interpolate") else []
        given = tmp_path / value if isinstance(value, str) else value
        code, _, err = invoke("sample", tmp_path / "run", "-n", 5, option, given, *grid)
        assert (code, f"{option} is for images" in err, "take --grid alone" in err) == (2, True, True)
