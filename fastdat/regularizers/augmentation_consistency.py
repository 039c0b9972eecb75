"""CR and bCR: D says the same of an image and of the image after a random augmentation T."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastdat.nets.augmentation import DRAWS, augmented, parse_policy
from fastdat.regularizers.random_rows import uniform_row
from fastdat.regularizers.term import Needs, Pair, Points, Tensors, Term
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.errors import ConfigError
from fastdat.util.settings import FieldTypeError, NonNegativeFloat, PositiveInt


class Augmentation(Protocol):
    """T of a user: a callable that can be hashed, made of operations that autograd can differentiate."""

    draws_per_sample: int
    """Random numbers of one sample."""

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        """T(x) of samples (n, ...), given random numbers (n, draws_per_sample), uniform in [0, 1)."""
        ...


class AugmentationConsistency(Term):
    """What CR and bCR have in common: T, and its random numbers."""

    augment: str | Augmentation

    def __post_init__(self) -> None:
        check_term_fields(self, checked_elsewhere=("augment",))
        _check_augment(f"{type(self).__name__}.augment", self.augment)

    def _drawn(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if isinstance(self.augment, str):
            if x.ndim != 4:
                raise ValueError(
                    f"{type(self).__name__}(augment={self.augment!r}) takes images (m, C, H, W); got samples of shape "
                    f"{tuple(x.shape)}: pass a function (x, draws) -> x of your own as augment"
                )
            return uniform_row(x, generator, DRAWS)
        return uniform_row(x, generator, self.augment.draws_per_sample)

    def _augmented(self, x: Tensor, draws: Tensor) -> Tensor:
        made = (
            augmented(x, draws, parse_policy(self.augment))
            if isinstance(self.augment, str)
            else self.augment(x, draws)
        )
        return made.to(x.dtype)


def _check_augment(name: str, augment: Any) -> None:
    """Check that it is a policy that changes something, or an :class:`Augmentation`."""
    expected = (
        f'{name} must be a policy, "diffaug" or some of "color,translation,cutout", or a function (x, draws) -> x that '
        "can be hashed and has an attribute draws_per_sample, an integer >= 1"
    )
    if isinstance(augment, str):
        try:
            changes = parse_policy(augment)
        except ValueError as error:
            raise ConfigError(f"{expected}; got {augment!r}") from error
        if not changes:
            raise ConfigError(f"{expected}; got {augment!r}, under which the term is always 0")
        return
    if not callable(augment):
        raise FieldTypeError(f"{expected}; got {augment!r}")
    count = getattr(augment, "draws_per_sample", None)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise FieldTypeError(f"{expected}; got {augment!r} with draws_per_sample {count!r}")
    try:
        hash(augment)
    except TypeError as error:
        raise FieldTypeError(f"{expected}; {augment!r} cannot be hashed") from error


@dataclass(frozen=True)
class CR(AugmentationConsistency):
    """``weight mean (D(T(xr)) - D(xr))^2`` (Zhang et al. 2020, "Consistency Regularization for GANs").

    The gradient passes through both branches.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        every: the term is part of one step in ``every``, ``every`` times as strong.
        augment: T: a policy of :mod:`fastdat.nets.augmentation` for images in [-1, 1], or an :class:`Augmentation`.
            The source flips and shifts by a few pixels, which ``"translation"`` is nearest to.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    weight: Strength = 10.0
    every: PositiveInt = 1
    augment: str | Augmentation = "diffaug"

    name = "cr"

    @property
    def needs(self) -> Needs:
        return Needs(logits=True, own=1.5)  # the reals: forward 1, backward 2

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        """``real``: random numbers of T (m, k)."""
        return {"real": self._drawn(x.real, generator)}

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        there = points.call_side("real", self._augmented(points.x.real, given["real"]))
        return (there - points.logits().real).square().mean()


@dataclass(frozen=True)
class BCR(AugmentationConsistency):
    """``weight (mean (D(T(xr)) - D(xr))^2 + fake_ratio mean (D(T(xf)) - D(xf))^2)``; bCR of Zhao et al. 2021.

    Source: "Improved Consistency Regularization for GANs". The gradient passes through both branches.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        fake_ratio: how strong the fakes' part is beside the reals'.
        every: the term is part of one step in ``every``, ``every`` times as strong.
        augment: T: a policy of :mod:`fastdat.nets.augmentation` for images in [-1, 1], or an :class:`Augmentation`.
            The source flips and shifts by a few pixels, which ``"translation"`` is nearest to.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    weight: Strength = 10.0
    fake_ratio: NonNegativeFloat = 1.0
    every: PositiveInt = 1
    augment: str | Augmentation = "diffaug"

    name = "bcr"

    @property
    def needs(self) -> Needs:
        return Needs(logits=True, own=3.0)  # both sides: forward 1, backward 2

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        """``real``, ``fake``: random numbers of T (m, k) a side."""
        return {"real": self._drawn(x.real, generator), "fake": self._drawn(x.fake, generator)}

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        xr, xf = points.x
        there = points.call(self._augmented(xr, given["real"]), self._augmented(xf, given["fake"]))
        real, fake = ((t - clean).square().mean() for t, clean in zip(there, points.logits(), strict=True))
        return real + self.fake_ratio * fake
