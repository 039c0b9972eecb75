"""The step of a whole batch from parts of it, in the memory of one part.

Signs and targets of the attack couple the samples of a batch, and so do some regularizers; nothing else does. So each
attack pass runs over all parts before its signs are taken, and the loss is then differentiated part by part with the
signs as given. In first order the input gradients of the attack pass are kept (they are as small as the batch itself)
and nothing is computed twice. Where the loss is differentiated through the attack or the clean pass, each part computes
these again. What a regularizer takes of the whole batch (a norm, a mean) is found in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastdat.engine.attack import AttackResult, Measured, run_attack
from fastdat.engine.discriminator import Call, Linearised, WholeBatchD
from fastdat.engine.points import StepPoints, Ways, reduced
from fastdat.engine.sign_attack import run_sign_attack
from fastdat.engine.terms import Asked, asked
from fastdat.engine.types import (
    Batch,
    FromWholeBatch,
    Sides,
    SideWeights,
    StepInputs,
    StepNeeds,
    StepResult,
    StepSpec,
    Tensors,
    TermInputs,
)
from fastdat.engine.weights import Weights
from fastdat.info import SideInfo, StepInfo
from fastdat.regularizers.sign_attacks import SignAttack
from fastdat.regularizers.term import Pair

Step = Callable[[nn.Module, StepSpec, StepInputs], StepResult]
"""``objective.step``, compiled or not."""
AttackPass = Callable[
    [nn.Module, StepSpec, SideWeights, Batch, bool], tuple[Pair, tuple[Tensor | None, Tensor | None]]
]
"""``attack_pass``, compiled or not."""
TermPass = Callable[[nn.Module, StepSpec, StepInputs], tuple[Asked, ...]]
"""``term_pass``, compiled or not."""


class Passes(NamedTuple):
    """The functions of which a step in parts consists, compiled or not."""

    step: Step
    attack_pass: AttackPass
    term_pass: TermPass


def attack_pass(
    D: nn.Module, spec: StepSpec, weights: SideWeights, batch: Batch, with_gradients: bool
) -> tuple[Pair, tuple[Tensor | None, Tensor | None]]:
    """D on one part, with constant weights: logits (n,) a side, and, if asked for, dD/dx (n, ...)."""
    in_eval_mode = isinstance(spec.config, SignAttack) and spec.config.in_eval_mode
    D_here = WholeBatchD(D, spec, {}, in_eval_mode)
    sides = spec.attacked
    if not with_gradients:
        return D_here.logits(weights, batch)[0], (None, None)
    linearised = D_here.linearise(weights, batch, sides)
    with torch.no_grad():
        ones = [
            torch.ones_like(logits) if attacked else None
            for logits, attacked in zip(linearised.logits, sides, strict=True)
        ]
        return linearised.logits, linearised.pull((ones[0], ones[1]))


def term_pass(D: nn.Module, spec: StepSpec, inputs: StepInputs) -> tuple[Asked, ...]:
    """What each term that joins samples asks of the whole batch, from this part of it."""
    weights = Weights(spec, {**inputs.frozen, **inputs.trainable}, inputs.buffers)
    unused = Call(inputs.batch.xr, (), {})
    alone = replace(spec, group=None)
    ways = Ways(D, alone, weights, {}, inputs.batch, (unused, unused), None, None, (None, None))
    return asked(alone, StepPoints(ways, inputs.given.reductions), inputs.terms)


def _rows(m: int, size: int) -> list[slice]:
    """Which of ``m`` samples a side are in each part."""
    return [slice(start, start + size) for start in range(0, m, size)]


def split(batch: Batch, size: int) -> list[Batch]:
    """Parts of ``size`` samples a side, the last one smaller where it must be."""
    m = batch.xr.shape[0]

    def part(values: Sequence[Any], rows: slice) -> tuple[Any, ...]:
        return tuple(v[rows] if isinstance(v, Tensor) and v.ndim and v.shape[0] == m else v for v in values)

    return [
        Batch(batch.xr[s], batch.xf[s], part(batch.args_real, s), part(batch.args_fake, s))
        for s in _rows(m, size)
    ]


class PartwiseD:
    """D on a whole batch, ``size`` samples a side at a time; its logits and input gradients are constants.

    D treats its samples independently, so that the seeds of a part's pullback may all be one (see ``attack``).
    """

    def __init__(self, D: nn.Module, spec: StepSpec, size: int, attack_pass: AttackPass) -> None:
        self._D, self._spec, self._size, self._attack_pass = D, spec, size, attack_pass

    def logits(self, weights: SideWeights, batch: Batch) -> tuple[Pair, Tensors]:
        return self.linearise(weights, batch, Sides(False, False), needs_gradient=False).logits, {}

    def linearise(
        self,
        weights: SideWeights,
        batch: Batch,
        sides: Sides,
        known: Pair | None = None,
        needs_gradient: bool = True,
        apart: bool = False,
    ) -> Linearised:
        """As in ``BatchedD``, of the attacked sides. One pass computes the logits of both, also where they are
        ``known``."""
        passes = [
            self._attack_pass(self._D, self._spec, weights, part, needs_gradient)
            for part in split(batch, self._size)
        ]
        logits = Pair(*[torch.cat(of_parts) for of_parts in zip(*[p[0] for p in passes], strict=True)])
        of_parts = zip(*[p[1] for p in passes], strict=True)
        real, fake = ([g for g in side if g is not None] for side in of_parts)
        gradients = (torch.cat(real) if real else None, torch.cat(fake) if fake else None)
        calls = (Call(logits.real, (), {}), Call(logits.fake, (), {}))
        return Linearised(calls, {}, lambda seeds: gradients)


def microbatched_step(
    D: nn.Module, spec: StepSpec, inputs: StepInputs, size: int, passes: Passes
) -> StepResult:
    """``objective.step`` of the whole batch, at most ``size`` samples a side at a time.

    Args:
        D: the discriminator, its spectral norm bypassed.
        spec: of the step.
        inputs: of the whole batch.
        size: samples a side.
        passes: the functions, compiled or not.
    """
    config, batch = spec.config, inputs.batch
    parts = split(batch, size)
    of_terms = _split_terms(inputs.terms, batch.xr.shape[0], size)
    given = [FromWholeBatch()] * len(parts)
    attack: AttackResult | None = None
    # Where the loss is differentiated through the clean samples, each part computes the attack again.
    again = spec.differentiates_clean or spec.needs.loss_gradient or bool(spec.inputs_wanted)
    if config.attacks and not (again and isinstance(config, SignAttack)):  # whose samples move alone
        weights = Weights(spec, {**inputs.frozen, **inputs.trainable}, inputs.buffers)
        alone = replace(spec, terms=(), term_names=(), weighed=(), needs=StepNeeds())
        whole = PartwiseD(D, alone, size, passes.attack_pass)
        if isinstance(config, SignAttack):
            attack = run_sign_attack(alone, whole, weights, batch.detached(), whole)
        else:
            attack = run_attack(alone, whole, weights, batch.detached(), signs_only=again)
        if again:
            of_parts = zip(*[_parts_of(signs, size) for signs in attack.signs], strict=True)
            given = [FromWholeBatch(signs=tuple(signs)) for signs in of_parts]
        else:
            x_hat = Pair(attack.batch.xr, attack.batch.xf)
            given = [FromWholeBatch(x_hat=of_part) for of_part in _parts_of(x_hat, size)]
            if config.power_iterations == "per_forward":  # the attack's calls have advanced u
                inputs = inputs._replace(buffers={**inputs.buffers, **weights.buffers()})
    all_inputs = [
        inputs._replace(batch=part, given=of_part, terms=terms)
        for part, of_part, terms in zip(parts, given, of_terms, strict=True)
    ]
    for _ in range(max([term.rounds for term in spec.terms if term.couples], default=0)):
        # Each round answers what depends on the answers before.
        answers = _answers(spec, [passes.term_pass(D, spec, each) for each in all_inputs])
        all_inputs = [each._replace(given=each.given._replace(reductions=answers)) for each in all_inputs]
    shares = [part.xr.shape[0] / batch.xr.shape[0] for part in parts]
    of_inputs = set(spec.inputs_wanted)
    grads: Tensors = {}
    results: list[StepResult] = []
    for each, share in zip(all_inputs, shares, strict=True):
        result = passes.step(D, spec, each)
        _add_gradients(grads, {n: g for n, g in result.grads.items() if n not in of_inputs}, share)
        # Those of the parameters are as large for each part, and are not kept.
        results.append(result._replace(grads={n: result.grads[n] for n in spec.inputs_wanted}))
    loss = torch.stack([r.loss * share for r, share in zip(results, shares, strict=True)]).sum()
    for name in spec.inputs_wanted:
        grads[name] = torch.cat([r.grads[name] * share for r, share in zip(results, shares, strict=True)])
    info = _combined_info([r.info for r in results if r.info is not None], shares, attack)
    # A replayed CUDA graph has overwritten those of the parts before, which were the same.
    return StepResult(loss, grads, results[-1].buffers, results[-1].states, info)


def _split_terms(inputs: TermInputs, m: int, size: int) -> list[TermInputs]:
    """The rows of the draws that belong to each part; states and weights are of the whole batch."""
    return [
        inputs._replace(
            draws=tuple([{name: rows[s] for name, rows in draws.items()} for draws in inputs.draws])
        )
        for s in _rows(m, size)
    ]


def _answers(spec: StepSpec, of_parts: Sequence[tuple[Asked, ...]]) -> tuple[tuple[Tensor, ...], ...]:
    """What each term is told about the whole batch, from what it asks in each part."""
    return tuple(
        [
            tuple([_combined(spec, one) for one in zip(*of_term, strict=True)])
            for of_term in zip(*of_parts, strict=True)
        ]
    )


def _combined(spec: StepSpec, of_parts: Sequence[dict[str, Tensor]]) -> Tensor:
    (kind,) = of_parts[0]
    values = torch.stack([part[kind] for part in of_parts])
    return reduced(spec, kind, values.sum(0) if kind == "sum" else values.amax(0))


def _parts_of(pair: Pair, size: int) -> list[Pair]:
    return [Pair(*part) for part in zip(pair.real.split(size), pair.fake.split(size), strict=True)]


def _add_gradients(total: Tensors, of_part: Tensors, share: float) -> None:
    """Add the parameters' gradients of one part to those of the parts before, in place."""
    if not of_part:
        return
    if not total:
        total.update({name: torch.zeros_like(gradient) for name, gradient in of_part.items()})
    torch._foreach_add_(list(total.values()), [of_part[name] for name in total], alpha=share)


