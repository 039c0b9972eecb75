"""What passes over an ATen graph need to write into it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx


def call(graph: fx.Graph, op: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new node with its fake result in ``node.meta["val"]``."""
    node = graph.call_function(op, args, kwargs)
    node.meta["val"] = op(*fx.map_arg(args, lambda arg: arg.meta["val"]), **kwargs)
    return node


def memory_order(value: Tensor) -> tuple[list[int], list[int]]:
    """The dimensions of a tensor, outermost in memory first, and the permutation that undoes this order."""
    strides = value.stride()
    order = sorted(range(value.ndim), key=lambda d: -strides[d])
    return order, sorted(range(value.ndim), key=order.__getitem__)
