"""D as a function of its tensors: called, and linearised at its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastdat.engine.types import Args, AuxLoss, Batch, Pair, SideWeights, StepSpec, Tensors

Found = TypeVar("Found")

# --- called --------------------------------------------------------------------------------------------------------


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
    """D(x, *args) with these tensors in place of its own; D's own tensors stay as they are."""
    moved = _copies(buffers)
    out = torch.func.functional_call(D, {**weights, **moved}, (x, *args), tie_weights=False)
    return Call(*split_outputs(out), moved)


def call_both(
    D: nn.Module,
    spec: StepSpec,
    weights: SideWeights,
    buffers: Tensors,
    batch: Batch,
    fake_first: bool = False,
) -> tuple[Call, Call, Tensors]:
    """D on real and on fake, in one call where that gives the same result, and the buffers after both."""
    of_real, of_fake = weights
    if spec.joint:
        logits, extras, _ = call(D, of_real, {}, *batch.joined())
        (logits_real, logits_fake), *halves = [part.chunk(2) for part in (logits, *extras)]
        real = Call(logits_real, tuple(r for r, _ in halves), {})
        return real, Call(logits_fake, tuple(f for _, f in halves), {}), {}
    if fake_first:
        fake = call(D, of_fake, buffers, batch.xf, batch.args_fake)
        real = call(D, of_real, fake.buffers, batch.xr, batch.args_real)
        return real, fake, real.buffers
    real = call(D, of_real, buffers, batch.xr, batch.args_real)
    fake = call(D, of_fake, real.buffers, batch.xf, batch.args_fake)
    return real, fake, fake.buffers


class _Holder(nn.Module):
    """Lets ``functional_call`` run a function of D: the function gets D while D's tensors are replaced."""

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        self.D = D

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(self.D, *args)


def holding(D: nn.Module, tensors: Tensors, function: Callable[..., Found], *args: Any) -> Found:
    """``function(D, *args)`` with these tensors in place of D's own; D's own tensors stay as they are."""
    named = {f"D.{name}": tensor for name, tensor in tensors.items()}
    found: Found = torch.func.functional_call(_Holder(D), named, (function, *args), tie_weights=False)
    return found


def call_aux(
    D: nn.Module, aux_loss: AuxLoss, weights: Tensors, buffers: Tensors, batch: Batch
) -> tuple[Tensor, Tensors]:
    """``aux_loss(D, xr, xf)`` with these tensors in place of D's own, and the buffers it moved."""
    moved = _copies(buffers)
    return holding(D, {**weights, **moved}, aux_loss, batch.xr, batch.xf), moved


def _copies(buffers: Tensors) -> Tensors:
    return {name: buffer.clone() for name, buffer in buffers.items()}


# --- linearised ----------------------------------------------------------------------------------------------------


class Linearised(NamedTuple):
    """D on both sides, ready for vector-Jacobian products with respect to its inputs."""

    logits: Pair
    buffers: Tensors
    pull: Callable[[Pair], tuple[Tensor | None, Tensor | None]]
    """Seeds (n,) a side -> gradient (n, ...) of ``seeds @ logits``; None for a side that is not attacked."""
    pull_both: Callable[[Tensor], Tensor] | None = None
    """Seeds (2n,), real then fake -> gradient (2n, ...), where both sides went through one call of D."""


