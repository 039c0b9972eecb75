"""Read a pickle as plain data, without executing anything in it.

A pickle is a program: it may import any name and call it. Here every imported name becomes a :class:`Name` that does
nothing, every call becomes a :class:`Call` that only records its arguments, and names outside a short list are
refused. The result consists of dicts, lists, strings, numbers and recorded calls, for a reader to interpret.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastdat.util.errors import DataError

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1 and numpy 2
#: The only names that a pickled array refers to. Python 3 writes bytes as ``_codecs.encode`` in protocols 0 to 2.
ALLOWED = frozenset(
    [(module, "_reconstruct") for module in _MULTIARRAY]
    + [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
)


class Call:
    """The call ``name(*args)``, recorded but not executed, and the state that the pickle sets on its result."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Name:
    """An imported name. Calling it returns a :class:`Call`. Its attributes cannot be set."""

    __slots__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    def __call__(self, *args: Any) -> Call:
        return Call(self.name, args)

    def __setattr__(self, key: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"the pickle tries to change {self.name}")

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"the pickle tries to change {self.name}")


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no image data needs")
        return Name(name)

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def read(path: Path) -> Any:
    """The content of the pickle in ``path``. Strings written by Python 2 come back as bytes.

    Raises:
        DataError: the file is unreadable, truncated or damaged, or refers to anything but numpy arrays.
    """
    try:
        with path.open("rb") as file:
            return _InertUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle can raise nearly anything: IndexError, MemoryError, UnicodeDecodeError ...
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path} is damaged or is not the publisher's file: {reason}. Nothing in it was executed."
        ) from error


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
