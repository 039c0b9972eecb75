"""What several tests of the data sets use."""

from __future__ import annotations

import mmap
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from fastdat import cli
from fastdat.data import DataError, ImageSet, Store, load_split, pack
from tests.environment import REPOSITORY

#: Blocks and pieces of 8 images, each made durable at once, so that 60 images suffice to test many of them.
SMALL_PIECES = {
    "fastdat.data.image_set.BLOCK": 8,
    "fastdat.data.packing.pieces.PIECE_IMAGES": 8,
    "fastdat.data.packing.split_writer.DURABLE_SECONDS": 0.0,
}
#: With small pieces at 32 pixels: shards of 16 images, and pages that exist on every machine.
SMALL_SHARDS = {
    "fastdat.data.image_layout.SHARD_BYTES": 16 * 3 * 32 * 32,
    "fastdat.data.image_layout.PAGE_BYTES": mmap.PAGESIZE,
}


def picture(image: NDArray[np.uint8]) -> Image.Image:
    """An image (3, H, W) as Pillow has it."""
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def encoded(image: Image.Image, **settings: Any) -> BytesIO:
    """An image file in memory."""
    content = BytesIO()
    image.save(content, **settings)
    content.seek(0)
    return content


def save_black(*paths: Path) -> None:
    """Save a black image of 8 x 8 pixels at each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def flip_bit(path: Path, bit: int) -> None:
    """Change one bit of a file; the same call again changes it back."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def replace_image(path: Path, cifar10: ImageSet) -> None:
    """Put another image, of another size in pixels and bytes, under the same name."""
    picture(cifar10.images[200].numpy()).resize((40, 40)).save(path)


def write_tiny_imagenet(root: Path, pixels: NDArray[np.uint8]) -> Path:
    """Tiny-ImageNet with two classes and four images per split; returns its folder."""
    folder = root / "tiny-imagenet-200"
    for wnid in ("n01", "n02"):
        (folder / "train" / wnid / "images").mkdir(parents=True)
    (folder / "val" / "images").mkdir(parents=True)
    for i, image in enumerate(pixels[:4]):
        large = picture(image).resize((64, 64))
        large.save(folder / "train" / f"n0{1 + i % 2}" / "images" / f"{i}.JPEG")
        large.save(folder / "val" / "images" / f"val_{i}.JPEG")
    lines = [f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t0\t63\t63" for i in range(4)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return folder


def assert_refused(
    dataset: str, root: Path, message: str, split: str = "train", resolution: int | None = None
) -> None:
    """Loading the split fails with this message (a regular expression)."""
    with pytest.raises(DataError, match=message):
        load_split(dataset, root, split, resolution)


def run_command(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``fastdat`` with these arguments."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


# --- packing -----------------------------------------------------------------------------------------------------


def packed(pictures: Path, dest: Path, **changes: Any) -> Store:
    """The store of a folder of pictures, packed at 32 pixels in this process unless changed."""
    return pack("folder", pictures, dest, **{"resolution": 32, "workers": 0} | changes).store


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, by name."""
    return {path.name: path.read_bytes() for path in store.iterdir()}


def training_files(pictures: Path) -> list[Path]:
    """Files of the train split, in the order in which they are packed."""
    return sorted((pictures / "train").rglob("*.png"))


def stop_after(images: int, pictures: Path, dest: Path) -> Path:
    """Interrupt packing after so many images of the train split; returns the partial store."""

    def stop(split: str, done: int, *_: int) -> None:
        if done == images:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(pictures, dest, progress=stop)
    return dest.with_name(dest.name + ".partial")


def command_to_pack(pictures: Path, dest: Path, *options: str) -> dict[str, Any]:
    """Arguments for ``subprocess`` that pack ``pictures`` in another process: see pack_small.py for the options."""
    command = [sys.executable, "-m", "tests.data.packing.pack_small", str(pictures), str(dest), *options]
    return {"args": command, "cwd": REPOSITORY, "text": True}
