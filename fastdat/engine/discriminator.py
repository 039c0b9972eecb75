"""D as a function of its tensors: called, linearised, and given its weights call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastdat.engine.spectral.normalise import dtype_under_autocast, normalise
from fastdat.engine.types import Args, AuxLoss, Inputs, Pair, StepSpec, Tensors


class Call(NamedTuple):
    """One call of D: logits (n,) in fp32 or wider, its further outputs, and the buffers it moved."""

    logits: Tensor
    extras: Args
    buffers: Tensors


def split_outputs(out: Any) -> tuple[Tensor, Args]:
    """D's output as logits (n,) in fp32 or wider, and the further outputs."""
    logits, extras = (out[0], tuple(out[1:])) if isinstance(out, (tuple, list)) else (out, ())
    if logits.ndim == 2:
        logits = logits.squeeze(1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, extras


def call(D: nn.Module, weights: Tensors, buffers: Tensors, x: Tensor, args: Args) -> Call:
    """D(x, *args) with these tensors in place of its own, of which none is moved."""
    moved = {name: buffer.clone() for name, buffer in buffers.items()}
    out = torch.func.functional_call(D, {**weights, **moved}, (x, *args), tie_weights=False)
    return Call(*split_outputs(out), moved)


def call_both(
    D: nn.Module,
    spec: StepSpec,
    weights: tuple[Tensors, Tensors],
    buffers: Tensors,
    x: Inputs,
    fake_first: bool = False,
) -> tuple[Call, Call, Tensors]:
    """D on real and on fake, in one call where that is the same thing, and the buffers after both."""
    if spec.joint:
        logits, extras, _ = call(D, weights[0], {}, *x.joined())
        halves = [part.chunk(2) for part in (logits, *extras)]
        (lr, lf), *parts = halves
        return Call(lr, tuple(r for r, _ in parts), {}), Call(lf, tuple(f for _, f in parts), {}), {}
    if fake_first:
        fake = call(D, weights[1], buffers, x.xf, x.args_fake)
        real = call(D, weights[0], fake.buffers, x.xr, x.args_real)
        return real, fake, real.buffers
    real = call(D, weights[0], buffers, x.xr, x.args_real)
    fake = call(D, weights[1], real.buffers, x.xf, x.args_fake)
    return real, fake, fake.buffers


class Linearised(NamedTuple):
    """D on both sides, ready for vector-Jacobian products with respect to its inputs."""

    logits: Pair
    buffers: Tensors
    pull: Callable[[Pair], tuple[Tensor | None, Tensor | None]]
    """Seeds (n,) a side -> gradient (n, ...) of ``seeds @ logits``; None for a side that is not attacked."""
    pull_both: Callable[[Tensor], Tensor] | None = None
    """Seeds (2n,), real then fake -> gradient (2n, ...), where both sides went through one call of D."""


def linearise(
    D: nn.Module,
    spec: StepSpec,
    weights: tuple[Tensors, Tensors],
    buffers: Tensors,
    x: Inputs,
    known: Pair | None = None,
) -> Linearised:
    """D linearised at x on the attacked sides. The other side's logits are ``known``, or else computed."""

    def at(weights: Tensors, buffers: Tensors, x: Tensor, args: Args) -> tuple[Tensor, Tensors, Any]:
        def logits_of(x: Tensor) -> tuple[Tensor, Tensors]:
            logits, _, moved = call(D, weights, buffers, x, args)
            return logits, moved

        logits, pullback, moved = torch.func.vjp(logits_of, x, has_aux=True)  # type: ignore[misc]
        return logits, moved, pullback

    config = spec.config
    if spec.joint and config.real and config.fake:
        logits, _, pullback = at(weights[0], {}, *x.joined())

        def pull_both(seeds: Tensor) -> Tensor:
            gradient: Tensor = pullback(seeds)[0]
            return gradient

        def pull_joint(seeds: Pair) -> tuple[Tensor | None, Tensor | None]:
            real, fake = pull_both(torch.cat(seeds)).chunk(2)
            return real, fake

        return Linearised(Pair(*logits.chunk(2)), {}, pull_joint, pull_both)

    pullbacks: list[Any] = []
    logits_of_sides: list[Tensor] = []
    sides = ((x.xr, x.args_real, config.real), (x.xf, x.args_fake, config.fake))
    for i, (samples, args, attacked) in enumerate(sides):
        if attacked:
            logits, buffers, pullback = at(weights[i], buffers, samples, args)
            pullbacks.append(pullback)
        else:
            pullbacks.append(None)
            if known is not None:
                logits = known[i]
            else:
                logits, _, buffers = call(D, weights[i], buffers, samples, args)
        logits_of_sides.append(logits)

    def pull(seeds: Pair) -> tuple[Tensor | None, Tensor | None]:
        real, fake = (
            back(seed)[0] if back is not None else None for back, seed in zip(pullbacks, seeds, strict=True)
        )
        return real, fake

    return Linearised(Pair(*logits_of_sides), buffers, pull)


class Weights:
    """D's weights, spectrally normalised, call by call: u advances once a step, or in every call."""

    def __init__(self, spec: StepSpec, params: Tensors, buffers: Tensors, in_full: bool = False) -> None:
        """``in_full``: not in autocast's precision, for a function that may read the weights itself."""
        self._spec = spec
        names = dict(spec.aliases)
        self._params = {**params, **{alias: params[name] for alias, name in spec.aliases}}
        self._originals = [params[names.get(s.original, s.original)] for s in spec.spectral]
        self._states = [(buffers[s.u], buffers[s.v]) if s.u and s.v else None for s in spec.spectral]
        pairs = zip(spec.spectral, self._originals, strict=True)
        self._dtypes = [w.dtype if in_full else dtype_under_autocast(s, w) for s, w in pairs]
        self._last: tuple[Tensors, Tensors] | None = None

    def next(self, differentiable: bool) -> Tensors:
        """Weights of the next call of D, by name; constants unless ``differentiable``."""
        if self._last is None or self._spec.config.power_iterations == "per_forward":
            weights = self._advanced()
            self._last = weights, {name: weight.detach() for name, weight in weights.items()}
        return self._last[0 if differentiable else 1]

    def last(self) -> Tensors:
        """Weights of the last call of D, differentiable."""
        return self.next(True) if self._last is None else self._last[0]

    def _advanced(self) -> Tensors:
        specs = self._spec.spectral
        if not specs:
            return self._params
        normalised, self._states = normalise(specs, self._originals, self._states, self._dtypes)
        return {**self._params, **{s.target: w for s, w in zip(specs, normalised, strict=True)}}

    def buffers(self) -> Tensors:
        """u and v as they are now, by name, of the weights whose iteration runs."""
        moved: Tensors = {}
        for spec, state in zip(self._spec.spectral, self._states, strict=True):
            if spec.u and spec.v and spec.iterations and state is not None:
                moved[spec.u], moved[spec.v] = state
        return moved


class _Holder(nn.Module):
    """Gives a function of D the D whose tensors ``functional_call`` has put in place."""

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        self.D = D

    def forward(self, function: AuxLoss, xr: Tensor, xf: Tensor) -> Tensor:
        return function(self.D, xr, xf)


def call_aux(
    D: nn.Module, aux_loss: AuxLoss, weights: Tensors, buffers: Tensors, x: Inputs
) -> tuple[Tensor, Tensors]:
    """``aux_loss(D, xr, xf)`` with these tensors in place of D's own, of which none is moved."""
    moved = {name: buffer.clone() for name, buffer in buffers.items()}
    tensors = {f"D.{name}": tensor for name, tensor in {**weights, **moved}.items()}
    loss = torch.func.functional_call(_Holder(D), tensors, (aux_loss, x.xr, x.xf), tie_weights=False)
    return loss, moved
