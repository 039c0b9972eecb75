"""The .npy files of a store: NumPy's format 1.0, with a header whose every byte follows from type and shape.

Headers are compared with what they must be and never parsed: NumPy's parser answers a damaged one with many errors.
"""

from __future__ import annotations

from pathlib import Path

HEADER_BYTES = 128

#: NumPy's names of the types of images and labels.
IMAGES, LABELS = "|u1", "<i8"


def files_of(folder: Path, split: str) -> tuple[Path, Path]:
    """The files with the images and with the labels of ``split``."""
    return folder / f"{split}.images.npy", folder / f"{split}.labels.npy"


def header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The header of an array of type ``descr`` in C order: :data:`HEADER_BYTES` for every array that fits a disk."""
    fields = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text = fields.ljust(HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
