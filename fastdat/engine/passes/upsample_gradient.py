"""Bilinear up-sampling by 2 whose gradient only reads.

Each pixel is part of several pixels of the larger image. Inductor lets each of those add to its gradient: into memory
that is filled with zeros before, by atomic operations on a GPU, in an order that changes from run to run. Here each
pixel collects its gradient from the four by four pixels that it is part of.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from fastdat.engine.passes import image_operations
from fastdat.engine.passes.image_operations import dtype_of, shape_of, upsampling_of

aten = torch.ops.aten


class UpsampleGradient(CustomGraphPass):
    """Puts :func:`upsampled` in the place of ``F.interpolate(x, scale_factor=2, mode="bilinear")``."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=F.interpolate):
            found = upsampling_of(node)
            if found is None or found.mode != "bilinear" or found.scale not in ((), (2, 2)):
                continue  # a factor of 2.05, say, doubles few pixels, but reads at other places
            if _doubles(node, found.x):
                node.target, node.args, node.kwargs = upsampled, (found.x,), {}

    def uuid(self) -> Any:
        return get_hash_for_files((__file__, image_operations.__file__))


def _doubles(node: fx.Node, x: Any) -> bool:
    before, after = shape_of(x), shape_of(node)
    others = len(node.args) > 4 or node.kwargs.get("align_corners") or node.kwargs.get("antialias")
    twice = len(before) == 4 and [2 * n for n in before[2:]] == [*after[2:]]
    dtype = dtype_of(node)
    return twice and not others and dtype is not None and dtype.is_floating_point


def upsampled(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W), bilinear, without aligned corners."""
    result: Tensor = _Upsampled.apply(x)  # type: ignore[no-untyped-call]
    return result


def cacheable() -> dict[str, str]:
    """Inductor's option ``unsafe_marked_cacheable_functions`` for :func:`upsampled`, as ``kernels.inductor``'s."""
    return {f"{__name__}.{upsampled.__name__}": get_hash_for_files((__file__,)).hex()}


class _Upsampled(torch.autograd.Function):
    generate_vmap_rule = True  # forward and backward are plain operations

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        return _collected(_collected(wide, 2), 3).to(grad.dtype)


def _collected(grad: Tensor, dim: int) -> Tensor:
    """The gradient along one dimension, of half the length: pixel i is three quarters of pixels 2i and 2i + 1, and a
    quarter of 2i - 1 and 2i + 2; at an edge, where these do not exist, a quarter of the edge itself."""
    count = grad.shape[dim] // 2
    even, odd = grad.unflatten(dim, (count, 2)).unbind(dim + 1)
    i = torch.arange(count, device=grad.device)
    along = [1] * grad.ndim
    along[dim] = count
    # Indices and a choice, which inductor computes in the kernel that reads; it would write a concatenation first.
    before = aten._unsafe_index(odd, [None] * dim + [(i - 1).clamp(min=0)])
    after = aten._unsafe_index(even, [None] * dim + [(i + 1).clamp(max=count - 1)])
    before = torch.where((i == 0).view(along), even, before)
    after = torch.where((i == count - 1).view(along), odd, after)
    collected: Tensor = 0.75 * (even + odd) + 0.25 * (before + after)
    return collected
