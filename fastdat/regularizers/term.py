"""What a regularizer is: a term of D's loss, and what it may ask of a step.

A term says before the step what it needs (``needs``), draws its random numbers outside of the step's graph (``draws``),
and computes its value inside of it (``value``) from ``Points``: D at the points of the step, where the pass through the
clean samples and the input gradient are computed once, for the attack and for all terms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from fastdat.losses import AnyLoss

Side = Literal["real", "fake"]
SIDES: tuple[Side, Side] = ("real", "fake")
Bounds = tuple[float, float] | None
Tensors = dict[str, Tensor]


class Pair(NamedTuple):
    """One tensor a side."""

    real: Tensor
    fake: Tensor


@dataclass(frozen=True, slots=True)
class Needs:
    """What a term takes from a step. The engine keeps no more than that, and ``cost`` counts it."""

    logits: bool = False
    """Clean logits of both sides, which the term differentiates."""
    gradient: tuple[Side, ...] = ()
    """Sides whose clean input gradient the term differentiates (second order)."""
    loss_gradient: bool = False
    """The gradient of D's clean loss for the samples of both sides, as a constant."""
    features: str | None = None
    """Path in D of the submodule whose output the term sees."""
    extras: bool = False
    """D's further outputs in the calls that the loss contains."""
    second_order: bool = False
    """The term differentiates the input gradient of a call of its own."""
    own: float = 0.0
    """Cost of the term's own calls of D, forward and backward, in forward passes through D on real and fake (F)."""


class Points(Protocol):
    """D at the points of one step: on the whole batch, or on the part of it that is computed here (n samples a side).

    Logits and gradients are in fp32 or wider. All calls share D's spectral norm if the power iteration runs once a
    step; else each call advances it. Running statistics do not move. What ``total``, ``mean`` and ``greatest`` return
    are constants over the samples of all ranks and all parts.
    """

    @property
    def x(self) -> Pair:
        """The clean samples, (n, ...) a side."""
        ...

    @property
    def bounds(self) -> Bounds:
        """Range of the data, or None."""
        ...

    @property
    def loss(self) -> AnyLoss:
        """The loss of the step."""
        ...

    @property
    def count(self) -> int:
        """m: samples a side in the whole batch."""
        ...

    def logits(self) -> Pair:
        """Clean logits (n,) a side."""
        ...

    def gradient(self, side: Side) -> Tensor:
        """``d(sum_j D(x_j)) / dx`` (n, ...) at the clean samples of a side."""
        ...

    def loss_gradient(self) -> Pair:
        """``dL_D / dx`` (n, ...) a side at the clean samples, with the global means of the loss; a constant."""
        ...

    def extras(self) -> tuple[Pair, ...]:
        """D's further outputs (n, ...) in the calls that the loss contains."""
        ...

    def features(self, path: str) -> Pair:
        """Output (n, ...) of D's submodule ``path`` at the clean samples."""
        ...

    def call(self, xr: Tensor, xf: Tensor) -> Pair:
        """Logits (n,) at other samples (n, ...) with the same further arguments."""
        ...

    def call_side(self, side: Side, x: Tensor) -> Tensor:
        """Logits (n,) at other samples of one side."""
        ...

    def features_at(self, path: str, xr: Tensor, xf: Tensor) -> Pair:
        """Output of the submodule ``path`` at other samples."""
        ...

    def gradient_at(self, side: Side, x: Tensor) -> Tensor:
        """``d(sum_j D(x_j)) / dx`` (n, ...) at other samples, with the further arguments of a side; differentiable."""
        ...

    def linearised_at(
        self, side: Side, x: Tensor, seeds: Callable[[Tensor], Tensor] = torch.ones_like
    ) -> tuple[Tensor, Tensor]:
        """Logits (n,) at other samples of one side, and ``d(sum_j s_j D(x_j)) / dx`` (n, ...), from one call of D.

        ``seeds`` makes the constants ``s`` (n,) of the logits. A D with batch norm needs them: its gradient is not each
        sample's own. The gradient is a constant, unless the term's ``needs`` says ``second_order``.
        """
        ...

    def loss_slopes(self, logits: Pair) -> Pair:
        """``dL_i / dD`` (n,) a side of each sample's loss, without the mean."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """Sum of ``values`` (n, ...) over all ranks and parts along the samples; (...), a constant."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """Mean of ``values`` (n, ...) over the m samples of the whole batch; (...), a constant."""
        ...

    def greatest(self, values: Tensor) -> Tensor:
        """Greatest of ``values`` (n,) in the whole batch; a 0-dimensional constant."""
        ...

    def as_total(self, total: Tensor, here: Tensor) -> Tensor:
        """``total`` with the derivative of ``here`` (0-dimensional), the share of it that is computed here: the
        gradients of all parts and ranks then add up to that of the whole."""
        ...


class Term(ABC):
    """A term of D's loss. Subclasses are frozen dataclasses, or other objects that can be hashed and compared.

    The step adds ``weight * every * value(...)`` on its turns.
    """

    strength: ClassVar[str] = "weight"
    """The field that may be a 0-dimensional tensor, so that it may change from step to step without a new graph."""
    couples: ClassVar[bool] = False
    """Whether ``value`` takes ``total``, ``mean`` or ``greatest`` of its points, which join all parts and ranks."""
    rounds: ClassVar[int] = 1
    """How many of these answers depend on one another: where the second needs the first, 2. A batch in parts is gone
    through as often before the step."""
    in_full_precision: ClassVar[bool] = False
    """Whether the term is noise where D runs in half precision, or in TF32: such a step is refused in half precision,
    and computed without TF32."""
    every: int
    """The term is part of one step in ``every``, ``every`` times as strong."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in ``DATInfo.terms``, in configurations and records."""

    @property
    @abstractmethod
    def weight(self) -> float | Tensor:
        """The factor before ``value``."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the step has to provide."""

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        """Random numbers of one step by name, with one row a sample; made outside of the step's graph.

        Args:
            x: the samples, (m, ...) a side.
            generator: of torch, on the samples' device; None is torch's own.
        """
        return {}

    @abstractmethod
    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        """The term without its weight, 0-dimensional: the mean over the n samples of ``points``.

        What is not a mean over samples takes ``total``, ``mean``, ``greatest`` and ``as_total`` of ``points``, which
        know all parts and ranks; then ``couples`` must be true, and ``rounds`` says how far they depend on one another.

        Args:
            points: D at the points of the step.
            given: what ``draws`` made, and the tensors of ``state``.
        """

    def state(self) -> Tensors:
        """Tensors by name that a term keeps from step to step, such as running means."""
        return {}

    def advanced(self, points: Points, given: Mapping[str, Tensor]) -> Tensors:
        """The tensors of ``state`` after the step."""
        return {}


