"""Any folder of images: with ``train`` and ``test`` inside, or without; subfolders are classes."""

from __future__ import annotations

from pathlib import Path

from fastdat.data.errors import DataError
from fastdat.data.source import SUFFIXES, FileSource, list_images, require_folder


def open_folder(root: Path, split: str) -> FileSource:
    """One split: ``root/train`` or ``root/test``, or all of ``root`` as train where it has no such folders.

    Raises:
        DataError: no folder, no images in it, or no such split.
    """
    require_folder(root, "Give a folder of images.")
    has_splits = (root / "train").is_dir()
    if not has_splits and split != "train":
        raise DataError(f"{root} has no test split: put the images into {root}/train and {root}/test")
    folder = root / split if has_splits else root
    require_folder(folder, f"Put images of the {split} split there.")
    paths = list(list_images(folder))
    if not paths:
        raise DataError(f"{folder} holds no images: looked for {', '.join(sorted(SUFFIXES))}, at any depth")
    tops = [path.relative_to(folder).parts for path in paths]
    # Labels only where every image lies in a folder of its class.
    classes = tuple(sorted({parts[0] for parts in tops})) if all(len(parts) > 1 for parts in tops) else ()
    index = {name: i for i, name in enumerate(classes)}
    labels = tuple(index.get(parts[0], 0) for parts in tops)
    return FileSource(folder, tuple(str(path.relative_to(folder)) for path in paths), labels, classes)