class WholeBatchD:
    """D evaluated on a whole batch at once.

    Args:
        D: the discriminator, its spectral norm bypassed.
        spec: of the step.
        buffers: the moving buffers, before the call.
    """

    def __init__(self, D: nn.Module, spec: StepSpec, buffers: Tensors) -> None:
        self._D, self._spec, self._buffers = D, spec, buffers

    def logits(self, weights: SideWeights, batch: Batch) -> tuple[Pair, Tensors]:
        """Logits (m,) a side, and the buffers that the two calls moved."""
        real, fake, moved = call_both(self._D, self._spec, weights, self._buffers, batch)
        return Pair(real.logits, fake.logits), moved

    def linearise(
        self, weights: SideWeights, batch: Batch, known: Pair | None = None, needs_gradient: bool = True
    ) -> Linearised:
        """D linearised at the samples of the attacked sides. The other side's logits are ``known``, or computed.

        ``needs_gradient`` is not used: the gradient costs nothing until ``pull`` is called.
        """
        D, config, buffers = self._D, self._spec.config, self._buffers
        if self._spec.joint and config.real and config.fake:
            return _linearise_joint(D, self._spec, weights[0], batch)
        pullbacks: list[Any] = [None, None]
        logits: list[Tensor] = []
        sides = ((batch.xr, batch.args_real, config.real), (batch.xf, batch.args_fake, config.fake))
        for i, (x, args, attacked) in enumerate(sides):
            if attacked:
                of_side, buffers, pullbacks[i] = _vjp(D, self._spec, weights[i], buffers, x, args)
            elif known is not None:
                of_side = known[i]
            else:
                of_side, _, buffers = call(D, weights[i], buffers, x, args)
            logits.append(of_side)

        def pull(seeds: Pair) -> tuple[Tensor | None, Tensor | None]:
            pairs = zip(pullbacks, seeds, strict=True)
            real, fake = (None if back is None else back(seed)[0] for back, seed in pairs)
            return real, fake

        return Linearised(Pair(*logits), buffers, pull)


def _linearise_joint(D: nn.Module, spec: StepSpec, weights: Tensors, batch: Batch) -> Linearised:
    """Both sides in one call of D."""
    logits, _, pullback = _vjp(D, spec, weights, {}, *batch.joined())

    def pull_both(seeds: Tensor) -> Tensor:
        gradient: Tensor = pullback(seeds)[0]
        return gradient

    def pull(seeds: Pair) -> tuple[Tensor | None, Tensor | None]:
        real, fake = pull_both(torch.cat(list(seeds))).chunk(2)
        return real, fake

    return Linearised(Pair(*logits.chunk(2)), {}, pull, pull_both)


def _vjp(
    D: nn.Module, spec: StepSpec, weights: Tensors, buffers: Tensors, x: Tensor, args: Args
) -> tuple[Tensor, Tensors, Any]:
    """Logits (n,), the buffers moved, and the function from seeds (n,) to the gradient (n, ...) for x in a tuple."""
    if not spec.traced:
        return _autograd_vjp(D, spec, weights, buffers, x, args)

    def logits_of(x: Tensor) -> tuple[Tensor, Tensors]:
        logits, _, moved = call(D, weights, buffers, x, args)
        return logits, moved

    logits, pullback, moved = torch.func.vjp(logits_of, x, has_aux=True)  # type: ignore[misc]
    return logits, moved, pullback


def _autograd_vjp(
    D: nn.Module, spec: StepSpec, weights: Tensors, buffers: Tensors, x: Tensor, args: Args
) -> tuple[Tensor, Tensors, Any]:
    """``_vjp`` by autograd, in any grad mode. What will not be differentiated further keeps no graph alive."""
    differentiated = x.requires_grad or any(weight.requires_grad for weight in weights.values())
    pulled_twice = spec.with_info and not spec.independent  # by the move and by the measurements
    at = x if x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad():
        logits, _, moved = call(D, weights, buffers, at, args)

    def gradient(_: nn.Module, seeds: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            logits,
            at,
            seeds,
            create_graph=differentiated and spec.config.second_order,
            retain_graph=differentiated or pulled_twice,
            allow_unused=True,
            materialize_grads=True,
        )

    def pullback(seeds: Tensor) -> tuple[Tensor, ...]:
        if not logits.requires_grad:  # D lets no gradient through
            return (torch.zeros_like(at),)
        # Activation checkpointing runs parts of D again, which then has to hold what it held in this call.
        return holding(D, {**weights, **_copies(buffers)}, gradient, seeds)

    return logits if differentiated else logits.detach(), moved, pullback
