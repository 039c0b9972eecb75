"""Launches that a training repeats millions of times, made cheap: what depends on shapes alone is worked out once.

Triton's own launch binds and compares all arguments of a kernel anew, here a dozen pointers and a table of
layers, and in a compiled step it is the host that does so. Here the first launch is Triton's own; the kernel that it
compiled is kept and from then on started as ``compiled[grid](*arguments)``, with addresses in the place of tensors.

So whoever keeps a launch must see to it that equal ones really are equal: in types of all arguments, the device, and
which addresses are multiples of 16. ``Plans`` keeps them by such a key.
"""
# mypy: allow-untyped-calls
# (Triton has no types.)

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import driver

T = TypeVar("T")


class Plans(dict[Any, T], Generic[T]):
    """Key -> what was worked out for it, for at most ``most`` keys: the oldest goes first."""

    most = 256

    def __setitem__(self, key: Any, plan: T) -> None:
        while len(self) >= self.most:
            del self[next(iter(self))]
        super().__setitem__(key, plan)


def description(tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    """All that a plan may ask of tensors, except for where they lie: for its key."""
    return tuple([(t.shape, t.stride(), t.dtype, t.device) for t in tensors])


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """``bench.gpu_plan`` replaces this: its tensors have none."""
    return [t.data_ptr() for t in tensors]


def alignment(places: Sequence[int]) -> tuple[bool, ...] | None:
    """Whether each address is a multiple of 16; None where all are. What Triton compiles depends on it."""
    bits = 0
    for place in places:
        bits |= place
    return tuple([place % 16 == 0 for place in places]) if bits % 16 else None


class Step:
    """One launch of a kernel: the grid and the constants that it always has."""

    def __init__(self, kernel: Any, programs: int, num_warps: int, **constants: Any) -> None:
        self.kernel, self.grid, self.num_warps = kernel, (programs, 1, 1), num_warps
        self.constants = constants
        names = kernel.arg_names
        self._values = [constants[name] for name in names[len(names) - len(constants) :]]
        self._start: Callable[..., None] | None = None

    @property
    def compiled(self) -> bool:
        return self._start is not None

    def first(self, *arguments: Any) -> None:
        """With tensors, by way of Triton, which compiles the kernel; in the interpreter every time."""
        found = self.kernel[self.grid](*arguments, **self.constants, num_warps=self.num_warps)
        if isinstance(found, CompiledKernel):
            self._start = found[self.grid]

    def again(self, stream: int, *arguments: Any) -> None:
        """With addresses. Triton's hooks of launches are called as ever."""
        assert self._start is not None
        self._start(*arguments, *self._values, stream=stream)


def run(
    steps: Sequence[tuple[int, Step]],
    on: Tensor,
    tensors: Sequence[Tensor],
    pointers: Sequence[int],
    sets: Callable[[Sequence[Any]], Sequence[tuple[Any, ...]]],
) -> None:
    """Launch ``steps`` on the device of ``on`` and its current stream.

    Args:
        steps: which of the sets of arguments a step takes, and the step.
        tensors, pointers: all tensors that the steps take, and where they lie.
        sets: the sets of arguments, of tensors or pointers in that order.
    """
    if on.is_cuda and on.get_device() != torch.cuda.current_device():
        with torch.cuda.device_of(on):
            run(steps, on, tensors, pointers, sets)
    elif all(step.compiled for _, step in steps):
        stream = driver.active.get_current_stream(on.get_device())
        arguments = sets(pointers)
        for i, step in steps:
            step.again(stream, *arguments[i])
    else:
        arguments = sets(tensors)
        for i, step in steps:
            step.first(*arguments[i])
