"""The regularizers of a step: whose turn it is, the tensors that they bring, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from itertools import chain, count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fastdat.engine.checks import named
from fastdat.engine.points import StepPoints
from fastdat.engine.types import Batch, StepSpec, Tensors, TermInputs
from fastdat.regularizers.term import Pair, Term, check_strength, norm

# --- outside of the graph ------------------------------------------------------------------------------------------


class Turns(NamedTuple):
    """The terms that take part in a step."""

    terms: tuple[Term, ...] = ()
    names: tuple[str, ...] = ()
    """Of each, the same in every step: its own, with -2, -3 ... where several regularizers have the same."""
    weights: tuple[float | Tensor, ...] = ()
    """Of each. One that is computed from a tensor is read once a step."""


def due(regularizers: object, step: object) -> Turns:
    """The terms whose turn it is in this step.

    Args:
        regularizers: a sequence of terms, as the user gives it.
        step: number of the step; None where every term takes part in every step.

    Raises:
        TypeError: no sequence of terms, or a term that cannot be hashed.
        ValueError: a term needs the number of the step, or one term comes twice.
    """
    if step is not None:
        if isinstance(step, bool) or not isinstance(step, int):
            raise TypeError(f"step must be the number of the step, an int >= 0, got {named(step)}")
        if step < 0:
            raise ValueError(f"step must be the number of the step, an int >= 0, got {step}")
    if regularizers == ():
        return Turns()
    terms = checked(regularizers)
    names = names_of(terms)
    lazy = [term for term in terms if term.every > 1]
    if not lazy:
        return Turns(terms, names, weights_of(terms))
    if step is None:
        raise ValueError(
            f"{named(lazy[0])} takes part in one step of {lazy[0].every}: pass the number of the step, "
            "dat_step(..., step=i)"
        )
    assert isinstance(step, int)
    at = [i for i, term in enumerate(terms) if step % term.every == 0]
    turns = tuple([terms[i] for i in at])
    return Turns(turns, tuple([names[i] for i in at]), weights_of(turns))


def checked(regularizers: object) -> tuple[Term, ...]:
    """``regularizers`` as a tuple of terms.

    Raises:
        TypeError: no sequence of terms, or a term that cannot be hashed.
        ValueError: a term with a wrong ``every`` or weight, with parameters, or twice.
    """
    if isinstance(regularizers, Term):
        raise TypeError(
            f"regularizers must be a tuple of terms, got one: write regularizers=({type(regularizers).__name__}(...),)"
        )
    if not isinstance(regularizers, (tuple, list)):
        raise TypeError(
            f"regularizers must be a tuple of terms, such as (fastdat.regularizers.R1(),), got {named(regularizers)}"
        )
    for term in regularizers:
        if isinstance(term, type) and issubclass(term, Term):
            raise TypeError(f"regularizers has the class {term.__name__} itself: make one, {term.__name__}()")
        if not isinstance(term, Term):
            raise TypeError(
                f"regularizers must be fastdat.regularizers.Term objects, got {named(term)}: an attack is the argument "
                "config, another loss of D is the argument aux_loss"
            )
        try:
            hash(term)
        except TypeError as error:
            raise TypeError(
                f"a regularizer must be hashable, since compiled steps are kept by it: make {type(term).__name__} a "
                "frozen dataclass"
            ) from error
        if isinstance(term.every, bool) or not isinstance(term.every, int) or term.every < 1:
            raise ValueError(f"{type(term).__name__}.every must be an integer >= 1, got {term.every!r}")
        if isinstance(term, nn.Module) and next(term.parameters(), None) is not None:
            raise ValueError(
                f"the regularizer {term.name} has parameters, which would get no gradient: keep what it learns in D"
            )
    stateful = [id(term) for term in regularizers if term.state()]
    if len(set(stateful)) < len(stateful):
        raise ValueError("regularizers has one term with a state twice: make a second one")
    return tuple(regularizers)


def names_of(terms: Sequence[Term]) -> tuple[str, ...]:
    """A name for each term, as ``Turns`` has them."""
    names: list[str] = []
    for term in terms:
        tries = chain([term.name], (f"{term.name}-{number}" for number in count(2)))
        names.append(next(name for name in tries if name not in names))
    return tuple(names)


def weights_of(terms: Sequence[Term]) -> tuple[float | Tensor, ...]:
    """The weight of each.

    Raises:
        TypeError, ValueError: it is no number >= 0, nor a tensor with one.
    """
    weights = tuple([term.weight for term in terms])
    for term, weight in zip(terms, weights, strict=True):
        check_strength(type(term).__name__, "weight", weight)
    return weights


def static(
    terms: Sequence[Term], weights: Sequence[float | Tensor]
) -> tuple[tuple[Term, ...], tuple[bool, ...]]:
    """The terms without weights that are tensors, and which of them have one."""
    if not terms:
        return (), ()
    weighed = tuple([isinstance(weight, Tensor) for weight in weights])
    return tuple([_static(term) if w else term for term, w in zip(terms, weighed, strict=True)]), weighed


_STATIC: WeakKeyDictionary[Term, Term] = WeakKeyDictionary()
"""By term with a tensor, the same term with a number in its place."""


def _static(term: Term) -> Term:
    found = _STATIC.get(term)
    if found is None:
        changes: dict[str, Any] = {type(term).strength: 0.0}
        found = replace(term, **changes) if is_dataclass(term) else term
        if found is not term:
            _STATIC[term] = found
    return found


def tensors_of(
    terms: Sequence[Term],
    weights: Sequence[float | Tensor],
    batch: Batch,
    generator: object,
    draws: Sequence[Tensors] | None = None,
) -> TermInputs:
    """The tensors that the terms bring to a step; draws their random numbers, unless ``draws`` are given.

    Raises:
        TypeError: ``generator`` is no generator.
        ValueError: a tensor or the generator is on another device than the samples.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {named(generator)}: "
            "torch.Generator(device).manual_seed(0)"
        )
    if not terms:
        if draws:
            raise ValueError(
                f"draws has random numbers for {len(draws)} regularizers, and none takes part in this step"
            )
        return TermInputs()
    x, device = Pair(batch.xr.detach(), batch.xf.detach()), batch.xr.device
    if generator is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device} and the samples on {device}: make it with "
            f"torch.Generator('{device}')"
        )
    inputs = TermInputs(
        tuple([term.draws(x, generator) for term in terms] if draws is None else draws),
        tuple([term.state() for term in terms]),
        tuple([weight.detach() if isinstance(weight, Tensor) else None for weight in weights]),
    )
    if len(inputs.draws) != len(terms):
        raise ValueError(
            f"draws must have one dict for each of the {len(terms)} regularizers, got {len(inputs.draws)}"
        )
    for term, numbers in zip(terms, inputs.draws, strict=True):
        _check_rows(term, numbers, batch.xr.shape[0])
    for term, state, weight in zip(terms, inputs.states, inputs.weights, strict=True):
        for tensor in (*state.values(), *(() if weight is None else (weight,))):
            if tensor.device != device:
                raise ValueError(
                    f"the tensors of the regularizer {term.name} are on {tensor.device} and the samples on {device}: "
                    "move them with .to(...)"
                )
    return inputs


