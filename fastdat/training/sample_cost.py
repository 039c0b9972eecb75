"""What one sample costs in one pass through a net, counted on tensors without data: FLOPs, activations, layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_FEW, _MORE = 4, 8
"""Samples of the two passes whose difference is what samples cost: what belongs to the weights cancels."""


@dataclass(frozen=True)
class SampleCost:
    """Of one forward pass; the backward passes are multiples of it.

    Args:
        flops: of its convolutions and matrix products, for each sample. A convolution before an average pool counts as
            the smaller one that it is folded into (docs/folding.md).
        written: bytes of activations that its operations write, for each sample, if none of them were fused.
        saved: bytes that autograd keeps for the backward pass, for each sample, in eager mode.
        layers: convolutions and matrix products, for a pass of any size.
    """

    flops: float
    written: float
    saved: float
    layers: int


def sample_cost(run: Callable[[int], Any]) -> SampleCost:
    """The cost of a pass through a net.

    Args:
        run: takes a number of samples and passes as many through the net, which lies on the meta device.
    """
    few, more = (_count(run, samples) for samples in (_FEW, _MORE))
    flops, written, saved = (
        (b - a) / (_MORE - _FEW) for a, b in zip(astuple(few)[:3], astuple(more)[:3], strict=True)
    )
    return SampleCost(flops, written, saved, few.layers)


def _count(run: Callable[[int], Any], samples: int) -> SampleCost:
    """The cost of the whole pass."""
    kept: dict[int, Tensor] = {}  # by storage, held here so that no other storage gets its number

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(samples)
    with _Count() as count, torch.no_grad():
        run(samples)
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return SampleCost(count.flops, count.written, saved, count.layers)


class _Count(TorchDispatchMode):
    """Adds up what the operations within it cost."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0
        self.written = self.layers = 0
        self._convolved: dict[int, tuple[Tensor, float]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in flop_registry:
            flops = float(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
            self.flops += flops
            self.layers += 1
            if packet is torch.ops.aten.convolution:
                self._convolved[id(out)] = (out, flops * (1 - _folded(args)))
        elif packet is torch.ops.aten.avg_pool2d and id(args[0]) in self._convolved:
            self.flops -= self._convolved[id(args[0])][1]
        self.written += _written(_tensors((args, kwargs)), _tensors(out))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _written(read: list[Tensor], made: list[Tensor]) -> int:
    """Bytes of new results: not of views, and not of inputs, which are made from nothing."""
    old = {tensor.untyped_storage()._cdata for tensor in read}
    new = [tensor for tensor in made if tensor.untyped_storage()._cdata not in old]
    return sum(tensor.numel() * tensor.element_size() for tensor in new) if read else 0


def _folded(convolution: tuple[Any, ...]) -> float:
    """The share of its work that remains when it is folded with a 2x2 average pool: (k + 1)^2 of the 4 k^2 taps.

    1 where it cannot be folded, with a stride.
    """
    weight, strides = convolution[1], convolution[3]
    if any(stride != 1 for stride in strides):
        return 1.0
    height, width = weight.shape[2:]
    return float((height + 1) * (width + 1) / (4 * height * width))
