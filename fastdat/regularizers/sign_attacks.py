"""Other attacks than DAT's, in its place: samples move along the sign of the gradient of D's own loss.

Step k of K moves each attacked sample up D's loss, within ``eps`` of where it began and within the bounds of the data::

    x <- clip(x_0 + clamp(x + step sign(dL_D/dx) - x_0, -eps, eps))

The loss is then that of the moved samples. ``sign(0) = 0``: a sample in a dead zone of the loss stays where it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastdat.config import PowerIterations
from fastdat.util.errors import ConfigError
from fastdat.util.settings import (
    Increasing,
    NoneMeans,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    check_fields,
)

_Bounds = Annotated[tuple[float, float], Increasing()] | None


class SignAttack(ABC):
    """What both attacks have in common; read by the engine."""

    __slots__ = ()
    real = True
    attacks = True
    second_order = False
    """The moves are constants."""

    if TYPE_CHECKING:  # fields of the attacks, or constants

        @property
        def fake(self) -> bool: ...
        @property
        def steps(self) -> int: ...
        @property
        def bounds(self) -> tuple[float, float] | None: ...
        @property
        def clean_weight(self) -> float: ...
        @property
        def in_eval_mode(self) -> bool: ...

    @property
    def power_iterations(self) -> PowerIterations:
        """All calls of a step share one sigma."""
        return "once"

    @property
    @abstractmethod
    def radius(self) -> float:
        """Largest distance of an element from where it began."""

    @property
    @abstractmethod
    def step_size(self) -> float:
        """Length of one move of an element."""


@dataclass(frozen=True, slots=True)
class ASGAN(SignAttack):
    """The attack of AS-GAN (Liu et al. 2020, reference [46] of the paper): one step of FGSM on both sides.

    Args:
        eps: length of the move of one element, in units of the data; None: 1/255 of the width of ``bounds``, which is
            one grey level.
        bounds: range of the data; None for data without bounds, which need ``eps``.
        clean_weight: ``w`` in ``(L(x_hat) + w L(x)) / (1 + w)``.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    eps: Annotated[PositiveFloat | None, NoneMeans("one grey level, 1/255 of the bounds")] = None
    bounds: _Bounds = (-1.0, 1.0)
    clean_weight: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check_fields(self, prefix="ASGAN.")
        if self.eps is None and self.bounds is None:
            raise ConfigError(
                "ASGAN.eps must be set where bounds is None: there is no grey level to take it from"
            )

    fake = True
    steps = 1
    in_eval_mode = False

    @property
    def radius(self) -> float:
        if self.eps is not None:
            return self.eps
        assert self.bounds is not None
        low, high = self.bounds
        return (high - low) / 255

    @property
    def step_size(self) -> float:
        return self.radius


@dataclass(frozen=True, slots=True)
class RobGAN(SignAttack):
    """The attack of Rob-GAN (Liu and Hsieh 2019, reference [43] of the paper): K steps of PGD on the reals.

    D is in evaluation mode during the attack, as in the released code: batch norm uses its running statistics. Fakes
    stay as they are. The released code's classification loss is left out.

    Args:
        eps: largest distance of an element from where it began, in units of the data.
        step: length of one move of an element.
        steps: K.
        bounds: range of the data; None for data without bounds.
        clean_weight: ``w`` in ``(L(x_hat) + w L(x)) / (1 + w)``.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    eps: PositiveFloat = 0.0625
    step: PositiveFloat = 1 / 128
    steps: PositiveInt = 5
    bounds: _Bounds = (-1.0, 1.0)
    clean_weight: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check_fields(self, prefix="RobGAN.")

    fake = False
    in_eval_mode = True

    @property
    def radius(self) -> float:
        return self.eps

    @property
    def step_size(self) -> float:
        return self.step
