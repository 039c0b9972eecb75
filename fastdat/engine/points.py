"""``Points`` for the terms of the loss: D at the points of a step, each pass through it made once for all terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor, nn

from fastdat.engine.attack import clean_sides, is_one_sided
from fastdat.engine.discriminator import Call, Linearised, Seeds, WholeBatchD, call, call_both, vjp
from fastdat.engine.types import Args, Batch, StepSpec, Tensors
from fastdat.engine.weights import Weights
from fastdat.losses import AnyLoss, loss_slopes
from fastdat.regularizers.term import SIDES, Bounds, Needs, Pair, Side, Term


class Reductions:
    """What one term takes of the whole batch, in the order in which it asks.

    Args:
        spec: of the step.
        given: the answers, where this batch is a part of the one that decides them.
    """

    def __init__(self, spec: StepSpec, given: tuple[Tensor, ...] | None) -> None:
        self._spec, self._given = spec, given
        self.asked: list[tuple[str, Tensor]] = []
        """``"sum"`` or ``"max"``, and the value of the samples here."""

    def of(self, kind: str, here: Tensor) -> Tensor:
        """The sum or the maximum of ``here`` over all parts and ranks; a constant."""
        here = here.detach()
        self.asked.append((kind, here))
        if self._given is not None:
            return self._given[len(self.asked) - 1]
        return reduced(self._spec, kind, here)


def reduced(spec: StepSpec, kind: str, here: Tensor) -> Tensor:
    """The sum or the maximum of ``here`` over the ranks that share the batch."""
    if spec.group is None:
        return here
    everywhere: Tensor = collectives.wait_tensor(collectives.all_reduce(here, kind, spec.group))
    return everywhere


class Ways(NamedTuple):
    """What a step has computed already, and how it calls D."""

    D: nn.Module
    spec: StepSpec
    weights: Weights
    moving: Tensors
    """The moving buffers, before the step."""
    batch: Batch
    """The clean samples."""
    updates: tuple[Call, Call]
    """The calls that the loss contains."""
    clean_calls: tuple[Call, Call] | None
    """D at the clean samples, where the step has been there."""
    at_clean: Linearised | None
    """The same, ready for input gradients."""
    gradients: Seeds
    """``dD/dx`` at the clean samples, where it is known."""


class StepPoints:
    """The points of one step, as ``Points`` describes them.

    Args:
        ways: what there is already.
        given: of each term, the answers of the whole batch (``FromWholeBatch.reductions``).
    """

    def __init__(self, ways: Ways, given: tuple[tuple[Tensor, ...], ...] = ()) -> None:
        self._ways = ways
        self._calls, self._at_clean = ways.clean_calls, ways.at_clean
        self._gradients: list[Tensor | None] = list(ways.gradients)
        self._loss_gradient: Pair | None = None
        self._given = given
        self._term: Term | None = None
        self._reductions = Reductions(ways.spec, None)

    # --- whose turn it is ---

    def begin(self, number: int, term: Term) -> Reductions:
        """From now on the points are those of this term."""
        self._term = term
        self._reductions = Reductions(self._ways.spec, self._given[number] if self._given else None)
        return self._reductions

    @property
    def _needs(self) -> Needs:
        return Needs() if self._term is None else self._term.needs

    def _check(self, is_named: bool, what: str, need: str) -> None:
        """A step keeps only what its terms need: the rest may be missing, or be a constant."""
        if not is_named and self._term is not None:
            raise TypeError(
                f"the regularizer {self._term.name} takes {what}, which its `needs` does not name: Needs({need})"
            )

    # --- of the step ---

    @property
    def x(self) -> Pair:
        return Pair(self._ways.batch.xr, self._ways.batch.xf)

    @property
    def bounds(self) -> Bounds:
        return self._ways.spec.config.bounds

    @property
    def loss(self) -> AnyLoss:
        return self._ways.spec.loss

    @property
    def count(self) -> int:
        return self._ways.spec.batch

    def extras(self) -> tuple[Pair, ...]:
        self._check(self._needs.extras, "D's further outputs", "extras=True")
        real, fake = self._ways.updates
        return tuple(Pair(r, f) for r, f in zip(real.extras, fake.extras, strict=True))

    # --- at the clean samples ---

    def logits(self) -> Pair:
        self._check(self._needs.logits, "the clean logits", "logits=True")
        return self._logits()

    def features(self, path: str) -> Pair:
        return self._features(path, self._clean_calls())

    def gradient(self, side: Side) -> Tensor:
        self._check(side in self._needs.gradient, "the clean input gradient", f'gradient=("{side}",)')
        return self._gradient(SIDES.index(side))

    def loss_gradient(self) -> Pair:
        self._check(self._needs.loss_gradient, "the input gradient of D's loss", "loss_gradient=True")
        if self._loss_gradient is None:
            slopes = self.loss_slopes(Pair(*[logits.detach() for logits in self._logits()]))
            if self._ways.spec.independent:
                found: Sequence[Tensor | None] = [
                    slope.reshape(-1, *(1,) * (g.ndim - 1)) * g
                    for slope, g in zip(slopes, [self._gradient(i).detach() for i in (0, 1)], strict=True)
                ]
            else:
                with torch.no_grad():
                    found = self._linearised().pull((slopes.real, slopes.fake))
            self._loss_gradient = Pair(*[_wide(g).detach() / self.count for g in found])
        return self._loss_gradient

    def loss_slopes(self, logits: Pair) -> Pair:
        return Pair(*loss_slopes(self.loss, *logits))

    def _logits(self) -> Pair:
        real, fake = self._clean_calls()
        return Pair(real.logits, fake.logits)

    def _gradient(self, i: int) -> Tensor:
        """``d(sum_j D(x_j)) / dx`` of side ``i``, taken once; differentiable where a term differentiates it."""
        if self._gradients[i] is None:
            linearised, needed = self._linearised(), self._ways.spec.needs.gradient
            one = torch.ones_like(linearised.logits[i])
            at_once = linearised.pull_both is not None
            seeds = (one if at_once or i == 0 else None, one if at_once or i == 1 else None)
            differentiates = any(needed) if at_once else needed[i]
            with torch.set_grad_enabled(torch.is_grad_enabled() and differentiates):
                found = linearised.pull(seeds)
            self._gradients = [
                new if old is None else old for old, new in zip(self._gradients, found, strict=True)
            ]
        return _wide(self._gradients[i])

    def _linearised(self) -> Linearised:
        if self._at_clean is None:
            D, spec, weights, moving, batch, *_ = self._ways
            discriminator = WholeBatchD(D, spec, moving)
            of_sides = (weights.next(True), weights.next(True))
            self._at_clean = discriminator.linearise(
                of_sides, batch, clean_sides(spec), apart=is_one_sided(spec)
            )
            self._calls = self._at_clean.calls
        return self._at_clean

    def _clean_calls(self) -> tuple[Call, Call]:
        if self._calls is None:
            needs = self._ways.spec.needs
            if any(needs.gradient) or needs.loss_gradient:
                return self._linearised().calls
            D, spec, weights, moving, batch, *_ = self._ways
            real, fake, _ = call_both(D, spec, (weights.next(True), weights.next(True)), moving, batch)
            self._calls = (real, fake)
        return self._calls

    # --- at other samples ---

    def call(self, xr: Tensor, xf: Tensor) -> Pair:
        real, fake = self._called(xr, xf)
        return Pair(real.logits, fake.logits)

    def features_at(self, path: str, xr: Tensor, xf: Tensor) -> Pair:
        return self._features(path, self._called(xr, xf))

    def call_side(self, side: Side, x: Tensor) -> Tensor:
        D, spec, weights, moving, *_ = self._ways
        return call(D, weights.next(True), moving, x, self._args(side), spec.captures).logits

    def gradient_at(self, side: Side, x: Tensor) -> Tensor:
        self._check(self._needs.second_order, "an input gradient that is differentiated", "second_order=True")
        return self.linearised_at(side, x)[1]

    def linearised_at(
        self, side: Side, x: Tensor, seeds: Callable[[Tensor], Tensor] = torch.ones_like
    ) -> tuple[Tensor, Tensor]:
        D, spec, weights, moving, *_ = self._ways
        found, pullback = vjp(D, spec, weights.next(True), moving, x, self._args(side))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._needs.second_order):
            gradient = _wide(pullback(seeds(found.logits.detach()))[0])
        return found.logits, gradient if self._needs.second_order else gradient.detach()

    def _called(self, xr: Tensor, xf: Tensor) -> tuple[Call, Call]:
        D, spec, weights, moving, batch, *_ = self._ways
        of_sides = (weights.next(True), weights.next(True))
        real, fake, _ = call_both(D, spec, of_sides, moving, batch.replaced(xr, xf))
        return real, fake

    def _args(self, side: Side) -> Args:
        batch = self._ways.batch
        return batch.args_real if side == "real" else batch.args_fake

    def _features(self, path: str, calls: tuple[Call, Call]) -> Pair:
        self._check(self._needs.features == path, f"the output of {path!r}", f'features="{path}"')
        number = [capture.path for capture in self._ways.spec.captures].index(path)
        real, fake = (_wide(one.features[number]) for one in calls)
        return Pair(real, fake)

    # --- over the whole batch ---

    def total(self, values: Tensor) -> Tensor:
        return self._reduce("sum", values.sum(0))

    def mean(self, values: Tensor) -> Tensor:
        return self.total(values) / self.count

    def greatest(self, values: Tensor) -> Tensor:
        return self._reduce("max", values.max())

    def as_total(self, total: Tensor, here: Tensor) -> Tensor:
        count = self._ways.batch.xr.shape[0]
        if count == self.count:
            return total.detach() + (here - here.detach())
        return total.detach() + (self.count / count) * (here - here.detach())

    def _reduce(self, kind: str, here: Tensor) -> Tensor:
        if self._term is not None and not self._term.couples:
            raise TypeError(
                f"the regularizer {self._term.name} joins the samples of a batch (Points.total, mean or greatest), but "
                "its `couples` is False: set couples = True in its class"
            )
        return self._reductions.of(kind, here)


def _wide(tensor: Tensor | None) -> Tensor:
    """In fp32 or wider."""
    assert tensor is not None
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
