"""What one Direct Adversarial Training step computes: the fields of the attack and of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Seed = Literal["logits", "eq10", "alg1"]
Reduction = Literal["batch", "sample"]
PowerIterations = Literal["once", "per_forward"]


@dataclass(frozen=True, slots=True)
class DATConfig:
    """Settings of one discriminator step; the default is the recommended one.

    The attack moves each sample along the input gradient of ``A = A_r + A_f``, which pulls D's verdict on the
    one side towards the batch mean of the other::

        delta_i = clamp(-(eps / eps_batch) * dA/dx_i, -delta_clip, +delta_clip)
        x_hat   = clip(x + delta, *bounds)

    Args:
        seed: what the attack differentiates, ``a_r`` on real and ``a_f`` on fake. ``"logits"``: D itself on both
            (the released code). ``"eq10"``: g1, g2 (Eqs. 9, 10). ``"alg1"``: g2, g1 (Algorithm 1, lines 6, 7).
        reduction: where the absolute value sits. ``"batch"``: ``m * |mean_i a(D(x_i)) - t|``, one sign for the
            whole batch (the released code). ``"sample"``: ``sum_i |a(D(x_i)) - t|``, a sign a sample (Eq. 10, 13).
        eps: perturbation level (Fig. 6).
        eps_batch: divisor of ``eps``. An int keeps delta's scale whatever the batch size, the number of ranks or of
            micro-batches; ``None`` is the actual global batch size a side (the released code); ``1`` is Eq. 10.
        delta_clip: largest change of one pixel in one attack step, or ``None``.
        bounds: range of the data, ``(low, high)``, or ``None`` for data without one.
        clip_real: clip perturbed reals to ``bounds`` too. The released SNGAN code does not.
        steps: attack steps K (Fig. 7); each adds its own delta, the targets stay those of the clean pass.
        second_order: let the loss gradient flow through ``dA/dx`` into D's parameters (Eqs. 12-15 in full). False
            treats delta as a constant, as the released code does.
        real, fake: attack the reals, the fakes (positions (i), (ii) of Table IV). With both False the step is the
            plain GAN step, in the same engine.
        clean_weight: ``w`` in ``(L(x_hat) + w L(x)) / (1 + w)``: 0 is DAT, 1 is DATT (Table III).
        power_iterations: spectral norm inside the step. ``"once"``: u advances once a step and every pass shares
            sigma. ``"per_forward"``: u advances in each call of D, as in the released code.

    Raises:
        TypeError, ValueError: at construction, for a value outside the above.
    """

    seed: Seed = "logits"
    reduction: Reduction = "batch"
    eps: float = 1.0
    eps_batch: int | None = 64
    delta_clip: float | None = 1.0
    bounds: tuple[float, float] | None = (-1.0, 1.0)
    clip_real: bool = True
    steps: int = 1
    second_order: bool = False
    real: bool = True
    fake: bool = True
    clean_weight: float = 0.0
    power_iterations: PowerIterations = "once"

    def __post_init__(self) -> None:
        _one_of("seed", self.seed, get_args(Seed))
        _one_of("reduction", self.reduction, get_args(Reduction))
        _one_of("power_iterations", self.power_iterations, get_args(PowerIterations))
        for name in ("clip_real", "second_order", "real", "fake"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"DATConfig.{name} must be True or False, got {getattr(self, name)!r}")
        _number("eps", self.eps, at_least=0.0)
        _number("clean_weight", self.clean_weight, at_least=0.0)
        _integer("steps", self.steps)
        if self.eps_batch is not None:
            _integer("eps_batch", self.eps_batch, hint=" or None (= the actual global batch size a side)")
        if self.delta_clip is not None:
            _number("delta_clip", self.delta_clip, above=0.0, hint=" or None (= no limit)")
        if self.bounds is not None:
            self._normalise_bounds()

    def _normalise_bounds(self) -> None:
        wrong = f"DATConfig.bounds must be (low, high) with low < high, or None, got {self.bounds!r}"
        try:
            low, high = self.bounds  # type: ignore[misc]
            ordered = not isinstance(low, bool) and math.isfinite(low) and math.isfinite(high) and low < high
        except (TypeError, ValueError) as error:
            raise ValueError(wrong) from error
        if not ordered:
            raise ValueError(wrong)
        object.__setattr__(self, "bounds", (float(low), float(high)))  # a list is welcome, but must hash

    @property
    def attacks(self) -> bool:
        """Whether any side is perturbed; without one the step is the plain GAN step."""
        return self.real or self.fake

    def bounds_of(self, side: Literal["real", "fake"]) -> tuple[float, float] | None:
        """The range that perturbed samples of ``side`` are clipped to, or None."""
        return None if side == "real" and not self.clip_real else self.bounds

    @classmethod
    def official(cls) -> DATConfig:
        """The released SNGAN step exactly: six D calls with a sigma of their own, divisor = the batch size."""
        return cls(eps_batch=None, clip_real=False, power_iterations="per_forward")

    @classmethod
    def paper(cls) -> DATConfig:
        """Eq. 10 to the letter: attack g1/g2 with a sign a sample, unscaled, no limit on delta."""
        return cls(seed="eq10", reduction="sample", eps=1.0, eps_batch=1, delta_clip=None)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"DATConfig.{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _number(
    name: str, value: object, *, at_least: float = -math.inf, above: float = -math.inf, hint: str = ""
) -> None:
    limit = f">= {at_least:g}" if at_least > -math.inf else f"> {above:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"DATConfig.{name} must be a number {limit}{hint}, got {value!r}")
    if not (math.isfinite(value) and value >= at_least and value > above):
        raise ValueError(f"DATConfig.{name} must be a finite number {limit}{hint}, got {value!r}")


def _integer(name: str, value: object, *, hint: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"DATConfig.{name} must be an integer >= 1{hint}, got {value!r}")
    if value < 1:
        raise ValueError(f"DATConfig.{name} must be an integer >= 1{hint}, got {value!r}")
