"""Notes the distinct launches of kernels in Triton's interpreter; also a plugin that notes those of a run of pytest:

    TRITON_INTERPRET=1 python -m pytest tests/kernels -p tests.kernels.recording --launches=FILE

FILE is then a pickled list of ``Launch``.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

ALIGNMENT = 16
"""Bytes: Triton compiles a kernel anew for a pointer that is no multiple of this."""


@dataclass(frozen=True)
class Pointer:
    """Stands for a tensor where Triton chooses a specialisation: it asks for these two and nothing else.

    Args:
        dtype: of the elements.
        offset: bytes from the last multiple of ``ALIGNMENT`` to the first element.
    """

    dtype: torch.dtype
    offset: int = 0

    def data_ptr(self) -> int:
        return self.offset

    def __repr__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}@{self.offset}"


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Args:
        module: the kernel's module.
        kernel: its name there.
        arguments: by position, ``Pointer`` in the place of tensors, inside tuples too.
        options: by name, constants of the kernel and ``num_warps``.
    """

    module: str
    kernel: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        named = (f"{name}={value!r}" for name, value in self.options)
        return f"{self.kernel}({', '.join([*map(repr, self.arguments), *named])})"


def without_memory(argument: Any) -> Any:
    """``argument`` with every tensor as a ``Pointer``."""
    if isinstance(argument, tuple):
        return tuple(map(without_memory, argument))
    if hasattr(argument, "data_ptr"):
        return Pointer(argument.dtype, argument.data_ptr() % ALIGNMENT)
    return argument


@contextmanager
def recorded() -> Iterator[dict[str, Launch]]:
    """Launches in the interpreter that end without an error, by their text: as keys 1, 1.0 and True are one."""
    from triton.runtime.interpreter import InterpretedFunction

    launches: dict[str, Launch] = {}
    run = InterpretedFunction.run

    def run_and_note(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        outcome = run(self, *args, grid=grid, warmup=warmup, **kwargs)
        options = tuple((name, without_memory(value)) for name, value in kwargs.items())
        launch = Launch(self.fn.__module__, self.fn.__qualname__, without_memory(args), options)
        launches[str(launch)] = launch
        return outcome

    InterpretedFunction.run = run_and_note
    try:
        yield launches
    finally:
        InterpretedFunction.run = run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--launches", type=Path, required=True, help="file to write the launches of kernels into"
    )


def pytest_configure() -> None:
    """Tests with random shapes take the same ones in every run."""
    hypothesis.settings.register_profile("recording", derandomize=True, database=None)
    hypothesis.settings.load_profile("recording")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    with recorded() as launches:
        outcome = yield
    session.config.getoption("launches").write_bytes(pickle.dumps(list(launches.values())))
    return outcome