def check_strength(owner: str, field: str, value: Any) -> None:
    """Check the weight of a term.

    Raises:
        TypeError: neither a number nor a tensor.
        ValueError: negative, not finite, or a tensor of another shape.
    """
    expected = f"{owner}.{field} must be a number >= 0, or a 0-dimensional floating-point tensor"
    if isinstance(value, Tensor):
        if value.ndim != 0 or not value.is_floating_point() or value.requires_grad:
            raise ValueError(
                f"{expected} without requires_grad; got {value.dtype} of shape {tuple(value.shape)}"
                + (" with requires_grad" if value.requires_grad else "")
            )
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{expected}; got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{expected}; got {value!r}")


def squared_norm(gradient: Tensor) -> Tensor:
    """Sum of squares (n,) of each sample's elements, in fp32 or wider."""
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return wide.reshape(len(wide), -1).square().sum(1)


def norm(gradient: Tensor) -> Tensor:
    """2-norm (n,) of each sample, ``sqrt(squared_norm + 1e-12)``: its derivative is finite at zero."""
    return (squared_norm(gradient) + 1e-12).sqrt()


def unit(gradient: Tensor, eps: float) -> Tensor:
    """Each sample (n, ...) divided by its 2-norm plus ``eps``."""
    length = squared_norm(gradient).sqrt() + eps
    return gradient / length.reshape(-1, *(1,) * (gradient.ndim - 1))


def clipped(x: Tensor, bounds: Bounds) -> Tensor:
    """``x`` clipped to the range of the data, if it has one."""
    return x if bounds is None else x.clamp(*bounds)
