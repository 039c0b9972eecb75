"""Copies of a batch for a D that may change its input in place: the caller's samples stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdat.engine.types import Args, Batch


class Copies:
    """``batch`` in other memory of the same layout.

    Args:
        batch: of the caller, detached.
    """

    def __init__(self, batch: Batch) -> None:
        self._original = batch
        self.batch = Batch(
            _copied(batch.xr), _copied(batch.xf), _copied_args(batch.args_real), _copied_args(batch.args_fake)
        )
        self._versions = self._found()

    def check(self, what: str = "D", values: bool = False) -> None:
        """Raises ValueError where ``what`` has changed the copies.

        Args:
            what: ran on the copies.
            values: look for changes that PyTorch does not count, too (``x.data``, NumPy). Waits for the device.
        """
        if self._found() != self._versions or (values and self._differ()):
            raise ValueError(
                f"{what} changes its input in place, which would change your samples or labels (and, where they need "
                "a gradient, is an error of PyTorch). Write an operation that makes a new tensor: x = x * 2 in place "
                "of x *= 2 or x.mul_(2), no inplace=True in a first layer, or x = x.clone() at the beginning"
            )

    def _found(self) -> list[int]:
        return [tensor._version for tensor in _tensors(self.batch)]

    def _differ(self) -> bool:
        pairs = zip(_tensors(self.batch), _tensors(self._original), strict=True)
        return not all(bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)


def _tensors(batch: Batch) -> list[Tensor]:
    args = (*batch.args_real, *batch.args_fake)
    return [batch.xr, batch.xf, *[arg for arg in args if isinstance(arg, Tensor)]]


def _copied_args(args: Args) -> Args:
    return tuple([_copied(arg) if isinstance(arg, Tensor) else arg for arg in args])


def _copied(x: Tensor) -> Tensor:
    """``x`` in other memory with the same strides, for which the step is compiled."""
    copy = x.detach().clone()
    if copy.stride() == x.stride():
        return copy
    try:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)
    except RuntimeError:  # elements share memory (``expand``), where PyTorch refuses to write in place
        return x.detach()
