"""Settings of one Direct Adversarial Training step: of the attack and of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from fastdat.util.settings import (
    Increasing,
    NoneMeans,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    check_fields,
)

Seed = Literal["logits", "eq10", "alg1"]
Reduction = Literal["batch", "sample"]
PowerIterations = Literal["once", "per_forward"]
Wiring = Literal["pass", "second_order", "cut"]
"""How the gradient of G's loss passes the attack on G's samples, see :func:`fastdat.generator_step`."""


class AttackConfig(Protocol):
    """What a step reads of any attack's settings; :class:`DATConfig` explains the names."""

    @property
    def real(self) -> bool: ...
    @property
    def fake(self) -> bool: ...
    @property
    def attacks(self) -> bool: ...
    @property
    def steps(self) -> int: ...
    @property
    def bounds(self) -> tuple[float, float] | None: ...
    @property
    def second_order(self) -> bool: ...
    @property
    def clean_weight(self) -> float: ...
    @property
    def power_iterations(self) -> PowerIterations: ...


@dataclass(frozen=True, slots=True)
class DATConfig:
    """Settings of one discriminator step; the defaults are recommended.

    The attack moves each sample along the input gradient of ``A = A_r + A_f``, which pulls D's logits on each side
    (reals, fakes) towards the batch mean of the other side::

        delta_i = clamp(-(eps / eps_batch) * dA/dx_i, -delta_clip, +delta_clip)
        x_hat   = clip(x + delta, *bounds)

    Args:
        seed: what the attack differentiates, ``a_r`` on real and ``a_f`` on fake. ``"logits"``: D itself on both
            (the released code). ``"eq10"``: g1, g2 (Eqs. 9, 10). ``"alg1"``: g2, g1 (Algorithm 1, lines 6, 7).
        reduction: where the absolute value sits. ``"batch"``: ``m * |mean_i a(D(x_i)) - t|``, one sign for the
            whole batch (the released code). ``"sample"``: ``sum_i |a(D(x_i)) - t|``, one sign per sample (Eqs. 10, 13).
        eps: perturbation level (Fig. 6).
        eps_batch: divisor of ``eps``. With an int, delta has the same scale for every batch size and every number of
            ranks or micro-batches. ``None``: the actual global batch size a side (the released code). ``1``: Eq. 10.
        delta_clip: largest change of one pixel in one attack step; ``None`` is no limit.
        bounds: range of the data, ``(low, high)``; ``None`` for data without bounds.
        clip_real: clip perturbed reals to ``bounds`` too. The released SNGAN code does not.
        steps: attack steps K (Fig. 7). Each step adds its own delta; the targets stay those of the clean pass.
        second_order: let the loss gradient flow through ``dA/dx`` into D's parameters (Eqs. 12-15 in full). With
            False delta is a constant, as in the released code.
        real, fake: attack the reals, attack the fakes (positions (i), (ii) of Table IV). With both False the step is
            the plain GAN step, in the same engine.
        clean_weight: ``w`` in ``(L(x_hat) + w L(x)) / (1 + w)``: 0 is DAT, 1 is DATT (Table III).
        power_iterations: spectral norm inside the step. ``"once"``: u advances once a step, and all passes share one
            sigma. ``"per_forward"``: u advances in each call of D, as in the released code.

    Raises:
        TypeError: at construction, for a value of the wrong type.
        ValueError: at construction, for a value outside its range.
    """

    seed: Seed = "logits"
    reduction: Reduction = "batch"
    eps: NonNegativeFloat = 1.0
    eps_batch: Annotated[PositiveInt | None, NoneMeans("the actual global batch size a side")] = 64
    delta_clip: Annotated[PositiveFloat | None, NoneMeans("no limit")] = 1.0
    bounds: Annotated[tuple[float, float], Increasing()] | None = (-1.0, 1.0)
    clip_real: bool = True
    steps: PositiveInt = 1
    second_order: bool = False
    real: bool = True
    fake: bool = True
    clean_weight: NonNegativeFloat = 0.0
    power_iterations: PowerIterations = "once"

    def __post_init__(self) -> None:
        check_fields(self, prefix="DATConfig.")

    @property
    def attacks(self) -> bool:
        """Whether reals or fakes are perturbed; if neither, the step is the plain GAN step."""
        return self.real or self.fake

    def bounds_of(self, side: Literal["real", "fake"]) -> tuple[float, float] | None:
        """The range to which perturbed samples of ``side`` are clipped, or None."""
        return None if side == "real" and not self.clip_real else self.bounds

    @classmethod
    def official(cls) -> DATConfig:
        """Exactly the released SNGAN step: six calls of D, each with its own sigma; divisor = the batch size."""
        return cls(eps_batch=None, clip_real=False, power_iterations="per_forward")

    @classmethod
    def paper(cls) -> DATConfig:
        """Exactly Eq. 10: attack g1 and g2 with one sign per sample, unscaled, no limit on delta."""
        return cls(seed="eq10", reduction="sample", eps=1.0, eps_batch=1, delta_clip=None)


DEFAULT_CONFIG = DATConfig()
"""The settings of a step that is given none, made once: every construction checks all fields."""

NO_ATTACK = DATConfig(real=False, fake=False)
"""The plain GAN step in the same engine."""
