"""Any folder of images: with ``train`` and ``test`` inside, or without; subfolders are classes."""

from __future__ import annotations

from pathlib import Path

from fastdat.data.source import SUFFIXES, FileSource, list_images, require_folder
from fastdat.util.errors import DataError, NoSuchSplitError


def open_folder(root: Path, split: str) -> FileSource:
    """One split: ``root/train`` or ``root/test``, or all of ``root`` as train where it has no such folders.

    Raises:
        DataError: no folder, no images in it, a ``train`` that may be meant as a class, or test images without a class
            of train (where train has classes).
        NoSuchSplitError: no test split.
    """
    require_folder(root, "Give a folder of images.")
    has_splits = (root / "train").is_dir()
    if has_splits and not (root / "test").is_dir():
        _refuse_classes(root)
    folder = root / split if has_splits else root
    if split != "train" and not (has_splits and folder.is_dir()):
        raise NoSuchSplitError(f"{root} has no test split: put the images into {root}/train and {root}/test")
    paths = _images(folder)
    classes = _classes(paths if split == "train" else _images(root / "train"))
    index = {name: i for i, name in enumerate(classes)}
    unknown = [path for path in paths if classes and path.parts[0] not in index]
    if unknown:
        raise DataError(
            f"{folder / unknown[0]} lies in none of the classes of train, which are its subfolders: "
            f"{', '.join(classes[:10])}{' ...' * (len(classes) > 10)}"
        )
    labels = tuple(index[path.parts[0]] if classes else 0 for path in paths)
    return FileSource(folder, tuple(map(str, paths)), labels, classes)


def _refuse_classes(root: Path) -> None:
    """Refuse to take only ``root/train`` where other classes seem to lie beside it."""
    visible = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    beside = sorted(
        folder.name for folder in visible if folder.name not in _NO_CLASSES and list_images(folder)
    )
    if beside:
        raise DataError(
            f"{root} holds images in train and in {', '.join(beside[:10])}{' ...' * (len(beside) > 10)}. If train is a "
            f"class, put all of them into one folder, {root}/train; if it is the train split, move the others away, or "
            f"give {root}/train"
        )


#: Names of folders beside ``train`` that are splits for something else.
_NO_CLASSES = {"train", "val", "valid", "validation", "dev"}


def _images(folder: Path) -> list[Path]:
    """Image files below ``folder``, relative to it."""
    found = [path.relative_to(folder) for path in list_images(folder)]
    if not found:
        raise DataError(f"{folder} holds no images: looked for {', '.join(sorted(SUFFIXES))}, at any depth")
    return found


def _classes(paths: list[Path]) -> tuple[str, ...]:
    """The folders that images lie in; none where one lies in none."""
    return tuple(sorted({path.parts[0] for path in paths})) if all(len(p.parts) > 1 for p in paths) else ()
