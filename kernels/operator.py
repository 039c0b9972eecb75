"""From a formula and a launch to an operator: its schema, its shapes, its derivative and its vmap rule.

An operator has one signature, that of its formula (``formulas``), and one function that computes it on a GPU, the
launch. A launch allocates its results, starts the kernel where :func:`must_launch` says so, and returns the results: so
the same function also tells torch.compile the shapes, on tensors that have no memory.

``torch.library.custom_op`` would do the same, and slows every call of many tensors: it passes through the dispatcher
twice and compares the memory of all results with that of all arguments. Here a call passes once. What that check
guards, that no result lies in the memory of an argument or of another result, is a launch's to keep (tests/kernels
run ``opcheck``, which looks at it).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional, get_type_hints

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from fastdat.kernels.differentiable import Backward, SetupContext, differentiable
from fastdat.kernels.dispatch import NAMESPACE
from fastdat.kernels.formulas import Limits

_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")


@dataclass(frozen=True)
class Operator:
    """What others have to know of an operator: torch's object of it, and the function that computes it."""

    overload: Any
    compute: Callable[..., Any]


OPERATORS: dict[str, Operator] = {}
"""Name -> operator, of all that were made."""

VmapRule = Callable[..., tuple[Any, Any]]
"""(operator, info, in_dims, *args) -> results, out_dims; as in ``torch.library.register_vmap``."""


def must_launch(result: Tensor) -> bool:
    """Whether a launch has to start its kernel. It does not if only the shapes of its results are needed."""
    return not _has_no_memory(result)


def _has_no_memory(tensor: Tensor) -> bool:
    """``bench.gpu_plan`` replaces this, since it records launches on such tensors."""
    return isinstance(tensor, FakeTensor) or tensor.is_meta


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
        like: function whose annotated signature the operator has, its formula for example; ``launch`` where None.
        returns: annotation of the results where ``like`` has others.
        setup_context, backward: the derivative, as in ``differentiable``. ``backward`` returns a gradient an argument.
        vmap: rule for mapped arguments.

    Returns:
        function of the arguments of ``like``, by position or by name.
    """
    arguments = _Arguments(name, like or launch)

    def run(*args: Any) -> Any:
        return launch(*arguments.with_limits(args))

    run.__signature__ = arguments.signature_of_schema(returns)  # type: ignore[attr-defined]
    schema = torch.library.infer_schema(run, mutates_args=())
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    # The dispatcher may call it from a frame that torch.compile watches; it is not to be looked into.
    compute = torch.compiler.disable(run)
    _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
    torch.library.register_fake(op, run, lib=_LIBRARY)
    OPERATORS[name] = Operator(op, compute)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup_context(ctx, arguments.with_limits(inputs), output)

    def pull_back(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return arguments.without_limits(backward(ctx, *grads), of_limits=_NO_GRADIENT)

    everywhere = differentiable(_LIBRARY, op, compute, setup, pull_back)

    def call(*args: Any, **named: Any) -> Any:
        return everywhere(*arguments.without_limits(arguments.in_order(args, named)))

    if vmap is not None:

        def call_op(*args: Any) -> Any:
            return op(*arguments.without_limits(args))

        def mapped(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
            return vmap(call_op, info, in_dims, *arguments.with_limits(args))

        torch.library.register_vmap(op, mapped, lib=_LIBRARY)

    return call


# A schema cannot contain a named tuple, so the fields of ``Limits`` are separate arguments there, and only there.
_FIELDS: dict[str, Any] = {
    "delta_clip": Optional[float],  # noqa: UP045 - torch infers a schema only from these types
    "bounds": Optional[Sequence[float]],  # noqa: UP045
    "clip_from": int,
}
_NO_GRADIENT = (None,) * len(_FIELDS)


class _Arguments:
    """The arguments of an operator, in two forms: with ``Limits`` as one argument, and with its fields instead."""

    def __init__(self, operator: str, function: Callable[..., Any]) -> None:
        self._operator = operator
        self._hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters
        self._names = list(parameters)
        self._defaults = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
        self._limits = next((i for i, name in enumerate(self._names) if self._hints[name] is Limits), None)

    def signature_of_schema(self, returns: Any) -> inspect.Signature:
        """The signature from which torch infers the schema, with ``returns`` as its results unless that is None."""
        types: dict[str, Any] = {}
        for name in self._names:
            types |= _FIELDS if self._hints[name] is Limits else {name: self._hints[name]}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind, annotation=hint) for name, hint in types.items()]
        return inspect.Signature(parameters, return_annotation=returns or self._hints["return"])

    def in_order(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position.

        Raises:
            TypeError: one is missing, unknown, or given twice.
        """
        rest = self._names[len(args) :]
        missing = [name for name in rest if name not in named and name not in self._defaults]
        if len(args) > len(self._names) or missing or not all(name in rest for name in named):
            raise TypeError(
                f"{self._operator}({', '.join(self._names)}) was called with {len(args)} arguments by position and "
                f"with {', '.join(named) or 'none'} by name"
            )
        return (*args, *[named[name] if name in named else self._defaults[name] for name in rest])

    def with_limits(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """The fields of ``Limits`` put together."""
        i = self._limits
        if i is None:
            return tuple(args)
        end = i + len(_FIELDS)
        return (*args[:i], Limits(*args[i:end]), *args[end:])

    def without_limits(self, args: Sequence[Any], of_limits: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """``Limits`` taken apart, its fields replaced by ``of_limits`` if given."""
        i = self._limits
        if i is None:
            return tuple(args)
        return (*args[:i], *(args[i] if of_limits is None else of_limits), *args[i + 1 :])
