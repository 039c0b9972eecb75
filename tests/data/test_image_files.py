"""Image files as cameras, scanners and interrupted downloads leave them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastdat.data import DataError
from fastdat.data.image_files import UnreadableImage, decode
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
