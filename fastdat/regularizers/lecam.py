"""LeCam: D's logits are drawn towards a running mean of the other side's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fastdat.regularizers.term import Needs, Points, Tensors, Term
from fastdat.regularizers.term_fields import Strength, check_term_fields
from fastdat.util.settings import NonNegativeInt, PositiveInt, Range


@dataclass(frozen=True)
class LeCamSettings:
    """The settings of :class:`LeCam`, which explains them: what a configuration holds, since LeCam itself changes.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    weight: Strength = 0.3
    decay: Annotated[float, Range(at_least=0, below=1)] = 0.99
    start: NonNegativeInt = 1000
    every: PositiveInt = 1

    strength: ClassVar[str] = "weight"
    name: ClassVar[str] = "lecam"

    def __post_init__(self) -> None:
        check_term_fields(self)


class LeCam(nn.Module, Term):
    """``weight (mean relu(D(xr) - a_f)^2 + mean relu(a_r - D(xf))^2)``, with anchors ``a`` that follow the mean logits.

    ``a_r`` and ``a_f`` are exponential running means of D's mean logits on all clean reals and all clean fakes. The
    first step sets them to its own means; each step moves them before it takes them. They are buffers of this module:
    keep one LeCam for one D, move it to D's device, and save its ``state_dict`` with D's. Two LeCams are equal only if
    they are the same object.

    Source: Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data", with StudioGAN's decay
    and first step.

    Args:
        weight: factor; a number or a 0-dimensional tensor.
        decay: how much of an anchor remains in each step.
        start: D's steps before the first one with a penalty, in which the anchors only follow; with ``every`` > 1 those
            between its turns count too.
        every: the term is part of one step in ``every``, ``every`` times as strong.

    Raises:
        TypeError, ValueError: at construction, for a bad value.
    """

    couples = True
    name = "lecam"
    real: Tensor
    """a_r, 0-dimensional; in fp64, to serve a D of any precision."""
    fake: Tensor
    """a_f, likewise."""
    steps: Tensor
    """D's steps so far, 0-dimensional."""

    def __init__(
        self, weight: Strength = 0.3, decay: float = 0.99, start: int = 1000, every: int = 1
    ) -> None:
        super().__init__()
        self.settings = LeCamSettings(weight, decay, start, every)
        self.register_buffer("real", torch.zeros((), dtype=torch.float64))
        self.register_buffer("fake", torch.zeros((), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    __hash__ = nn.Module.__hash__

    @property
    def weight(self) -> Strength:
        return self.settings.weight

    @property
    def every(self) -> int:  # type: ignore[override]
        return self.settings.every

    @property
    def needs(self) -> Needs:
        return Needs(logits=True)

    def extra_repr(self) -> str:
        s = self.settings
        return f"weight={s.weight}, decay={s.decay}, start={s.start}, every={s.every}"

    def state(self) -> Tensors:
        return {"real": self.real, "fake": self.fake, "steps": self.steps}

    def advanced(self, points: Points, given: Mapping[str, Tensor]) -> Tensors:
        real, fake = self._anchors(points, given)
        return {"real": real, "fake": fake, "steps": given["steps"] + self.settings.every}

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        of_real, of_fake = self._anchors(points, given)
        real, fake = points.logits()
        above = (real - of_fake.to(real.dtype)).relu().square().mean()
        below = (of_real.to(fake.dtype) - fake).relu().square().mean()
        return torch.where(given["steps"] >= self.settings.start, above + below, 0.0)

    def _anchors(self, points: Points, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """``a_r`` and ``a_f`` of this step; constants."""
        before = torch.stack([given["real"], given["fake"]])
        means = points.mean(torch.stack(list(points.logits()), 1)).detach().to(before.dtype)
        decay = self.settings.decay
        moved = decay * before + (1 - decay) * means
        real, fake = torch.where(given["steps"] == 0, means, moved).unbind()
        return real, fake