def _check_rows(term: Term, draws: Tensors, m: int) -> None:
    """Raises ValueError where random numbers have not one row a sample: a batch in parts could not be given its own."""
    for name, numbers in draws.items():
        if numbers.shape[:1] != (m,):
            raise ValueError(
                f"the regularizer {term.name} draws {name!r} of shape {tuple(numbers.shape)}: it must have one row a "
                f"sample, ({m}, ...)"
            )


# --- inside of the graph -------------------------------------------------------------------------------------------


def regularization(
    spec: StepSpec, points: StepPoints, inputs: TermInputs
) -> tuple[Tensor, tuple[Tensors, ...], Tensors]:
    """The sum of the terms with their weights, the new values of their tensors, and what ``DATInfo.terms`` says."""
    sums: list[Tensor] = []
    states: list[Tensors] = []
    info: Tensors = {}
    for i, (term, name) in enumerate(zip(spec.terms, spec.term_names, strict=True)):
        given = {**inputs.draws[i], **inputs.states[i]}
        points.begin(i, term)
        value = term.value(points, given)
        if value.ndim != 0:
            raise ValueError(
                f"the regularizer {term.name} must give a scalar tensor, got shape {tuple(value.shape)}: take its mean"
            )
        weight = inputs.weights[i]
        weighted = term.weight * value if weight is None else weight.to(value.dtype) * value
        sums.append(term.every * weighted if term.every > 1 else weighted)
        states.append(term.advanced(points, given) if inputs.states[i] else {})
        if spec.with_info:
            info[name] = weighted
            if term.needs.gradient:
                norms = torch.cat([norm(points.gradient(side)) for side in term.needs.gradient])
                info[f"{name}.grad_norm"] = norms.mean()
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total, tuple(states), info


Asked = tuple[dict[str, Tensor], ...]
"""What one term asks of the whole batch, ``"sum"`` or ``"max"``, with the value of the samples here."""


def asked(spec: StepSpec, points: StepPoints, inputs: TermInputs) -> tuple[Asked, ...]:
    """What each term asks of the whole batch; nothing of terms that join no samples."""
    found: list[Asked] = []
    for i, term in enumerate(spec.terms):
        reductions = points.begin(i, term)
        if term.couples:
            given = {**inputs.draws[i], **inputs.states[i]}
            term.value(points, given)
            if inputs.states[i]:
                term.advanced(points, given)
        found.append(tuple([{kind: here} for kind, here in reductions.asked]))
    return tuple(found)
