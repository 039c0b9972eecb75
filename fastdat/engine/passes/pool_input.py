"""An average pool that computes its input where it reads it, on a GPU.

Inductor writes the input of ``avg_pool2d`` to memory before it pools. Behind a convolution that is the whole map
again, with its bias and its ReLU. Where each pixel is read once, or by four windows at most, it costs less to compute
it in the pool's own kernel.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from fastdat.engine.passes import image_operations
from fastdat.engine.passes.image_operations import windows_of

aten = torch.ops.aten

DEVICES = {"cuda"}
"""Types of devices on which pools are rewritten. A CPU has caches for what is written and read again soon."""


class PoolInput(CustomGraphPass):
    """Puts :func:`pool_of_expression` in the place of the operator, as ``PoolGradient`` does."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=aten.avg_pool2d.default):
            arguments = _simple(node)
            if arguments is not None:
                node.target, node.args, node.kwargs = pool_of_expression, arguments, {}

    def uuid(self) -> Any:
        return get_hash_for_files((__file__, image_operations.__file__))


def _simple(node: fx.Node) -> tuple[Any, ...] | None:
    """Arguments of the lowering; None where the geometry is another one, or the image lies elsewhere."""
    args: Any = (*node.args, *(None, (0, 0), False, True, None)[len(node.args) - 2 :])
    x, kernel, stride, padding, ceil_mode, counts_padding, divisor = args
    image = x.meta["val"]
    pooled, size = list(node.meta["val"].shape[2:]), list(image.shape[2:])
    if node.kwargs or image.device.type not in DEVICES or len(size) != 2:
        return None
    if ceil_mode or any(type(n) is not int for n in (*pooled, *size)):
        return None
    windows = windows_of(kernel, stride, padding, counts_padding, divisor)
    if windows is None:
        return None
    kernel, stride, padding, divisor = windows
    area = kernel[0] * kernel[1]
    apart = stride == kernel and padding == (0, 0)
    if not (apart or (stride == (1, 1) and area <= 4)) or area > 25:
        return None
    return x, kernel, stride, padding, tuple(pooled), divisor


def pool_of_expression(x: Any, kernel: Any, stride: Any, padding: Any, pooled: Any, divisor: int) -> Any:
    """The pool of ``x``, which may be no tensor in memory yet."""
    from torch._inductor import ir, lowering
    from torch._inductor.virtualized import ops

    dtype = x.get_dtype()
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    pixel = x.make_loader() if padding == (0, 0) else lowering.constant_boundary_condition(x, 0.0, dim=2)

    def window(index: Any) -> Any:
        *image, y, z = index
        places = itertools.product(range(kernel[0]), range(kernel[1]))
        parts = [
            pixel([*image, y * stride[0] + i - padding[0], z * stride[1] + j - padding[1]]) for i, j in places
        ]
        return ops.truediv(functools.reduce(ops.add, parts), ops.constant(divisor, wide))

    return ir.Pointwise.create(
        device=x.get_device(), dtype=dtype, inner_fn=window, ranges=[*x.get_size()[:2], *pooled]
    )


pool_of_expression._inductor_lowering_function = True  # type: ignore[attr-defined]
