"""The regularizers of a step: whose turn it is, the tensors that they bring, and their sum."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdat.engine.checks import named
from fastdat.engine.points import StepPoints
from fastdat.engine.types import Batch, StepSpec, Tensors, TermInputs
from fastdat.regularizers.term import Pair, Term, norm

# --- outside of the graph ------------------------------------------------------------------------------------------


class Turns(NamedTuple):
    """The terms that take part in a step."""

    terms: tuple[Term, ...] = ()
    names: tuple[str, ...] = ()
    """Of each, the same in every step: its own, with -2, -3 ... where several regularizers have the same."""


def due(regularizers: object, step: object) -> Turns:
    """The terms whose turn it is in this step.

    Args:
        regularizers: a sequence of terms, as the user gives it.
        step: number of the step; None where every term takes part in every step.

    Raises:
        TypeError: no sequence of terms, or a term that cannot be hashed.
        ValueError: a term needs the number of the step, or one term comes twice.
    """
    if regularizers == ():
        return Turns()
    terms = _checked(regularizers)
    names = names_of(terms)
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 0):
        raise TypeError(f"step must be the number of the step, an int >= 0, got {named(step)}")
    lazy = [term for term in terms if term.every > 1]
    if not lazy:
        return Turns(terms, names)
    if step is None:
        raise ValueError(
            f"{named(lazy[0])} takes part in one step of {lazy[0].every}: pass the number of the step, "
            "dat_step(..., step=i)"
        )
    assert isinstance(step, int)
    at = [i for i, term in enumerate(terms) if step % term.every == 0]
    return Turns(tuple([terms[i] for i in at]), tuple([names[i] for i in at]))


def _checked(regularizers: object) -> tuple[Term, ...]:
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
    stateful = [id(term) for term in regularizers if term.state()]
    if len(set(stateful)) < len(stateful):
        raise ValueError("regularizers has one term with a state twice: make a second one")
    return tuple(regularizers)


def names_of(terms: Sequence[Term]) -> tuple[str, ...]:
    """A name for each term, as ``Turns`` has them."""
    counts: dict[str, int] = {}
    names = []
    for term in terms:
        counts[term.name] = counts.get(term.name, 0) + 1
        names.append(term.name if counts[term.name] == 1 else f"{term.name}-{counts[term.name]}")
    return tuple(names)


def static(terms: Sequence[Term]) -> tuple[tuple[Term, ...], tuple[bool, ...]]:
    """The terms without weights that are tensors, and which of them have one."""
    if not terms:
        return (), ()
    weighed = tuple([isinstance(term.weight, Tensor) for term in terms])
    return tuple([_static(term) if w else term for term, w in zip(terms, weighed, strict=True)]), weighed


@functools.lru_cache(maxsize=64)
def _static(term: Term) -> Term:
    without: Any = replace(term, **{type(term).strength: 0.0}) if is_dataclass(term) else term
    made: Term = without
    return made


def tensors_of(terms: Sequence[Term], batch: Batch, generator: torch.Generator | None) -> TermInputs:
    """The tensors that the terms bring to a step; draws their random numbers.

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
        return TermInputs()
    x, device = Pair(batch.xr.detach(), batch.xf.detach()), batch.xr.device
    if generator is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device} and the samples on {device}: make it with "
            f"torch.Generator('{device}')"
        )
    weights = [term.weight if isinstance(term.weight, Tensor) else None for term in terms]
    inputs = TermInputs(
        tuple([term.draws(x, generator) for term in terms]),
        tuple([term.state() for term in terms]),
        tuple([None if weight is None else weight.detach() for weight in weights]),
    )
    for term, state, weight in zip(terms, inputs.states, inputs.weights, strict=True):
        for tensor in (*state.values(), *(() if weight is None else (weight,))):
            if tensor.device != device:
                raise ValueError(
                    f"the tensors of the regularizer {term.name} are on {tensor.device} and the samples on {device}: "
                    "move them with .to(...)"
                )
    return inputs


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
        weight = inputs.weights[i] if spec.weighed[i] else term.weight
        assert weight is not None
        weighted = weight * value
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
