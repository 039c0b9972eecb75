"""Any folder of images, with or without ``train`` and ``test`` inside. Other subfolders are classes."""

from __future__ import annotations

from pathlib import Path

from fastdat.data.image_files import SUFFIXES, list_images
from fastdat.data.source import FileSource
from fastdat.util.errors import DataError, NoSuchSplitError
from fastdat.util.words import some

#: Folders that may lie beside ``train`` without being classes: splits for other purposes.
_OTHER_SPLITS = {"train", "val", "valid", "validation", "dev"}


def open_folder(root: Path, split: str) -> FileSource:
    """One split: ``root/train`` or ``root/test``. Without a folder ``train`` all of ``root`` is the train split.

    Raises:
        DataError: the folder is missing or holds no images, ``train`` could be meant as a class, or a test image
            belongs to no class of the train split.
        NoSuchSplitError: there is no test split.
    """
    if not root.is_dir():
        raise DataError(f"{root} does not exist. Give a folder of images.")
    has_splits = (root / "train").is_dir()
    if has_splits and not (root / "test").is_dir():
        _require_train_to_be_a_split(root)
    folder = root / split if has_splits else root
    if split != "train" and not (has_splits and folder.is_dir()):
        raise NoSuchSplitError(f"{root} has no test split: put the images into {root}/train and {root}/test")
    paths = _images(folder)
    classes = _classes(paths if split == "train" else _images(root / "train"))
    index = {name: i for i, name in enumerate(classes)}
    unknown = [path for path in paths if classes and path.parts[0] not in index]
    if unknown:
        raise DataError(
            f"{folder / unknown[0]} belongs to no class of the train split, whose subfolders are: {some(classes)}"
        )
    labels = tuple(index[path.parts[0]] if classes else 0 for path in paths)
    return FileSource(folder, tuple(map(str, paths)), labels, classes)


def _require_train_to_be_a_split(root: Path) -> None:
    """Refuse ``root`` if ``train`` looks like one class among others, since only ``root/train`` would be read."""
    visible = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    beside = sorted(
        folder.name for folder in visible if folder.name not in _OTHER_SPLITS and list_images(folder)
    )
    loose = [path.name for path in list_images(root) if path.parent == root]
    if loose:
        raise DataError(
            f"{root} holds images beside its folder train, the first one is {loose[0]}, and train would be read alone: "
            f"move them into {root}/train if they are for training, or else away"
        )
    if beside:
        raise DataError(
            f"{root} holds images in train and in {some(beside)}. If train is a class, move all of these folders into "
            f"{root}/train. If train is the train split, move the others away or give {root}/train"
        )


def _images(folder: Path) -> list[Path]:
    """Image files in ``folder``, relative to it."""
    found = [path.relative_to(folder) for path in list_images(folder)]
    if not found:
        raise DataError(
            f"{folder} holds no images: files with the suffixes {', '.join(sorted(SUFFIXES))}, at any depth"
        )
    return found


def _classes(paths: list[Path]) -> tuple[str, ...]:
    """The subfolders that hold the images; none if an image lies outside of every subfolder."""
    return tuple(sorted({path.parts[0] for path in paths})) if all(len(p.parts) > 1 for p in paths) else ()
