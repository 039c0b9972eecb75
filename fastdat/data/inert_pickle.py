"""Read a pickle as plain data, without executing anything in it.

A pickle is a program: it may import any name and call it. :mod:`fastdat.data.pickle_machine` reads it without doing
so, and names outside a short list are refused. The result consists of dicts, lists, strings, numbers and recorded
calls, for a reader to interpret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdat.data.pickle_machine import Call, Machine, PickleError
from fastdat.util.errors import DataError

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1 and numpy 2
#: The only names that a pickled array refers to. Python 3 writes bytes as ``_codecs.encode`` in protocols 0 to 2.
ALLOWED = frozenset(
    [(module, "_reconstruct") for module in _MULTIARRAY]
    + [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
)


#: Bytes of a file that is read at all. The publisher's largest has 148 MiB.
MOST_BYTES = 1 << 30


def read(path: Path) -> Any:
    """The content of the pickle in ``path``. Strings written by Python 2 come back as bytes.

    Raises:
        DataError: the file is unreadable, truncated or damaged, or refers to anything but numpy arrays.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataError(f"{path} has {size:,} bytes; the publisher's files have {MOST_BYTES:,} at most")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return Machine(raw, ALLOWED).run()
    except PickleError as error:
        raise DataError(
            f"{path} is damaged or is not the publisher's file: {error}. Nothing in it was executed."
        ) from error


def shown(value: Any) -> str:
    """``value`` for a message, short, whatever it is: a list may contain itself a billion times over."""
    if isinstance(value, (str, bytes)):
        return repr(value[:40])
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    return f"a {type(value).__name__}"


def text(value: Any) -> Any:
    """Decode the bytes of a Python 2 string; return anything else unchanged."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def byte_array(value: Any) -> NDArray[np.uint8] | None:
    """The uint8 array in C order that ``value``, a :class:`Call` of numpy's ``_reconstruct``, describes. Not a copy.

    Returns None for anything else: another dtype, Fortran order, or a size that does not fit the shape.
    """
    if not (isinstance(value, Call) and value.name == "_reconstruct" and _is_tuple(value.state, 5)):
        return None
    _version, shape, dtype, fortran, raw = value.state
    raw = _raw(raw)
    if not (isinstance(dtype, Call) and dtype.name == "dtype" and dtype.args and text(dtype.args[0]) == "u1"):
        return None
    if fortran or not isinstance(raw, bytes) or not isinstance(shape, tuple):
        return None
    if not all(type(size) is int and size >= 0 for size in shape) or np.prod(shape, dtype=object) != len(raw):
        return None
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _raw(value: Any) -> Any:
    """The bytes of an array, written by Python 2 as they are or by Python 3 as ``_codecs.encode(text, "latin1")``."""
    if isinstance(value, Call) and value.name == "encode" and _is_tuple(value.args, 2):
        characters, codec = value.args
        if isinstance(characters, str) and text(codec) in ("latin1", "latin-1"):
            try:
                return characters.encode("latin1")
            except UnicodeEncodeError:
                return None
    return value


def _is_tuple(value: Any, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length
