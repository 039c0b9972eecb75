"""Images that are more, or less, than they say."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fastdat.data import image_files
from fastdat.data.image_files import UnreadableImage, decode, list_images
from fastdat.report import grids
from fastdat.report.grids import UnreadablePictureError, _open
from tests.environment import REPOSITORY
from tests.fuzz.watch import Watch


def part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *parts: bytes, pixels: bytes = b"") -> bytes:
    """A grey PNG that says it has this size."""
    head = part(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    body = part(b"IDAT", zlib.compress(pixels or bytes(min((width + 1) * height, 1 << 18)), 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(parts) + body + part(b"IEND", b"")


def refusal(content: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a user's program has it: Pillow only warns
        with pytest.raises(UnreadableImage) as caught:
            decode(io.BytesIO(content))
    return str(caught.value)


@pytest.mark.parametrize(("width", "height"), [(9460, 9460), (12_000, 12_000)])
def test_more_pixels_than_are_decoded(width: int, height: int) -> None:
    """Pillow warns from 89 million pixels on, and refuses 179 million."""
    assert f"it has {width:,} x {height:,} pixels, more than 89,478,485" in refusal(png(width, height))


@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 100_000), (1, 1 << 30), ((1 << 31) - 1, (1 << 31) - 1)]
)
def test_more_pixels_than_pillow_opens(width: int, height: int) -> None:
    assert refusal(png(width, height))


BOMB = """
import io, resource, sys
sys.path.insert(0, {tree!r})
from fastdat.data.image_files import UnreadableImage, decode
from tests.fuzz.test_images import png
decode(io.BytesIO(png(2, 2)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(io.BytesIO(png(30_000, 5_900)))
except UnreadableImage:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_bomb_takes_no_memory() -> None:
    """177 million pixels, which Pillow would decode with a warning, into 177 MB."""
    command = [sys.executable, "-W", "ignore", "-c", BOMB.format(tree=str(REPOSITORY))]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(found.stdout) < 20 << 10, "KiB"


def test_texts_that_unpack_to_gigabytes() -> None:
    bomb = part(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(2 << 20), 9))
    assert "Decompressed data too large" in refusal(png(4, 4, *[bomb] * 100))


def test_a_truncated_image_is_no_half_image() -> None:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "png")
    for share in (0.2, 0.5, 0.9):
        assert refusal(out.getvalue()[: int(len(out.getvalue()) * share)])


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch PLACE)(w)file\nshowpage\n"


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow alone would start Ghostscript, whatever the file is called."""
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path / 'executed'}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}:{os.environ['PATH']}")
    (tmp_path / "1.png").write_bytes(POSTSCRIPT)
    with Watch(tmp_path) as watch, pytest.raises(UnreadableImage):
        decode(tmp_path / "1.png")
    assert [event for event in watch.found if "subprocess" in event or "os." in event] == []
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("form", ["PCX", "TGA", "ICO", "SGI", "DDS"])
def test_formats_that_no_data_set_has(form: str) -> None:
    """Each decoder is one more way in."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, form)
    assert "no image of a known format" in refusal(out.getvalue())


def test_pipes_are_no_images(tmp_path: Path) -> None:
    """Reading one would wait for ever, and a link leads to it too."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "gone.png").symlink_to("nothing")
    (tmp_path / "1.png").write_bytes(png(2, 2))
    assert [path.name for path in list_images(tmp_path)] == ["1.png", "gone.png"]


@pytest.mark.parametrize(
    "content", [png(12_000, 12_000), png(100_000, 100_000), b"", png(2, 2)[:40], POSTSCRIPT]
)
def test_sample_grids_of_a_report(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "step-000001.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadablePictureError, match=r"^step-000001\.png "):
            _open(tmp_path / "step-000001.png")


def test_the_limit_is_pillows_own() -> None:
    assert image_files.MOST_PIXELS == grids.MOST_PIXELS == Image.MAX_IMAGE_PIXELS
