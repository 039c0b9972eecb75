"""D as a function of its tensors: called, and linearised at its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastdat.engine.features import Capture
from fastdat.engine.types import Args, AuxLoss, Batch, Sides, SideWeights, StepSpec, Tensors
from fastdat.regularizers.term import Pair

Found = TypeVar("Found")

# --- called --------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """One call of D: logits (n,) in fp32 or wider, its further outputs, the buffers it moved, and what was captured."""

    logits: Tensor
    extras: Args
    buffers: Tensors
    features: Args = ()


def split_outputs(out: Any) -> tuple[Tensor, Args]:
    """D's output as logits (n,) in fp32 or wider, and the further outputs."""
    logits, extras = (out[0], tuple(out[1:])) if isinstance(out, (tuple, list)) else (out, ())
    if logits.ndim == 2:
        logits = logits.squeeze(1)
    elif logits.ndim == 0:  # one sample, from a D that ends with squeeze()
        logits = logits.reshape(1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, extras


def call(
    D: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    x: Tensor,
    args: Args,
    captures: tuple[Capture, ...] = (),
) -> Call:
    """D(x, *args) with these tensors in place of its own; D's own tensors stay as they are."""
    given = {**weights, **_copies(buffers)}
    out = torch.func.functional_call(D, given, (x, *args), tie_weights=False)
    moved = {name: given[name] for name in buffers}  # a new tensor where D has assigned one
    return Call(*split_outputs(out), moved, tuple([capture.take() for capture in captures]))


def _halves(joined: Call) -> tuple[Call, Call]:
    """A call on real then fake as two."""
    (of_real, of_fake), *extras = [part.chunk(2) for part in (joined.logits, *joined.extras)]
    features = [part.chunk(2) for part in joined.features]
    real = Call(of_real, tuple(r for r, _ in extras), {}, tuple(r for r, _ in features))
    return real, Call(of_fake, tuple(f for _, f in extras), {}, tuple(f for _, f in features))


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
        real, fake = _halves(call(D, of_real, {}, *batch.joined(), spec.captures))
        return real, fake, {}
    if fake_first:
        fake = call(D, of_fake, buffers, batch.xf, batch.args_fake, spec.captures)
        real = call(D, of_real, fake.buffers, batch.xr, batch.args_real, spec.captures)
        return real, fake, real.buffers
    real = call(D, of_real, buffers, batch.xr, batch.args_real, spec.captures)
    fake = call(D, of_fake, real.buffers, batch.xf, batch.args_fake, spec.captures)
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
    return _held(D, tensors, function, *args)[0]


def _held(
    D: nn.Module, tensors: Tensors, function: Callable[..., Found], *args: Any
) -> tuple[Found, Tensors]:
    """As ``holding``, and the tensors as the function leaves them: new ones where it has assigned them."""
    named = {f"D.{name}": tensor for name, tensor in tensors.items()}
    found: Found = torch.func.functional_call(_Holder(D), named, (function, *args), tie_weights=False)
    return found, {name: named[f"D.{name}"] for name in tensors}


def call_aux(
    D: nn.Module, aux_loss: AuxLoss, weights: Tensors, buffers: Tensors, batch: Batch
) -> tuple[Tensor, Tensors]:
    """``aux_loss(D, xr, xf)`` with these tensors in place of D's own, and the buffers it moved."""
    value, after = _held(D, {**weights, **_copies(buffers)}, aux_loss, batch.xr, batch.xf)
    return value, {name: after[name] for name in buffers}


def _copies(buffers: Tensors) -> Tensors:
    return {name: buffer.clone() for name, buffer in buffers.items()}


# --- linearised ----------------------------------------------------------------------------------------------------


Seeds = tuple[Tensor | None, Tensor | None]
"""Seeds (n,) a side; None for a side whose gradient is not wanted."""


class Linearised(NamedTuple):
    """D on both sides, ready for vector-Jacobian products with respect to its inputs."""

    calls: tuple[Call, Call]
    """On real and on fake."""
    buffers: Tensors
    """As both calls leave them."""
    pull: Callable[[Seeds], tuple[Tensor | None, Tensor | None]]
    """Seeds -> gradient (n, ...) of ``seeds @ logits`` a side; None for a side without seeds. It can be differentiated
    where grad mode is on."""
    pull_both: Callable[[Tensor], Tensor] | None = None
    """Seeds (2n,), real then fake -> gradient (2n, ...), where both sides went through one call of D."""

    @property
    def logits(self) -> Pair:
        """(n,) a side."""
        return Pair(self.calls[0].logits, self.calls[1].logits)


class WholeBatchD:
    """D evaluated on a whole batch at once.

    Args:
        D: the discriminator, its spectral norm bypassed.
        spec: of the step.
        buffers: the moving buffers, before the call.
        in_eval_mode: D is called in evaluation mode.
    """

    def __init__(self, D: nn.Module, spec: StepSpec, buffers: Tensors, in_eval_mode: bool = False) -> None:
        self._D, self._spec, self._buffers, self._in_eval_mode = D, spec, buffers, in_eval_mode

    def logits(self, weights: SideWeights, batch: Batch) -> tuple[Pair, Tensors]:
        """Logits (m,) a side, and the buffers that the two calls moved."""
        real, fake, moved = call_both(self._D, self._spec, weights, self._buffers, batch)
        return Pair(real.logits, fake.logits), moved

    def linearise(
        self,
        weights: SideWeights,
        batch: Batch,
        sides: Sides,
        known: Pair | None = None,
        needs_gradient: bool = True,
        apart: bool = False,
    ) -> Linearised:
        """D linearised at the samples of these ``sides``. The other side's logits are ``known``, or computed.

        Args:
            weights: of the two calls.
            batch: where.
            sides: whose gradients are wanted.
            known: logits (m,) of a side that is none of them.
            needs_gradient: not used; the gradient costs nothing until ``pull`` is called.
            apart: call D on each side alone, since only one of the gradients is differentiated: in a joint call the
                zeros of the other half would be computed, too.
        """
        with _mode(self._D, self._in_eval_mode):
            if self._spec.joint and all(sides) and not apart:
                return _linearise_joint(self._D, self._spec, weights[0], batch)
            return self._linearise_apart(weights, batch, sides, known)

    def _linearise_apart(
        self, weights: SideWeights, batch: Batch, wanted: Sides, known: Pair | None
    ) -> Linearised:
        D, buffers = self._D, self._buffers
        pullbacks: list[Any] = [None, None]
        calls: list[Call] = []
        sides = ((batch.xr, batch.args_real, wanted.real), (batch.xf, batch.args_fake, wanted.fake))
        for i, (x, args, is_wanted) in enumerate(sides):
            if is_wanted:
                of_side, pullbacks[i] = vjp(D, self._spec, weights[i], buffers, x, args)
            elif known is not None:
                of_side = Call(known[i], (), buffers)
            else:
                of_side = call(D, weights[i], buffers, x, args, self._spec.captures)
            buffers = of_side.buffers
            calls.append(of_side)

        def pull(seeds: Seeds) -> tuple[Tensor | None, Tensor | None]:
            pairs = zip(pullbacks, seeds, strict=True)
            real, fake = (None if back is None or seed is None else back(seed)[0] for back, seed in pairs)
            return real, fake

        return Linearised((calls[0], calls[1]), buffers, pull)


@contextmanager
def _mode(D: nn.Module, in_eval_mode: bool) -> Iterator[None]:
    """D in evaluation mode, if wanted, and as it was afterwards."""
    if not in_eval_mode:
        yield
        return
    training = [module for module in D.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _linearise_joint(D: nn.Module, spec: StepSpec, weights: Tensors, batch: Batch) -> Linearised:
    """Both sides in one call of D."""
    joined, pullback = vjp(D, spec, weights, {}, *batch.joined())

    def pull_both(seeds: Tensor) -> Tensor:
        gradient: Tensor = pullback(seeds)[0]
        return gradient

    def pull(seeds: Seeds) -> tuple[Tensor | None, Tensor | None]:
        one = next(seed for seed in seeds if seed is not None)
        both = torch.cat([torch.zeros_like(one) if seed is None else seed for seed in seeds])
        real, fake = pull_both(both).chunk(2)
        return None if seeds[0] is None else real, None if seeds[1] is None else fake

    return Linearised(_halves(joined), {}, pull, pull_both)


def vjp(
    D: nn.Module, spec: StepSpec, weights: Tensors, buffers: Tensors, x: Tensor, args: Args
) -> tuple[Call, Any]:
    """The call, and the function from seeds (n,) to the gradient (n, ...) for x in a tuple."""
    if not spec.traced:
        return _autograd_vjp(D, spec, weights, buffers, x, args)

    def logits_of(x: Tensor) -> tuple[Tensor, tuple[Args, Tensors, Args]]:
        logits, extras, moved, features = call(D, weights, buffers, x, args, spec.captures)
        return logits, (extras, moved, features)

    logits, pullback, others = torch.func.vjp(logits_of, x, has_aux=True)  # type: ignore[misc]
    return Call(logits, *others), pullback


def _autograd_vjp(
    D: nn.Module, spec: StepSpec, weights: Tensors, buffers: Tensors, x: Tensor, args: Args
) -> tuple[Call, Any]:
    """``vjp`` by autograd, in any grad mode. What will not be differentiated further keeps no graph alive."""
    differentiated = x.requires_grad or any(weight.requires_grad for weight in weights.values())
    # By the move, and by the measurements or the terms, which want other seeds.
    pulled_twice = (spec.with_info or bool(spec.terms)) and not spec.independent
    at = x if x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad():
        found = call(D, weights, buffers, at, args, spec.captures)

    def gradient(_: nn.Module, seeds: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            found.logits,
            at,
            seeds,
            create_graph=differentiated and torch.is_grad_enabled(),
            retain_graph=differentiated or pulled_twice,
            allow_unused=True,
            materialize_grads=True,
        )

    def pullback(seeds: Tensor) -> tuple[Tensor, ...]:
        if not found.logits.requires_grad:  # D lets no gradient through
            return (torch.zeros_like(at),)
        # Activation checkpointing runs parts of D again, which then has to hold what it held in this call.
        return holding(D, {**weights, **_copies(buffers)}, gradient, seeds)

    if differentiated:
        return found, pullback
    constant: Call = tree_map_only(Tensor, Tensor.detach, found)
    return constant, pullback
