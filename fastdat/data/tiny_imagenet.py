"""Tiny-ImageNet (Stanford CS231n) in the publisher's ``tiny-imagenet-200`` layout: JPEGs of 64 x 64 pixels.

The publisher's test images have no labels. As usual, ``val`` serves as the test split.
"""

from __future__ import annotations

from pathlib import Path

from fastdat.data.download import Archive
from fastdat.data.image_files import list_images
from fastdat.data.publisher import download_advice, find_folder, missing
from fastdat.data.source import FileSource
from fastdat.util.errors import DataError

FOLDER = "tiny-imagenet-200"
ARCHIVE = Archive(
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    folder=FOLDER,
)


def open_tiny_imagenet(root: Path, split: str) -> FileSource:
    """One split: 100,000 or 10,000 images, or fewer if the folder holds a subset. Labels index the sorted WordNet ids.

    Raises:
        DataError: the folder is missing, or the annotations do not match the files.
    """
    folder = find_folder(root, FOLDER, lambda f: (f / "train").is_dir() and (f / "val").is_dir())
    if folder is None:
        advice = download_advice("tiny-imagenet", "Tiny-ImageNet (237 MiB)", root, FOLDER)
        raise missing(root, f"{FOLDER} with train and val", advice)
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir()))
    if not classes:
        raise DataError(f"{folder / 'train'} has no class folders")
    index = {name: i for i, name in enumerate(classes)}
    files = _train_files(folder) if split == "train" else _val_files(folder, index)
    if not files:
        raise DataError(f"{folder} has no images of the {split} split")
    paths, names = zip(*files, strict=True)
    return FileSource(folder, paths, tuple(index[name] for name in names), classes)


def _train_files(folder: Path) -> list[tuple[str, str]]:
    """Path and class of each training image."""
    found = (path.relative_to(folder) for path in list_images(folder / "train"))
    files = [path for path in found if path.match("train/*/images/*.JPEG")]
    return [(str(path), path.parts[1]) for path in files]


def _val_files(folder: Path, index: dict[str, int]) -> list[tuple[str, str]]:
    """Path and class of each validation image."""
    table = folder / "val" / "val_annotations.txt"
    if not table.is_file():
        raise DataError(f"{table} is missing: it lists the classes of the val images")
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read: {error}") from error
    present = {entry.name for entry in (folder / "val" / "images").glob("*") if entry.is_file()}
    files = []
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in index:
            raise DataError(
                f"{table}, line {number}: expected a file name and a class of the train split, found {line[:60]!r}"
            )
        if name not in present:  # so it cannot be ../../another/file either
            raise DataError(
                f"{table}, line {number}, names {name[:100]}, which is not in {folder / 'val' / 'images'}"
            )
        files.append((f"val/images/{name}", label))
    return files
