"""Whether images have classes, as training with labels needs them."""

from __future__ import annotations

from pathlib import Path

from fastdat.data.source import FileSource, Source
from fastdat.data.store import Store
from fastdat.util.errors import DataError

_LAYOUT = "one subfolder per class, as in FOLDER/cat/1.png and FOLDER/dog/1.png"


def require_classes(found: Source | Store, root: Path) -> None:
    """Refuse images without classes, or of a single one.

    Args:
        found: one split of the publisher's files, or a packed store.
        root: where it lies.

    Raises:
        DataError: the message says how images get classes.
    """
    names = found.index["classes"] if isinstance(found, Store) else found.classes
    if len(names) == 1:
        raise DataError(
            f"{root} has a single class, {names[0]}, and training with labels needs two or more: {_LAYOUT}. Give the "
            "folder whose subfolders are the classes, or train without labels, with a sngan preset for example"
        )
    if not names and isinstance(found, Store):
        again = found.packing_command(found.beside("-classes"), found.index["resolution"])
        raise DataError(
            f"{root} was packed without classes, since not every image lay in a subfolder: make {_LAYOUT}, and pack "
            f"into another store:\n    {again}"
        )
    if not names:
        outside = [name for name in getattr(found, "paths", ()) if len(Path(name).parts) == 1]
        where = (
            f": {found.root / outside[0]} lies in no subfolder"
            if outside and isinstance(found, FileSource)
            else ""
        )
        raise DataError(
            f"{root} has no classes{where}. Training with labels needs {_LAYOUT}, and no image beside them"
        )
