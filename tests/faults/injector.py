"""Builds and drives injector.cpp, which kills a process, or lets a call fail, at a chosen change of a run's files."""

from __future__ import annotations

import ctypes
import os
import subprocess
from enum import IntEnum
from pathlib import Path

_LIBRARY = "FASTDAT_TESTS_INJECTOR"


class Action(IntEnum):
    """What happens at the chosen call; as in injector.cpp."""

    COUNT = 0
    KILL = 1
    FAIL_ONCE = 2
    FAIL_FROM = 3


def environment(folder: Path) -> dict[str, str]:
    """What a process must be started with to have an :class:`Injector`; builds it in ``folder``."""
    library = folder / "injector.so"
    source = Path(__file__).with_name("injector.cpp")
    compiler = os.environ.get("CXX", "g++")
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"],
        check=True,
        timeout=120,
    )
    return os.environ | {"LD_PRELOAD": str(library), _LIBRARY: str(library), "OMP_NUM_THREADS": "1"}


class Injector:
    """Of this process, which was started with :func:`environment`; its forks have it too."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[_LIBRARY])
        self._library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self._library.fault_calls.restype = ctypes.c_long
        self._library.fault_call.restype = ctypes.c_char_p

    def arm(self, folder: Path, number: int, action: Action, error: int = 0) -> None:
        """``action`` in the ``number``-th call, from 1, that changes something under ``folder``."""
        self._library.fault_arm(str(folder).encode(), number, int(action), error)

    def disarm(self) -> None:
        self._library.fault_disarm()

    @property
    def calls(self) -> int:
        """Calls so far."""
        return int(self._library.fault_calls())

    @property
    def call(self) -> str:
        """The last call up to the chosen one, such as ``write /checkpoints/.latest.pt.tmp``."""
        return str(self._library.fault_call().decode())
