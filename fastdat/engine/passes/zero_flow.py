"""Zero flow: operations whose result is known to be zero are left out.

The input gradient of a piecewise linear network depends on its activations only through masks, so its derivative
with respect to them is zero. PyTorch materialises this zero (``threshold_backward``, ``avg_pool2d_backward`` and
others return ``zeros_like`` for it) and propagates it backward through every layer: 2 of the 9 forward passes that a
second-order step costs. This module follows zeros from the operations that create them. It does not run an operation
whose result must be zero, and it drops additions of zero. It does not inspect the network: a smooth network creates no
such zeros and keeps its whole second derivative. Everything that is differentiated twice gains, gradient penalties
included::

    torch.compile(penalty_and_its_gradient, options=fastdat.passes.options())  # in a graph
    with fastdat.zero_flow.skipping():                                         # in eager mode
        penalty.backward()

Where every number is finite, the result equals that of the full computation. Zero times Inf or NaN counts as zero.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from fastdat.engine.passes import graph_nodes, zero_rules
from fastdat.engine.passes.graph_nodes import call, memory_order
from fastdat.engine.passes.zero_rules import EXPENSIVE, SUMS, verdict

aten = torch.ops.aten


# --- in a graph ----------------------------------------------------------------------------------------------------


class ZeroFlow(CustomGraphPass):
    """Removes known zeros from a functional ATen graph with fake tensors in ``node.meta["val"]``, as inductor has it.

    ``_efficientzerotensor``, a tensor without memory, becomes one with memory even where it stays: kernels compiled
    for the CPU read through its null pointer (torch 2.11 to 2.13).
    """

    def __call__(self, graph: fx.Graph) -> None:
        zeros: dict[fx.Node, None] = {}  # in the order of the graph
        parts: dict[fx.Node, tuple[bool, ...]] = {}

        def is_zero(arg: Any) -> bool:
            return arg in zeros if isinstance(arg, fx.Node) else _is_number_zero(arg)

        for node in list(graph.nodes):
            if node.op != "call_function":
                continue
            if node.target is operator.getitem:
                source, index = node.args
                found = parts[source][index] if source in parts else is_zero(source)
            else:
                found = verdict(node.target, node.args, is_zero)
            if isinstance(found, tuple):
                parts[node] = found
                if any(found) and not all(found) and _is_static(node):
                    _leave_out(node, found)
            elif found:
                zeros[node] = None
            elif node.target in SUMS:
                _drop_zero_term(node, is_zero)
        for node in zeros:
            # Constants made from nothing may stay as they are, but one without memory may not.
            stays = not node.all_input_nodes and node.target is not aten._efficientzerotensor.default
            if not stays and any(user not in zeros for user in node.users) and _is_static(node):
                with graph.inserting_before(node):
                    node.replace_all_uses_with(
                        _full_of_zeros(graph, node), delete_user_cb=lambda user: user not in zeros
                    )
        graph.eliminate_dead_code()
        graph.lint()

    def uuid(self) -> Any:
        return get_hash_for_files((__file__, graph_nodes.__file__, zero_rules.__file__))


def _is_number_zero(arg: Any) -> bool:
    return isinstance(arg, (int, float)) and arg == 0


def _is_static(node: fx.Node) -> bool:
    """Whether the shapes of all its results are known numbers."""
    if "val" not in node.meta:
        return False
    values = tree_leaves(node.meta["val"])
    return all(
        isinstance(v, Tensor) and all(type(n) is int for n in (*v.shape, *v.stride()))
        for v in values
        if v is not None
    )


def _leave_out(node: fx.Node, zero: tuple[bool, ...]) -> None:
    """Let a convolution_backward compute only those gradients that are not zero."""
    mask: Any = node.args[-1]
    node.args = (*node.args[:-1], [wanted and not known for wanted, known in zip(mask, zero, strict=True)])


def _drop_zero_term(node: fx.Node, is_zero: zero_rules.IsZero) -> None:
    """Replace x + 0 by x where the two cannot be told apart."""
    if len(node.args) != 2 or node.kwargs:
        return
    x, zero = node.args
    if node.target is aten.add.Tensor and is_zero(x):
        x, zero = zero, x
    if not (is_zero(zero) and isinstance(x, fx.Node)):
        return
    ours, result = x.meta.get("val"), node.meta.get("val")
    alike = isinstance(ours, Tensor) and isinstance(result, Tensor) and _layout(ours) == _layout(result)
    # A result of the graph must not share memory with another, or with an argument.
    if alike and not _reaches_output(node):
        node.replace_all_uses_with(x)


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.dtype, x.device


def _reaches_output(node: fx.Node) -> bool:
    """Whether ``node``, or a view of it, is a result of the graph, or is written to."""
    for user in node.users:
        if user.op == "output" or (user.target is operator.getitem and _reaches_output(user)):
            return True
        schema = getattr(user.target, "_schema", None)
        if schema is not None and (
            schema.is_mutable or (any(r.alias_info for r in schema.returns) and _reaches_output(user))
        ):
            return True
    return False


def _full_of_zeros(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """A tensor of zeros with the shape, strides' order and type of ``node``."""
    value: Tensor = node.meta["val"]
    strides = value.stride()
    order, back = memory_order(value)
    shape = [value.shape[d] if strides[d] else 1 for d in order]
    kind: dict[str, Any] = {"dtype": value.dtype, "device": value.device, "pin_memory": False}
    zeros = graph.call_function(aten.full.default, (shape, 0), kind)
    zeros.meta["val"] = value.new_empty(shape)
    zeros = call(graph, aten.permute.default, zeros, back)
    return call(graph, aten.expand.default, zeros, list(value.shape))


