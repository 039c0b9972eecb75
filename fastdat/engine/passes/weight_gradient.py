"""The gradient of a convolution's weight, where a derivative has been differentiated again.

PyTorch differentiates ``convolution_backward`` by ``_convolution_double_backward`` in
``aten/src/ATen/native/Convolution.cpp``. Let a layer map x (N, C, ...) to y (N, K, ...) with a weight
(K, C / groups, ...). Let g (N, K, ...) be a gradient for y, and v (N, C, ...) the gradient for the gradient for x. Then
the weight's gradient is computed as::

    a = v.transpose(0, 1)                                    # (C, N, ...)
    b = g.transpose(0, 1)                                    # (K, N, ...); with .contiguous() on a GPU
    r = convolution(a, b, stride=dilation, padding=padding, dilation=stride)      # (C, K, ...)
    r = r.transpose(0, 1)                                    # (K, C, ...)
    r = r[:, :, :height][:, :, :, :width]                    # where r is larger than the weight

This is a convolution with a filter as large as the image, for which cuDNN has no good kernel, and transposing copies
around it. With groups there is one such convolution for each, of ``a[i:j]`` and ``b[k:l]``, and their ``cat`` along
dimension 1 is transposed. For a transposed convolution a and b change places, and ``output_padding`` is passed on
without a meaning. Inductor writes ``permute`` for ``transpose``.

Element (k, c, i) of r is the sum over n and h of ``g[n, k, h] * padded_v[n, c, stride * h + dilation * i]``, where h
goes over all places of g. By definition that is the weight's gradient, and ``convolution_backward(g, v, weight, ...)``
computes it by a kernel made for it. It holds for any layer that maps the shape of v to that of g by a weight of r's
shape. This pass looks for one, as a ``convolution`` or a ``convolution_backward`` earlier in the graph, and changes
nothing where there is none. A derivative that is differentiated again contains the layer that g belongs to. Of the
layer's weight only shape and layout are used.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from fastdat.engine.passes import graph_nodes
from fastdat.engine.passes.graph_nodes import call, memory_order

aten = torch.ops.aten


class WeightGradient(CustomGraphPass):
    """Lets ``convolution_backward`` compute the gradients of weights for which double backward uses a convolution.

    It takes a functional ATen graph with fake tensors in ``node.meta["val"]``, as inductor has it, with ``reshape`` in
    place of ``view``. Each result keeps its shape, type and order of strides.
    """

    def __call__(self, graph: fx.Graph) -> None:
        layers: dict[_Key, list[_Layer]] = {}
        for node in list(graph.nodes):
            correlation = _correlation(node)
            if correlation is not None:
                _rewrite(graph, node, correlation, layers)
            layer = _layer(node)
            if layer is not None:
                layers.setdefault(layer.key, []).append(layer)
        graph.eliminate_dead_code()
        graph.lint()

    def uuid(self) -> Any:
        return get_hash_for_files((__file__, graph_nodes.__file__))


def _rewrite(
    graph: fx.Graph, node: fx.Node, correlation: _Correlation, layers: dict[_Key, list[_Layer]]
) -> None:
    """Replace what follows from ``node``, which computes ``correlation``, if it is the gradient of a layer's weight."""
    for result in reversed(_transposed_and_narrowed(node)):
        of_this_shape = layers.get(correlation.key(result), [])
        if of_this_shape:
            break
    else:
        return
    # Each would do, but the weight of the layer itself is needed at this place anyway.
    layer = next((one for one in of_this_shape if one.gradient in correlation[:2]), of_this_shape[-1])
    x, g = correlation.image, correlation.filter
    if layer.is_transposed:
        x, g = g, x
    arguments = (g, x, layer.weight, None, *layer.arguments, [False, True, False])
    with graph.inserting_before(result), torch.no_grad():
        gradients = call(graph, aten.convolution_backward.default, *arguments)
        gradient = call(graph, operator.getitem, gradients, 1)
        result.replace_all_uses_with(_laid_out_like(graph, result.meta["val"], gradient))


def _laid_out_like(graph: fx.Graph, value: Tensor, node: fx.Node) -> fx.Node:
    """``node`` itself, or a copy whose strides have the order of those of ``value``.

    What follows was traced with these strides. Where they made a ``contiguous`` unnecessary, it is missing from the
    graph, and a kernel would read another layout wrongly. What inductor computes itself needs no copy in memory.
    """
    if node.meta["val"].stride() == value.stride():
        return node
    order, back = memory_order(value)
    copy = call(graph, aten.permute.default, node, order)
    copy = call(graph, aten.clone.default, copy, memory_format=torch.contiguous_format)
    return call(graph, aten.permute.default, copy, back)


# --- layers --------------------------------------------------------------------------------------------------------


_Key = tuple[Any, ...]
"""What a layer and the gradient of its weight have in common."""


class _Layer(NamedTuple):
    """A convolution with its weight, somewhere in the graph."""

    key: _Key
    weight: fx.Node
    gradient: fx.Node | None
    """For its output; None where the output itself is computed."""
    arguments: tuple[Any, ...]
    """stride, padding, dilation, transposed, output_padding, groups."""

    @property
    def is_transposed(self) -> bool:
        return bool(self.arguments[3])


