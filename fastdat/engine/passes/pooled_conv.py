"""Pooling and up-sampling beside a convolution, in the order that takes the least work.

All three are linear and treat every position alike, so they commute. Below, ``box`` is the mean of each window of
``k x k`` positions, taken at every position (``avg_pool2d`` with stride 1)::

    avg_pool2d(conv2d(x, w, b), k)  =  conv2d(box(x), w, b, stride=k)          1 / k^2 of the convolution's FLOPs
    avg_pool2d(conv1x1(x), k)       =  conv1x1(avg_pool2d(x, k))               1 / k^2
    conv1x1(upsample(x, k))         =  upsample(conv1x1(x), k)                 1 / k^2
    conv2d(nearest(x, k), w, b)     =  box(conv_transpose2d(x, k^2 w', b, stride=k))    1 / k^2
    avg_pool2d(y + z, k)            =  avg_pool2d(y, k) + avg_pool2d(z, k)     where y or z is such a convolution

(``w'`` is ``w`` with input and output exchanged and both axes reversed.) The results are the same up to rounding, and
so are all derivatives. The weights stay as they are. StyleGAN's ``fused_scale`` merges ``box`` into the weight
instead, which takes ``(K + k - 1)^2 / (k K)^2`` of the FLOPs: 0.44 for ``K = 3``, ``k = 2``, where this takes 0.25.

The pass rewrites the graph as Dynamo has traced it, before it is differentiated, so that the derivatives gain too. It
leaves alone what is not exactly one of the forms above: a convolution whose result is used elsewhere too; one with
stride (but for 1x1, the only ones that would need another window); a pool with padding, or with windows that reach over
the border (``ceil_mode``); max pooling; bilinear up-sampling before a 3x3 convolution, where the border differs and
nothing is saved; and whatever would cost more than it saves, such as a pool over the whole image after few channels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.utils._pytree import tree_leaves

from fastdat.engine.passes import image_operations
from fastdat.engine.passes.image_operations import (
    LARGEST_WINDOW,
    Conv,
    Pool,
    TwoInts,
    Upsampling,
    conv_of,
    dtype_of,
    pool_of,
    positions,
    shape_of,
    upsampling_of,
)


class PooledConv(CustomGraphPass):
    """Reorders convolutions, pools and up-samplings in a Dynamo graph with ``node.meta["example_value"]``.

    Nodes that open or close a functorch level, autocast or a gradient mode stay where they are, and nothing moves
    across them. No dead code is eliminated: those nodes look dead.
    """

    def __call__(self, graph: fx.Graph) -> None:
        while any(rewrite(node) for node in graph.nodes for rewrite in _REWRITES):
            pass
        graph.lint()

    def uuid(self) -> Any:
        return get_hash_for_files((__file__, image_operations.__file__))


# --- the rewrites: each tells whether it changed the graph ---------------------------------------------------------


def _pool_before_conv(node: fx.Node) -> bool:
    """A pool of a convolution: the images are pooled, or averaged over windows, and then convolved."""
    pool = pool_of(node)
    conv = None if pool is None else conv_of(pool.x)
    if pool is None or conv is None or not _gains(conv, pool):
        return False
    with node.graph.inserting_before(conv.node):
        if conv.is_pointwise:
            new = _conv_node(conv, _same_call(node, conv.x), conv.stride)
        else:
            new = _conv_node(conv, _box(conv.x, pool, conv.padding), pool.stride)
    _replace(node, new)
    node.graph.erase_node(conv.node)
    return True


def _gains(conv: Conv, pool: Pool) -> bool:
    """Whether the pool may come first, and less work is left then."""
    node = pool.node
    if len(conv.node.users) != 1 or not _same_surroundings(conv.node, node):
        return False
    if conv.bias is not None and not pool.keeps_constants:
        return False
    if conv.is_pointwise:
        return True
    if conv.stride != (1, 1) or not pool.whole_windows or pool.stride == (1, 1):
        return False
    before, after = positions(conv.node), positions(node)
    h, w = (
        (m - 1) * s + d * (k - 1) + 1
        for m, s, d, k in zip(shape_of(node)[2:], pool.stride, conv.dilation, conv.kernel, strict=True)
    )
    box = h * w * shape_of(conv.x)[1] * pool.kernel[0] * pool.kernel[1]
    return conv.macs(after) + box < conv.macs(before)


def _upsample_after_pointwise_conv(node: fx.Node) -> bool:
    """A 1x1 convolution of an up-sampled image: the image is up-sampled after it."""
    conv = conv_of(node)
    upsampling = None if conv is None else upsampling_of(conv.x)
    if conv is None or upsampling is None or not conv.is_pointwise or not _movable(upsampling, node):
        return False
    before = upsampling.node
    with node.graph.inserting_before(node):
        new = _same_call(before, _conv_node(conv, upsampling.x, (1, 1)))
    _replace(node, new)
    node.graph.erase_node(before)
    return True


def _conv_before_nearest(node: fx.Node) -> bool:
    """A convolution of an image up-sampled by repetition: a transposed convolution of the small image, then ``box``."""
    conv = conv_of(node)
    upsampling = None if conv is None else upsampling_of(conv.x)
    if conv is None or upsampling is None or upsampling.mode not in ("nearest", "nearest-exact"):
        return False
    if conv.stride != (1, 1) or conv.dilation != (1, 1) or not _movable(upsampling, node):
        return False
    small, large = shape_of(upsampling.x)[2:], shape_of(upsampling.node)[2:]
    factors = [m // n for n, m in zip(small, large, strict=True)]
    # Other factors are no exact floating-point numbers' inverses; a wrong pixel might be repeated.
    if any(n * k != m or k not in (1, 2, 4, 8) for n, k, m in zip(small, factors, large, strict=True)):
        return False
    if upsampling.scale not in ((), tuple(factors)):  # 2.05, say, which doubles few pixels but not every one
        return False
    padding = [size - k - given for size, k, given in zip(conv.kernel, factors, conv.padding, strict=True)]
    out_channels, per_group = shape_of(conv.weight)[:2]
    box = positions(node) * out_channels * factors[0] * factors[1]
    if min(padding) < 0 or conv.macs(positions(upsampling.x)) + box >= conv.macs(positions(node)):
        return False
    graph, groups = node.graph, conv.groups
    with graph.inserting_before(node):
        weight = conv.weight
        of_groups = (groups, out_channels // groups, per_group, *conv.kernel)
        exchanged = (groups * per_group, out_channels // groups, *conv.kernel)
        for method, arguments in (
            ("reshape", of_groups),
            ("transpose", (1, 2)),
            ("reshape", exchanged),
            ("flip", (2, 3)),
            ("mul", (factors[0] * factors[1],)),
        ):
            weight = _call(graph, method, weight, *arguments)
        geometry = (tuple(factors), tuple(padding), (0, 0), groups)
        spread = _call(graph, torch.conv_transpose2d, upsampling.x, weight, conv.bias, *geometry)
        new = _call(graph, F.avg_pool2d, spread, tuple(factors), (1, 1))
    _replace(node, new)
    graph.erase_node(upsampling.node)
    return True


def _pool_of_summands(node: fx.Node) -> bool:
    """The pool of a sum, of which a summand is a convolution that gains by being pooled: the sum of pools."""
    pool = pool_of(node)
    total = None if pool is None else pool.x
    if pool is None or total is None or not _is_sum(total) or len(total.users) != 1:
        return False
    summands = [arg for arg in total.args if isinstance(arg, fx.Node)]
    first = min(summands)
    if not _same_surroundings(first, node):
        return False
    convs = [conv_of(summand) for summand in summands]
    gains = [conv is not None and _gains(conv, pool) for conv in convs]
    if not any(gains):
        return False
    with node.graph.inserting_before(total):
        new = _call(node.graph, operator.add, *[_same_call(node, summand) for summand in summands])
    _replace(node, new)
    node.graph.erase_node(total)
    return True


_REWRITES: tuple[Callable[[fx.Node], bool], ...] = (
    _pool_before_conv,
    _pool_of_summands,
    _upsample_after_pointwise_conv,
    _conv_before_nearest,
)


def _is_sum(node: fx.Node) -> bool:
    """Whether a node adds two tensors of one shape and type that nothing else uses."""
    if node.kwargs or len(node.args) != 2:
        return False
    a, b = node.args
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node):
        return False
    in_place = node.target in (operator.iadd, "add_")
    if in_place and conv_of(a) is None:  # only of a convolution is it known that nothing shares its memory
        return False
    if not in_place and node.target not in (operator.add, torch.add, "add"):
        return False
    alike = shape_of(a) == shape_of(b) == shape_of(node) and dtype_of(a) == dtype_of(b)
    return a is not b and alike and len(a.users) == len(b.users) == 1


# --- when a node may move ------------------------------------------------------------------------------------------


def _between(first: fx.Node, last: fx.Node) -> Iterator[fx.Node]:
    node = first.next
    while node is not last:
        yield node
        node = node.next


def _same_surroundings(first: fx.Node, last: fx.Node) -> bool:
    """Whether no functorch level, autocast or gradient mode begins or ends between two nodes.

    Every node that computes no tensor is taken for one that does.
    """
    return all(
        node.op != "call_function"
        or any(isinstance(leaf, Tensor) for leaf in tree_leaves(node.meta.get("example_value")))
        for node in _between(first, last)
    )


def _movable(upsampling: Upsampling, conv: fx.Node) -> bool:
    """Whether an up-sampling that only ``conv`` uses may be computed where ``conv`` is, and in the same precision."""
    node = upsampling.node
    return (
        len(node.users) == 1
        and dtype_of(node) == dtype_of(conv)
        and _same_surroundings(node, conv)
        and not any(_may_write(other) for other in _between(node, conv))
    )


_WRITING = (
    "setitem",
    *[name for name in vars(operator) if name.startswith("i") and "__" + name + "__" in vars(operator)],
)


def _may_write(node: fx.Node) -> bool:
    """Whether a node may write to its arguments, as far as its name and its arguments tell."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    by_name = name.rstrip("_") != name or name in _WRITING or "out" in node.kwargs
    return by_name or any(value is True for value in (*node.args, *node.kwargs.values()))  # inplace=True, say