def _combined_info(
    of_parts: list[StepInfo], shares: list[float], attack: AttackResult | None
) -> StepInfo | None:
    """Measurements of the parts as those of the whole batch, of which the attack may have measured some itself."""
    if not of_parts:
        return None
    clean = None if attack is None else attack.clean
    known = None if attack is None else attack.info
    real, fake = (
        _combined_side(
            [info.real if side == 0 else info.fake for info in of_parts],
            shares,
            None if clean is None else clean[side],
            None if known is None else (known.real, known.fake)[side],
        )
        for side in (0, 1)
    )
    fraction = _mean([info.penalty_fraction for info in of_parts], shares)
    terms = {name: _mean([info.terms[name] for info in of_parts], shares) for name in of_parts[0].terms}
    return StepInfo(real, fake, fraction if known is None else known.penalty_fraction, terms)


def _combined_side(
    records: list[SideInfo], shares: list[float], clean: Tensor | None, known: Measured | None
) -> SideInfo:
    side = SideInfo(
        logits=torch.cat([r.logits for r in records]),
        clean_logits=torch.cat([r.clean_logits for r in records]) if clean is None else clean,
        x_adv=torch.cat([r.x_adv for r in records]),
        delta_rms=_mean([r.delta_rms.square() for r in records], shares).sqrt(),
        grad_norm=_mean([r.grad_norm for r in records], shares),
        clipped=_mean([r.clipped for r in records], shares),
        aux=tuple(_together(outputs) for outputs in zip(*[r.aux for r in records], strict=True)),
    )
    if known is None:
        return side
    delta_rms = side.delta_rms if known.delta_rms is None else known.delta_rms
    return side._replace(grad_norm=known.grad_norm, clipped=known.clipped, delta_rms=delta_rms)


def _together(outputs: Sequence[Tensor]) -> Tensor:
    """A further output of D, of all parts: its rows, or, where it is a number of each call of D, these numbers."""
    return torch.cat(list(outputs)) if outputs[0].ndim else torch.stack(list(outputs))


def _mean(values: Sequence[Tensor], shares: list[float]) -> Tensor:
    return torch.stack([v * share for v, share in zip(values, shares, strict=True)]).sum()
