"""Image files as cameras, scanners and interrupted downloads leave them."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastdat.data import DataError
from fastdat.data.image_files import UnreadableImage, decode, list_images
from tests.data.helpers import encoded


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff rubbish"])
def test_rubbish_is_not_an_image(content: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(BytesIO(content))


def test_photographs_are_turned_upright() -> None:
    left_is_black = np.zeros((20, 40, 3), np.uint8)
    left_is_black[:, 20:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    found = decode(encoded(Image.fromarray(left_is_black), format="png", exif=exif))
    assert found.shape == (40, 20, 3)
    assert (found[:20] == 0).all()
    assert (found[20:] == 255).all()


def test_a_damaged_tag_does_not_damage_the_image() -> None:
    grey = Image.new("RGB", (8, 8), (7, 8, 9))
    found = decode(encoded(grey, format="png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"))
    assert (found == np.array([7, 8, 9])).all()


def test_16_bit_grey_is_scaled() -> None:
    found = decode(encoded(Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), format="png"))
    assert found.shape == (4, 4, 3)
    assert (found == 0x80).all()


def tiff(pixels: bytes, bits: int, photometric: int, orientation: int = 1) -> bytes:
    """An uncompressed grey TIFF of 4 x 2 pixels."""
    tags = {
        256: 4,
        257: 2,
        258: bits,
        259: 1,
        262: photometric,
        273: 0,
        274: orientation,
        277: 1,
        278: 2,
        279: len(pixels),
    }
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixels


TWELVE_BITS = b"\xff\xf0\x00\x80\x00\x40"  # 4095, 0, 2048, 64: packed, high bits first


def test_grey_of_a_tiff_is_scaled_from_its_own_bits() -> None:
    """Pillow gives 12 and 16 bits as the same mode, and does not say that 0 is white."""
    sixteen = np.array([[0xFFFF, 0, 0x8000, 0x0400]] * 2, "<u2").tobytes()
    assert decode(BytesIO(tiff(sixteen, 16, 1)))[0, :, 0].tolist() == [255, 0, 128, 4]
    assert decode(BytesIO(tiff(TWELVE_BITS * 2, 12, 1)))[0, :, 0].tolist() == [255, 0, 128, 4]
    assert decode(BytesIO(tiff(sixteen, 16, 0)))[0, :, 0].tolist() == [0, 255, 127, 251]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_turned_tiff_is_the_same_by_path(tmp_path: Path, bits: int) -> None:
    """Pillow maps such a file into memory, with width and height swapped."""
    shades = np.array([[10, 20, 30, 40], [50, 60, 70, 80]])
    pixels = (shades * 257).astype("<u2") if bits == 16 else shades.astype(np.uint8)
    file = tmp_path / "scan.tif"
    file.write_bytes(tiff(pixels.tobytes(), bits, 1, orientation=6))
    assert decode(file)[:, :, 0].tolist() == [[50, 10], [60, 20], [70, 30], [80, 40]]


def test_what_is_wrong_is_said_in_the_same_words_each_time() -> None:
    """A packed store keeps these words, and packing again gives the same bytes."""
    with pytest.raises(
        UnreadableImage, match=r"^it is no image of a known format, or its header is damaged$"
    ):
        decode(BytesIO(b"rubbish"))


def test_a_header_that_points_outside_the_file_is_damage(tmp_path: Path) -> None:
    (tmp_path / "big.tif").write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63 - 1))
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "big.tif")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_not_an_image(dtype: Any) -> None:
    with pytest.raises(UnreadableImage, match="have no known range"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype)), format="tiff"))


def test_16_bit_pgm_is_scaled() -> None:
    raw = b"P5 4 4 65535\n" + np.full((4, 4), 0x8040, ">u2").tobytes()
    assert (decode(BytesIO(raw)) == 0x80).all()


@pytest.mark.parametrize(
    ("form", "options"), [("png", {}), ("gif", {}), ("tiff", {"compression": "tiff_lzw"}), ("jpeg", {})]
)
def test_damage_in_the_middle_does_not_give_a_half_black_image(form: str, options: dict[str, Any]) -> None:
    """Asked a second time, Pillow returns what it could decode, without an error."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    good = encoded(Image.fromarray(noise), format=form, **options).getvalue()
    refused_by_pillow = 0
    for start in range(len(good) // 4, len(good) * 3 // 4, len(good) // 20):
        bad = good[:start] + bytes(512) + good[start + 512 :]
        try:
            with Image.open(BytesIO(bad)) as image:
                image.load()
        except (OSError, SyntaxError):
            refused_by_pillow += 1
            with pytest.raises(UnreadableImage):
                decode(BytesIO(bad))
        else:
            decode(BytesIO(bad))
    assert refused_by_pillow or form == "jpeg"


def test_a_system_error_is_not_a_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png cannot be read: No such file"):
        decode(tmp_path / "gone.png")


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(DataError, match="loop cannot be listed: Too many levels of symbolic links"):
        list_images(tmp_path)


def test_all_endings_of_jpegs_count(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpeg", "c.jpe", "d.jfif", "e.JPG"]
    for name in [*names, "f.txt"]:
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in list_images(tmp_path)] == names
