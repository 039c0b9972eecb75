"""From a formula and a launch to an operator: its schema, its shapes, its derivative and its vmap rule.

An operator has one signature, that of its formula (``formulas``), and one function that computes it on a GPU, the
launch. A launch allocates its results, starts the kernel where :func:`launches` says so, and returns the results: so
the same function also tells torch.compile the shapes, on tensors that have no memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Optional, get_type_hints

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from fastdat.kernels.differentiable import Backward, SetupContext, differentiable
from fastdat.kernels.formulas import Limits

NAMESPACE = "fastdat"

# A schema knows no named tuple: the fields of ``Limits`` are arguments of their own there, and nowhere else.
_FIELDS: dict[str, Any] = {
    "delta_clip": Optional[float],  # noqa: UP045 - a schema is inferred of nothing else
    "bounds": Optional[Sequence[float]],  # noqa: UP045
    "clip_from": int,
}


def launches(result: Tensor) -> bool:
    """Whether a launch is to start its kernel: not while only the shapes of its results are asked for."""
    return not _has_no_memory(result)


def _has_no_memory(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor) or tensor.is_meta


VmapRule = Callable[..., tuple[Any, Any]]
"""(operator, info, in_dims, *args) -> results, out_dims; as of ``torch.library.register_vmap``."""


def operator(
    name: str,
    launch: Callable[..., Any],
    *,
    like: Callable[..., Any] | None = None,
    returns: Any = None,
    setup_context: SetupContext,
    backward: Backward,
    vmap: VmapRule | None = None,
) -> Callable[..., Any]:
    """Make ``torch.ops.fastdat.<name>``, which is differentiable wherever autograd or ``torch.func`` is.

    Args:
        name: of the operator.
        launch: computes it, as above.
        like: function whose annotated signature the operator has, its formula say; ``launch`` itself where None.
        returns: annotation of the results where ``like`` has others.
        setup_context, backward: the derivative, as of ``differentiable``. ``backward`` returns a gradient an argument.
        vmap: rule for mapped arguments.

    Returns:
        function of the arguments of ``like``, by position or by name.
    """
    hints = get_type_hints(like or launch)
    parameters = list(inspect.signature(like or launch).parameters.values())
    names = [p.name for p in parameters]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    at = next((i for i, name in enumerate(names) if hints[name] is Limits), None)

    def flat(args: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(args) if at is None else (*args[:at], *args[at], *args[at + 1 :])

    def grouped(args: Sequence[Any]) -> tuple[Any, ...]:
        if at is None:
            return tuple(args)
        end = at + len(_FIELDS)
        return (*args[:at], Limits(*args[at:end]), *args[end:])

    def run(*args: Any) -> Any:
        return launch(*grouped(args))

    types = {
        n: hint
        for name in names
        for n, hint in (_FIELDS if hints[name] is Limits else {name: hints[name]}).items()
    }
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=t)
            for n, t in types.items()
        ],
        return_annotation=returns or hints["return"],
    )
    op: Any = torch.library.custom_op(f"{NAMESPACE}::{name}", run, mutates_args=())
    op.register_fake(run)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup_context(ctx, grouped(inputs), output)

    def pull_back(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        found = backward(ctx, *grads)
        return found if at is None else (*found[:at], *(None,) * len(_FIELDS), *found[at + 1 :])

    everywhere = differentiable(op, setup, pull_back)

    def call(*args: Any, **named: Any) -> Any:
        rest = [named[n] if n in named else defaults[n] for n in names[len(args) :]]
        return everywhere(*flat((*args, *rest)))

    if vmap is not None:

        @op.register_vmap  # type: ignore[untyped-decorator]
        def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
            return vmap(call_op, info, in_dims, *grouped(args))

        def call_op(*args: Any) -> Any:
            return op(*flat(args))

    return call