# --- in eager mode -------------------------------------------------------------------------------------------------


@contextmanager
def skipping() -> Iterator[None]:
    """Within this context, matrix products and convolutions of known zeros are not computed.

    An extension's kernel, or ``.data``, may fill a tensor without PyTorch's knowledge. So before an operation is left
    out, the values of its zeros are read, which synchronises with a CUDA device. While a CUDA graph is captured,
    nothing may synchronise, and every operation is computed.
    """
    with _Skipping():
        yield


class _Skipping(TorchDispatchMode):
    """Remembers which tensors were created as zero, until they die or are written to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._versions = WeakTensorKeyDictionary()

    def _is_zero(self, arg: Any) -> bool:
        if isinstance(arg, Tensor):
            return bool(self._versions.get(arg) == arg._version)
        return _is_number_zero(arg)

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = verdict(op, args, self._is_zero)
        if found and op.overloadpacket in EXPENSIVE and not op._schema.is_mutable:
            found = verdict(op, args, lambda arg: self._is_zero(arg) and _is_seen_to_be_zero(arg))
            out = _without_computing(op, args, found) if _any(found) else op(*args, **(kwargs or {}))
        else:
            out = op(*args, **(kwargs or {}))
        results = out if isinstance(out, (tuple, list)) else (out,)
        flags = found if isinstance(found, tuple) else (found,) * len(results)
        for result, zero in zip(results, flags, strict=True):
            if zero and isinstance(result, Tensor):
                self._versions[result] = result._version
        return out


def _any(zero: zero_rules.Verdict) -> bool:
    return any(zero) if isinstance(zero, tuple) else zero


def _is_seen_to_be_zero(arg: Any) -> bool:
    if not isinstance(arg, Tensor):
        return True
    with _disable_current_modes():
        if arg.is_cuda and torch.cuda.is_current_stream_capturing():
            return False
        return not bool(arg.any())


def _without_computing(op: Any, args: tuple[Any, ...], zero: zero_rules.Verdict) -> Any:
    """The results of ``op``, with its zero results created directly."""
    with _disable_current_modes():  # shapes alone; a mode of the user's that counts FLOPs need not know
        on_meta = op(*tree_map_only(Tensor, lambda t: t.to("meta"), args))
    if isinstance(on_meta, Tensor):
        return torch.zeros_like(on_meta, device=args[0].device)
    assert isinstance(zero, tuple)  # a convolution_backward
    *others, mask = args
    wanted = [want and not known for want, known in zip(mask, zero, strict=True)]
    computed = op(*others, wanted) if any(wanted) else on_meta
    return tuple(
        torch.zeros_like(meta, device=args[0].device) if known and meta is not None else result
        for meta, known, result in zip(on_meta, zero, computed, strict=True)
    )
