"""Which sample grids the page shows, and how large."""

import io
import itertools
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fastdat.report import write_report
from fastdat.report.grids import evenly, read_grids
from fastdat.report.runs import read_runs
from tests.report.html_page import report
from tests.report.runs import make_run, png


def test_many_grids_are_thinned_out_evenly(tmp_path: Path) -> None:
    page = report(tmp_path, make_run(tmp_path / "run", grids=101))
    steps = [int(str(image["data-step"])) for image in page.find("img") if "data-step" in image]
    assert (len(steps), steps[0], steps[-1]) == (24, 0, 500)
    assert {b - a for a, b in itertools.pairwise(steps)} <= {20, 25}
    assert "24 of 101 grids, evenly chosen; 77 left out (at most 24 per run)." in page.text


def test_evenly_keeps_both_ends() -> None:
    files = [(i, Path(str(i))) for i in range(7)]
    assert [i for i, _ in evenly(files, 2)] == [0, 6]
    assert evenly(files, 7) == files


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", grids=1)
    noise = Image.effect_noise((256, 256), 100)
    content = io.BytesIO()
    noise.save(content, "png")
    (path / "samples" / "step-000000.png").write_bytes(content.getvalue())
    runs = read_runs([path])
    (full,), divisor = read_grids(runs)
    assert (divisor, full.pictures[0].png) == (1, content.getvalue())
    (small,), divisor = read_grids(runs, limit=len(content.getvalue()) // 2)
    assert (divisor, small.pictures[0].width, small.pictures[0].height) == (2, 128, 128)
    with Image.open(io.BytesIO(small.pictures[0].png)) as image:
        assert (image.mode, image.size) == ("L", (128, 128))


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def broken_stream() -> bytes:
    """A PNG whose parts have the right checksums, but whose pixels end too early."""
    content = png((1, 2, 3))
    start = content.index(b"IDAT") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    data = zlib.compress(b"\0")
    part = b"IDAT" + data
    checksum = zlib.crc32(part).to_bytes(4, "big")
    return content[:start] + len(data).to_bytes(4, "big") + part + checksum + content[start + 12 + length :]


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", png((1, 2, 3))[:60], flipped(png((1, 2, 3)), 45), broken_stream()]
)
def test_a_damaged_picture_is_left_out_and_named(tmp_path: Path, content: bytes) -> None:
    path = make_run(tmp_path / "run")
    whole = report(tmp_path, path)
    (path / "samples" / "step-000005.png").write_bytes(content)
    (path / "reals.png").write_bytes(content)
    written = write_report([path], tmp_path / "report.html")
    assert [problem.partition(" is not")[0] for problem in written.not_shown] == [
        f"{path}: step-000005.png",
        f"{path}: reals.png",
    ]
    page = report(tmp_path, path)
    assert len(list(page.find("img"))) == len(list(whole.find("img"))) - 2
    assert "Not shown: step-000005.png is not a readable PNG" in page.text


def test_reals_that_can_be_shown_are_shown(tmp_path: Path) -> None:
    """Two runs have the same reals, and the first one's picture is damaged."""
    first, second = (make_run(tmp_path / name, grids=0) for name in ("first", "second"))
    (first / "reals.png").write_bytes(b"rubbish")
    grids, _ = read_grids(read_runs([first, second]))
    assert [grid.reals is not None for grid in grids] == [False, True]
    assert grids[0].unreadable == ["reals.png is not a readable PNG: its header is no PNG's"]