# --- what is written to the graph ----------------------------------------------------------------------------------


def _call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call of a function or, by its name, of a method, with a result like its first argument's type.

    Its shape is noted for further rewrites: found without memory, and outside Dynamo's functorch levels.
    """
    op, run = (
        ("call_method", getattr(Tensor, target)) if isinstance(target, str) else ("call_function", target)
    )
    node = graph.create_node(op, target, args, kwargs)
    shapes = fx.map_arg(args, lambda arg: torch.empty(shape_of(arg), device="meta"))
    node.meta["example_value"] = run(*shapes, **kwargs).to(dtype_of(args[0]))
    return node


def _same_call(node: fx.Node, x: fx.Node) -> fx.Node:
    """The call of ``node`` with another first argument."""
    kwargs = {name: value for name, value in node.kwargs.items() if name != "input"}
    return _call(x.graph, node.target, x, *node.args[1:], **kwargs)


def _conv_node(conv: Conv, x: fx.Node, stride: TwoInts) -> fx.Node:
    """The convolution of ``x``, which has its padding, with another stride."""
    arguments = (conv.weight, conv.bias, stride, (0, 0), conv.dilation, conv.groups)
    return _call(x.graph, torch.conv2d, x, *arguments)


def _box(x: fx.Node, pool: Pool, padding: TwoInts) -> fx.Node:
    """The pool's windows at every position of ``x`` after ``padding`` with zeros."""
    # Padding of more than half a window is more than avg_pool2d takes; and the gradient of a padded pool by ATen's CUDA
    # kernel, which takes large windows, may be wrong in channels_last (pytorch/pytorch#188344).
    inside = all(p <= k // 2 for p, k in zip(padding, pool.kernel, strict=True))
    if not inside or pool.kernel[0] * pool.kernel[1] > LARGEST_WINDOW:
        (top, left), padding = padding, (0, 0)
        x = _call(x.graph, F.pad, x, (left, left, top, top))
    # The padding counts: then inductor needs not find out for each window what to divide by.
    divisor = pool.divisor or pool.kernel[0] * pool.kernel[1]
    return _call(x.graph, F.avg_pool2d, x, pool.kernel, (1, 1), padding, False, True, divisor)


def _replace(old: fx.Node, new: fx.Node) -> None:
    new.meta = dict(old.meta)
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
