"""Outputs of D's submodules that terms of the loss look at, caught by a hook while a step runs or is traced.

The hook is put on outside of the graph, and D keeps nothing: what it catches is taken out again in the same call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_KEY = -17
"""Of the hook in a module's table: PyTorch numbers hooks from 0."""


@dataclass(frozen=True)
class Capture:
    """A forward hook that catches the output of the submodule ``path``; equal for equal paths."""

    path: str
    found: list[Any] = field(default_factory=list, compare=False, repr=False)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        # A copy: an activation after it may work in place.
        self.found.append(output.clone() if isinstance(output, Tensor) else output)

    def take(self) -> Tensor:
        """The output of the last call, which is forgotten."""
        output: Tensor = self.found[-1]
        self.found.clear()
        return output


@contextmanager
def captured(modules: Mapping[str, nn.Module], captures: Sequence[Capture]) -> Iterator[None]:
    """Within it, every call of D, which has these modules by path, fills ``captures``."""
    tables = [modules[capture.path]._forward_hooks for capture in captures]
    try:
        for table, capture in zip(tables, captures, strict=True):
            capture.found.clear()
            table[_KEY] = capture
        yield
    finally:
        for table, capture in zip(tables, captures, strict=True):
            table.pop(_KEY, None)
            capture.found.clear()


def captures_of(paths: Sequence[str], modules: Mapping[str, nn.Module]) -> tuple[Capture, ...]:
    """A capture for each different path.

    Raises:
        ValueError: D has no such submodule.
    """
    for path in paths:
        if path not in modules or path == "":
            known = [name for name in modules if name and ".parametrizations" not in name]
            raise ValueError(
                f"D has no submodule {path!r}, whose output a regularizer is to see. There are: {', '.join(known)}"
            )
    return tuple([Capture(path) for path in dict.fromkeys(paths)])
