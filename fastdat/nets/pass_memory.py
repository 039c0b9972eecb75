"""How much memory a forward pass without gradients needs at once, found by running it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastdat.nets.deep_copy import deep_copy


def activation_bytes(net: nn.Module, *example_inputs: Tensor) -> int:
    """Bytes for one more sample in a forward pass of ``net`` without gradients: the most that are alive at once.

    It is that of eager mode, without what a convolution takes inside for itself; a compiled pass needs less. It is
    found on a copy of the net, as the difference between a pass over all rows and one over half of them; so weights do
    not count, and neither do temporary values that have no rows. The net and the global random numbers do not change.

    Args:
        net: the net.
        example_inputs: what one pass takes, each (N, ...) with the same even N.

    Raises:
        ValueError: the rows are not of an even number, at least 2.
    """
    rows = {len(x) for x in example_inputs}
    if len(rows) != 1 or min(rows) < 2 or min(rows) % 2:
        raise ValueError(
            "example inputs must have the same even number of rows; got shapes "
            f"{', '.join(str(tuple(x.shape)) for x in example_inputs) or 'of no inputs'}"
        )
    half = rows.pop() // 2
    devices = sorted({x.get_device() for x in example_inputs if x.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices):
        copied = deep_copy(net)
        whole_peak = _peak(copied, example_inputs)
        half_peak = _peak(copied, tuple(x[:half] for x in example_inputs))
    return max(whole_peak - half_peak, 0) // half


def _peak(net: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    with _LiveBytes([*net.parameters(), *net.buffers(), *inputs]) as live:
        net(*inputs)
    peak: int = live.peak
    return peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make within it; ``peak`` is the most at one time."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._given = [tensor.untyped_storage() for tensor in given]
        self._known = weakref.WeakSet(self._given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size
