"""Derivatives of a custom operator: for autograd, for ``torch.func`` and under torch.compile alike.

What ``torch.library.register_autograd`` registers fails under ``torch.func.grad`` and ``vjp``: in torch 2.11 to 2.13
it is an autograd.Function of the old style, which functorch refuses. So the same two functions also make one of the
new style, whose forward calls the operator. Dynamo puts a call of it into its graph without looking inside, and
AOTAutograd traces through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._library.autograd import Info, make_autograd_impl
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

SetupContext = Callable[[Any, tuple[Any, ...], Any], None]
"""(ctx, inputs, output): keeps what backward needs."""
Backward = Callable[..., tuple[Any, ...]]
"""(ctx, a gradient an output) -> a gradient an input; a list of them where the operator has a list of tensors."""

_BELOW_AUTOGRAD = torch._C._after_ADInplaceOrView_keyset
_DEVICES = torch._C.DispatchKey.CPU, torch._C.DispatchKey.CUDA


class Functions:
    """What ``differentiable`` has made, by the operators' names: where pickle finds a function of a graph.

    AOTAutograd's cache pickles graphs (``inductor.cacheable``).
    """


class _Call:
    """How the flat arguments and results of one call are grouped."""

    def __init__(self, inputs: TreeSpec) -> None:
        self.inputs = inputs
        self.output: TreeSpec | None = None


def differentiable(
    library: torch.library.Library,
    op: torch._ops.OpOverload[..., Any],
    compute: Callable[..., Any],
    setup_context: SetupContext,
    backward: Backward,
) -> Callable[..., Any]:
    """Register the derivative of ``op`` and return ``op`` as a function that is differentiable everywhere.

    Args:
        library: in which ``op`` is defined.
        op: an operator of positional arguments; lists of tensors may be among them and its results.
        compute: what computes it on a device.
        setup_context, backward: as in ``register_autograd``. What ``backward`` calls must be differentiable in turn
            for the second derivative.

    Returns:
        function of the arguments of ``op``, with its results; under ``torch.vmap`` too if ``op`` has a vmap rule.
    """
    with_graph = make_autograd_impl(op, Info(backward, setup_context))  # as `register_autograd` does

    def kernel(keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return with_graph(keyset, *args)
        below = keyset & _BELOW_AUTOGRAD
        with torch._C._AutoDispatchBelowAutograd():
            if below.highestPriorityTypeId() in _DEVICES:  # nobody listens in between: no second dispatch
                return compute(*args)
            return op.redispatch(below, *args)

    library.impl(op, kernel, "Autograd", with_keyset=True)

    class Function(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(call: _Call, *leaves: Any) -> Any:
            outputs, call.output = tree_flatten(op(*tree_unflatten(leaves, call.inputs)))
            return tuple(outputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
            call, *leaves = inputs
            ctx.call = call
            ctx.leaves_of_inputs = [len(tree_leaves(arg)) for arg in tree_unflatten(leaves, call.inputs)]
            setup_context(
                ctx, tuple(tree_unflatten(leaves, call.inputs)), tree_unflatten(output, call.output)
            )

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            grouped = tree_unflatten(grads, ctx.call.output)
            found = backward(ctx, *(grouped if isinstance(grouped, tuple) else (grouped,)))
            flat: list[Any] = [None]
            for count, gradient in zip(ctx.leaves_of_inputs, found, strict=True):
                flat += [None] * count if gradient is None else tree_leaves(gradient)
            return tuple(flat)

    def function(*args: Any) -> Any:
        leaves, spec = tree_flatten(list(args))
        call = _Call(spec)
        outputs = Function.apply(call, *leaves)  # type: ignore[no-untyped-call]
        assert call.output is not None
        return tree_unflatten(outputs, call.output)

    function.__name__ = op._schema.name.rpartition("::")[2]
    function.__qualname__ = f"{Functions.__qualname__}.{function.__name__}"
    setattr(Functions, function.__name__, function)
    everywhere: Callable[..., Any] = torch.compiler.allow_in_graph(function)
    return everywhere
