"""The gradient of an average pool, read from where it lies.

Inductor computes ``avg_pool2d_backward`` for any geometry: each pixel looks for the windows that it lies in, with
nested minima in its indices. The kernel carries these out for every pixel, and SymPy simplifies them for seconds, a
third of a cold compilation's time. The two geometries of networks, which ``pooled_conv`` writes too, need none of it:

- windows at every position: pixel y lies in windows ``y + padding - i``, where they exist, for i below the size of one;
- windows side by side: pixel y lies in window ``y // size``.

They get a lowering of their own. As inductor's, it makes a pointwise function of a tensor in memory, so fusion and the
choice of layouts are as before.

Inductor's formula is wrong where ``ceil_mode`` lets the last window reach over the border: the pool divides by the part
of the window that is inside (padding included), its gradient by the whole window (pytorch/pytorch#198119). So the
gradient of such a window is made larger before.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from fastdat.engine.passes import graph_nodes, image_operations
from fastdat.engine.passes.graph_nodes import call
from fastdat.engine.passes.image_operations import LARGEST_WINDOW, windows_of

aten = torch.ops.aten


class PoolGradient(CustomGraphPass):
    """Puts the lowering in the place of the operator, as inductor's own patterns do.

    Inductor calls it when it lowers the node. Until then the node's strides stay as they are noted, ConvLayout's too.
    """

    def __call__(self, graph: fx.Graph) -> None:
        for target in (aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default):
            for node in graph.find_nodes(op="call_function", target=target):
                _correct(graph, node)
        for node in graph.find_nodes(op="call_function", target=aten.avg_pool2d_backward.default):
            arguments = _simple(node)
            if arguments is not None:
                node.target = simple_pool_gradient
                node.args = arguments

    def uuid(self) -> Any:
        return get_hash_for_files((__file__, image_operations.__file__, graph_nodes.__file__))


def _arguments(node: fx.Node) -> Any:
    return (*node.args, *(False, True, None)[len(node.args) - 5 :])


def _correct(graph: fx.Graph, node: fx.Node) -> None:
    """Make up for what inductor divides the gradient of windows by that reach over the border."""
    grad, x, kernel, stride, padding, ceils, counts_padding, divisor = _arguments(node)
    if node.kwargs or not ceils or not counts_padding or divisor is not None:
        return
    dims = len(kernel)
    pooled, size = (list(of.meta["val"].shape[-dims:]) for of in (grad, x))
    padding = [*padding] * (dims // len(padding))
    with graph.inserting_before(node):
        scaled = grad
        for d, (k, s, p) in enumerate(zip(kernel, stride or kernel, padding, strict=True)):
            inside = size[d] + p - ((pooled[d] - 1) * s - p)  # of the last window
            if inside >= k:
                continue
            shape = [1] * scaled.meta["val"].ndim
            shape[d - dims] = pooled[d] - 1
            ones = _ones(graph, shape, scaled.meta["val"])
            after = [0, 0] * (dims - 1 - d)
            factors = call(graph, aten.constant_pad_nd.default, ones, [*after, 0, 1], k / inside)
            scaled = call(graph, aten.mul.Tensor, scaled, factors)
    node.replace_input_with(grad, scaled)


def _ones(graph: fx.Graph, shape: list[int], like: Tensor) -> fx.Node:
    node = graph.call_function(aten.full.default, (shape, 1.0), {"dtype": like.dtype, "device": like.device})
    node.meta["val"] = like.new_full(shape, 1.0)
    return node


def _simple(node: fx.Node) -> tuple[Any, ...] | None:
    """Arguments of the lowering; None where the geometry is another one."""
    args = _arguments(node)
    grad, x, kernel, stride, padding, _, counts_padding, divisor = args
    pooled, size = (list(of.meta["val"].shape[2:]) for of in (grad, x))
    if node.kwargs or len(size) != 2 or any(type(n) is not int for n in (*pooled, *size)):
        return None
    windows = windows_of(kernel, stride, padding, counts_padding, divisor)
    if windows is None:
        return None
    kernel, stride, padding, divisor = windows
    if stride == (1, 1):
        fits = [n + 2 * p - k + 1 for n, p, k in zip(size, padding, kernel, strict=True)] == pooled
        fits = fits and kernel[0] * kernel[1] <= LARGEST_WINDOW
    else:
        fits = stride == kernel and padding == (0, 0)
        fits = fits and [n * k for n, k in zip(pooled, kernel, strict=True)] == size
    if not fits:
        return None
    return grad, x, kernel, stride, padding, divisor


def simple_pool_gradient(grad: Any, x: Any, kernel: Any, stride: Any, padding: Any, divisor: int) -> Any:
    """The gradient for ``x``, of which only the shape is used."""
    from torch._inductor import ir, lowering
    from torch._inductor.virtualized import ops
    from torch.utils._sympy.functions import FloorDiv

    grad.realize_hint()  # read many times
    (height, width), dtype = kernel, grad.get_dtype()
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    of_window = grad.make_loader()
    of_window_or_zero = lowering.constant_boundary_condition(grad, 0.0, dim=2)

    def pixel(index: Any) -> Any:
        *image, y, z = index
        if stride == (1, 1):
            places = itertools.product(range(height), range(width))
            parts = [of_window_or_zero([*image, y + padding[0] - i, z + padding[1] - j]) for i, j in places]
            total = functools.reduce(ops.add, parts)
        else:
            total = of_window([*image, FloorDiv(y, height), FloorDiv(z, width)])
        return ops.truediv(total, ops.constant(divisor, wide))

    return ir.Pointwise.create(
        device=grad.get_device(), dtype=dtype, inner_fn=pixel, ranges=list(x.get_size())
    )


simple_pool_gradient._inductor_lowering_function = True  # type: ignore[attr-defined]