def _layer(node: fx.Node) -> _Layer | None:
    """The layer whose output, or whose gradients, ``node`` computes."""
    args: Any = node.args
    if node.target is aten.convolution.default and len(args) == 9:
        (x, weight), output, gradient, arguments = args[:2], node, None, args[3:]
    elif node.target is aten.convolution_backward.default and len(args) == 11:
        (output, x, weight), gradient, arguments = args[:3], args[0], args[4:10]
    else:
        return None
    stride, padding, dilation, transposed, _, groups = arguments
    image, filter = (output, x) if transposed else (x, output)
    if not _are_static(image, filter, weight):
        return None
    key = _key(image, filter, weight, stride, padding, dilation, groups)
    return _Layer(key, weight, gradient, tuple(arguments))


def _key(image: fx.Node, filter: fx.Node, weight: fx.Node, *settings: Any) -> _Key:
    """Of a layer.

    Args:
        image: its input; its output, where it is a transposed convolution.
        filter: the other one.
        weight: its weight, or the gradient of that.
        settings: stride, padding, dilation and groups.
    """
    value: Tensor = weight.meta["val"]
    shapes = tuple(tuple(node.meta["val"].shape) for node in (image, filter, weight))
    return (
        *shapes,
        value.dtype,
        value.device,
        *(tuple(each) if isinstance(each, list) else each for each in settings),
    )


def _are_static(*nodes: fx.Node | None) -> bool:
    """Whether all are floating-point tensors whose shapes are known numbers."""
    values = [node and node.meta.get("val") for node in nodes]
    return all(
        isinstance(v, Tensor) and v.is_floating_point() and all(type(n) is int for n in v.shape)
        for v in values
    )


# --- what double backward writes -----------------------------------------------------------------------------------


class _Correlation(NamedTuple):
    """A convolution of two tensors whose batch and channels are exchanged, group by group."""

    image: fx.Node
    """(N, C, ...), before the exchange."""
    filter: fx.Node
    """(N, K, ...), before the exchange."""
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def key(self, result: fx.Node) -> _Key:
        """Of the layer for whose weight ``result`` is the gradient."""
        # A step of the filter is one of the layer's output; a step of the result is one of the layer's weight.
        return _key(self.image, self.filter, result, self.dilation, self.padding, self.stride, self.groups)


class _Slice(NamedTuple):
    """``whole[start:end]`` along ``dim``."""

    whole: fx.Node
    dim: int
    start: int
    end: int


def _correlation(node: fx.Node) -> _Correlation | None:
    """What ``node`` computes, if it is a convolution, or a ``cat`` of one convolution for each group."""
    args: Any = node.args
    parts = [node]
    if node.target is aten.cat.default and len(args) == 2 and args[1] == 1:
        parts = args[0]
    first = _convolved(parts[0])
    if first is None or any(len(part.users) > 1 for part in parts if part is not node):
        return None
    (a, b), settings = first
    image, filter = a.whole, b.whole
    for group, part in enumerate(parts):
        expected = tuple(_share(whole, group, len(parts)) for whole in (image, filter))
        if _convolved(part) != (expected, settings):
            return None
    return _Correlation(image, filter, *settings, len(parts))


def _share(whole: fx.Node, group: int, groups: int) -> _Slice:
    """The channels of a group."""
    channels = whole.meta["val"].shape[1]
    return _Slice(whole, 0, group * channels // groups, (group + 1) * channels // groups)


def _convolved(node: fx.Node) -> tuple[tuple[_Slice, _Slice], tuple[Any, Any, Any]] | None:
    """Channels of two tensors which ``node`` convolves, and stride, padding and dilation."""
    args: Any = node.args
    if node.target is not aten.convolution.default or len(args) != 9:
        return None
    *operands, bias, stride, padding, dilation, transposed, _, groups = args
    image, filter = map(_channels, operands)
    if image is None or filter is None or bias is not None or transposed or groups != 1:
        return None
    return (image, filter), (stride, padding, dilation)


def _channels(node: fx.Node) -> _Slice | None:
    """The channels that ``node`` has as its batch."""
    node = _uncopied(node)
    part = _slice(node)
    source = _exchanged(_uncopied(part.whole) if part else node)
    if source is None or not _are_static(source):
        return None
    return part._replace(whole=source) if part else _share(source, 0, 1)


def _transposed_and_narrowed(node: fx.Node) -> list[fx.Node]:
    """``node`` with its first two dimensions exchanged, then each of its beginnings, as far as nothing else is used."""
    found: list[fx.Node] = []
    while len(node.users) == 1:
        (user,) = node.users
        part = _slice(user)
        if not (part is not None and part.start == 0 if found else _exchanged(user) is node):
            break
        found.append(user)
        node = user
    return found


def _exchanged(node: fx.Node) -> fx.Node | None:
    """The tensor whose first two dimensions ``node`` exchanges."""
    args: Any = node.args
    if node.target is aten.permute.default:
        source, dims = args
        return source if list(dims) == [1, 0, *range(2, len(dims))] else None
    if node.target is aten.transpose.int:
        source, *dims = args
        return source if sorted(dims) == [0, 1] else None
    return None


def _slice(node: fx.Node) -> _Slice | None:
    """What ``node`` is a part of, without gaps; None where it is not a slice."""
    if node.target is not aten.slice.Tensor or node.kwargs:
        return None
    args: Any = (*node.args, *(0, None, None, 1)[len(node.args) - 1 :])
    whole, dim, start, end, step = args
    if step != 1 or isinstance(start, fx.Node) or isinstance(end, fx.Node) or not _are_static(whole):
        return None
    return _Slice(whole, dim, *slice(start, end).indices(whole.meta["val"].shape[dim])[:2])


def _uncopied(node: fx.Node) -> fx.Node:
    return node.args[0] if node.target is aten.clone.default else node  # type: ignore[return-value]
