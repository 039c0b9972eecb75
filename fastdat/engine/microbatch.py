"""The step of a whole batch from parts of it, in the memory of one part.

Signs and targets couple the samples of a batch; nothing else does. So each attack pass runs over all parts before
its signs are taken, and the loss is then differentiated part by part with the signs as given. In first order
the input gradients of the attack pass are kept (they are as small as the batch itself) and nothing is computed
twice. Where the loss is differentiated through the attack or the clean pass, each part computes these again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.engine.attack import attack_info, attack_moves, decide, perturbed
from fastdat.engine.discriminator import Linearised, Weights, call_both, linearise
from fastdat.engine.objective import StepResult
from fastdat.engine.types import Fixed, Inputs, Pair, StepSpec, Tensors

Pass = tuple[Pair, tuple[Tensor | None, Tensor | None]]
"""Logits (n,) a side, and dD/dx (n, ...) of the attacked sides where it was asked for."""


def attack_pass(
    D: nn.Module, spec: StepSpec, weights: tuple[Tensors, Tensors], x: Inputs, with_grads: bool
) -> Pass:
    """D on one part, with constant weights; compiled."""
    if not with_grads:
        real, fake, _ = call_both(D, spec, weights, {}, x)
        return Pair(real.logits, fake.logits), (None, None)
    sides = linearise(D, spec, weights, {}, x)
    with torch.no_grad():
        grads = sides.pull(Pair(torch.ones_like(sides.logits.real), torch.ones_like(sides.logits.fake)))
    return sides.logits, grads


def split(x: Inputs, size: int) -> list[Inputs]:
    """Parts of ``size`` samples a side, the last one smaller where it must be."""
    m = x.xr.shape[0]

    def part(values: Sequence[Any], rows: slice) -> tuple[Any, ...]:
        return tuple(v[rows] if isinstance(v, Tensor) and v.ndim and v.shape[0] == m else v for v in values)

    slices = [slice(start, start + size) for start in range(0, m, size)]
    return [Inputs(x.xr[s], x.xf[s], part(x.args_real, s), part(x.args_fake, s)) for s in slices]


def microbatched_step(
    D: nn.Module,
    spec: StepSpec,
    trainable: Tensors,
    frozen: Tensors,
    buffers: Tensors,
    x: Inputs,
    of_inputs: tuple[str, ...],
    size: int,
    step: Callable[..., StepResult],
    attack_pass: Callable[..., Pass],
) -> StepResult:
    """``functional.step`` of the whole batch, at most ``size`` samples a side at a time.

    Args:
        step, attack_pass: the functions of these names, compiled or not.
    """
    config = spec.config
    parts = split(x, size)
    fixed: list[Fixed | None] = [None] * len(parts)
    info: dict[str, Any] = {}
    if config.attacks:
        again = config.second_order or config.clean_weight > 0 or bool(of_inputs)
        weights = Weights(spec, {**frozen, **trainable}, buffers)
        x_hat, signs, info = _attack_by_parts(D, spec, weights, x, size, attack_pass, keep_x_hat=not again)
        if again:  # the loss is differentiated through the clean samples
            per_part = zip(
                *(zip(s.real.split(size), s.fake.split(size), strict=True) for s in signs), strict=True
            )
            fixed = [Fixed(signs=tuple(Pair(*pair) for pair in of_part)) for of_part in per_part]
        else:
            assert x_hat is not None
            hats = zip(x_hat.xr.split(size), x_hat.xf.split(size), strict=True)
            fixed = [Fixed(adversarial=pair) for pair in hats]
            if config.power_iterations == "per_forward":  # the attack's calls have advanced u
                buffers = {**buffers, **weights.buffers()}

    results = [
        step(D, spec, trainable, frozen, buffers, part, None, given, of_inputs)
        for part, given in zip(parts, fixed, strict=True)
    ]
    return _combined(results, [part.xr.shape[0] / x.xr.shape[0] for part in parts], of_inputs, info)


def _attack_by_parts(
    D: nn.Module,
    spec: StepSpec,
    weights: Weights,
    x: Inputs,
    size: int,
    attack_pass: Callable[..., Pass],
    keep_x_hat: bool,
) -> tuple[Inputs | None, list[Pair], dict[str, Any]]:
    """``functional.run_attack`` over parts: x_hat if it is to be kept, the signs (m,) of each step, and info."""
    config, once = spec.config, spec.config.power_iterations == "once"
    x = x.detached()

    def over_parts(of_sides: tuple[Tensors, Tensors], with_grads: bool) -> Pass:
        passes = [attack_pass(D, spec, of_sides, part, with_grads) for part in split(x, size)]
        logits = Pair(torch.cat([p[0].real for p in passes]), torch.cat([p[0].fake for p in passes]))
        grads = [[g for p in passes if (g := p[1][i]) is not None] for i in (0, 1)]
        return logits, (torch.cat(grads[0]) if grads[0] else None, torch.cat(grads[1]) if grads[1] else None)

    first = weights.next(False)
    of_sides = (first, first if once else weights.next(False))
    clean = None if once else over_parts(of_sides, False)[0]
    targets: Pair | None = None
    signs: list[Pair] = []
    info: dict[str, Any] = {}
    for k in range(config.steps):
        if not once:  # an advance of u for each side that is attacked, fakes first
            of_fake = weights.next(False) if config.fake else of_sides[1]
            of_sides = (weights.next(False) if config.real else of_sides[0], of_fake)
        move_on = keep_x_hat or k + 1 < config.steps
        logits, grads = over_parts(of_sides, move_on)
        clean = logits if clean is None else clean
        sign, seeded, targets = decide(spec, clean, logits, targets)
        signs.append(sign)
        if move_on:
            sides = Linearised(logits, {}, lambda _, grads=grads: grads)  # type: ignore[misc]
            moves = attack_moves(spec, sides, sign, seeded)
            of_first_step = spec.with_info and keep_x_hat and k == 0
            if of_first_step:
                info = attack_info(spec, sides, moves)
            x, measured = perturbed(config, x, moves, measure=of_first_step)
            info |= measured
    assert clean is not None
    if spec.with_info:
        info |= {"clean_logits_real": clean.real, "clean_logits_fake": clean.fake}
    return (x if keep_x_hat else None), signs, info


def _combined(
    results: list[StepResult], shares: list[float], of_inputs: tuple[str, ...], known: dict[str, Any]
) -> StepResult:
    """Results of parts as that of the whole: means of losses and gradients by share, samples one after another.

    ``known`` are the fields of DATInfo that only the whole batch tells.
    """
    loss = torch.stack([r.loss * share for r, share in zip(results, shares, strict=True)]).sum()
    names = [name for name in results[0].grads if name not in of_inputs]
    grads = {name: torch.zeros_like(results[0].grads[name]) for name in names}
    for result, share in zip(results, shares, strict=True):
        if names:
            torch._foreach_add_(list(grads.values()), [result.grads[name] for name in names], alpha=share)
    for name in of_inputs:
        grads[name] = torch.cat([r.grads[name] * share for r, share in zip(results, shares, strict=True)])
    info: dict[str, Any] = {}
    for key, value in results[0].info.items():
        values = [r.info[key] for r in results]
        if key == "aux":
            info[key] = tuple(
                tuple(torch.cat(extras) for extras in zip(*of_side, strict=True))
                for of_side in zip(*values, strict=True)
            )
        elif value.ndim > 0:
            info[key] = torch.cat(values)
        else:
            power = 2 if key.startswith("delta_rms") else 1
            info[key] = sum(v**power * share for v, share in zip(values, shares, strict=True)) ** (1 / power)
    return StepResult(loss, grads, results[0].buffers, {**info, **known})
