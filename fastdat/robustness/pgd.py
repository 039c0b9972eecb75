"""How many steps along the sign of its gradient D's verdict on an image survives (Fig. 9, Eq. 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastdat.robustness.probe import Args, check_rows, logits_of, probed, split

Side = Literal["real", "fake"]


@dataclass(frozen=True)
class PGDFlips:
    """Steps until D's verdict on each of N samples flips.

    Args:
        side: of the samples: what D should take them for, and does at first.
        threshold: D takes a sample for real from this logit on.
        step_size, cap: of the attack.
        eligible: (N,) bool: D's verdict on the sample was right before the attack.
        flipped: (N,) bool: eligible, and wrong after at most ``cap`` steps.
        steps: (N,) int64: the first step after which the verdict is wrong; ``cap`` where it never is, 0 where the
            sample was left out because it was not eligible.
        images: (N, ...) as they were when the verdict flipped, or after ``cap`` steps; unchanged where not eligible.
    """

    side: Side
    threshold: float
    step_size: float
    cap: int
    eligible: Tensor
    flipped: Tensor
    steps: Tensor
    images: Tensor

    @property
    def count(self) -> int:
        """Number of eligible samples."""
        return int(self.eligible.sum())

    @property
    def mean_steps(self) -> float:
        """Mean of ``steps`` over the eligible samples, the paper's K; NaN if there is none. Where some did not flip, it
        is a lower bound."""
        return int(self.steps.sum()) / self.count if self.count else math.nan

    @property
    def success_rate(self) -> float:
        """Part of the eligible samples whose verdict flipped; NaN if there is none."""
        return int(self.flipped.sum()) / self.count if self.count else math.nan


def pgd_steps_to_flip(
    D: nn.Module,
    x: Tensor,
    side: Side,
    *,
    threshold: float,
    step_size: float = 2 / 255,
    cap: int = 100,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    args: Args = (),
    batch_size: int | None = None,
    compile: bool = False,
) -> PGDFlips:
    """Attack each sample until D takes a fake for real, or a real for a fake, and count the steps (Fig. 9).

    Eq. 6 with D's own logit, which has no ball around the sample::

        x <- clip(x + step_size sign(dD/dx), bounds)     fakes
        x <- clip(x - step_size sign(dD/dx), bounds)     reals

    The paper leaves open: the step size, the largest number of steps and D's threshold. D is evaluated, so that samples
    do not disturb each other, and is left exactly as it was.

    Args:
        D: images, and ``args`` -> logits (N,) or (N, 1), or a tuple of outputs with logits first.
        x: samples (N, ...) within ``bounds``.
        side: ``"fake"`` where D should find fakes (logits below ``threshold``), ``"real"`` where it should find reals.
            Samples on the wrong side are left out.
        threshold: D takes a sample for real from this logit on; :func:`fastdat.robustness.midpoint` fits any loss.
        step_size: in units of the images.
        cap: the most steps.
        bounds: of the images; None: none.
        args: D's further arguments, with a row a sample.
        batch_size: samples at a time; changes the result by rounding only. None: all.
        compile: compile D's logits and their gradient, once for each size of a batch.

    Raises:
        ValueError: a number outside its range, an unknown side, or rows that do not fit.
    """
    check_rows(("x", x), args=args)
    _check(side, threshold, step_size, cap, bounds)
    logits = torch.compile(logits_of, dynamic=False) if compile else logits_of
    direction = 1.0 if side == "fake" else -1.0
    low, high = bounds if bounds is not None else (-math.inf, math.inf)
    found = []
    with probed(D):
        for part, *rest in split(batch_size, x, *args):
            now = part.detach().clone()
            steps = torch.zeros(len(now), dtype=torch.int64, device=now.device)
            flipped = torch.zeros(len(now), dtype=torch.bool, device=now.device)
            for done in range(cap + 1):
                now.requires_grad_()
                values = logits(D, now, tuple(rest))
                right = (values < threshold) == (side == "fake")
                if done == 0:
                    eligible = active = right
                flipped |= active & ~right
                active = active & right
                if done == cap or not active.any():
                    break
                (gradient,) = torch.autograd.grad(values.sum(), now)
                moved = (now.detach() + direction * step_size * gradient.sign()).clamp(low, high)
                now = torch.where(active.reshape(-1, *[1] * (now.ndim - 1)), moved, now.detach())
                steps += active
            found.append((eligible, flipped, steps, now.detach()))
    return PGDFlips(
        side, threshold, step_size, cap, *(torch.cat(tensors) for tensors in zip(*found, strict=True))
    )


def _check(
    side: Side, threshold: float, step_size: float, cap: int, bounds: tuple[float, float] | None
) -> None:
    if side not in ("real", "fake"):
        raise ValueError(f'side must be "real" or "fake"; got {side!r}')
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number; got {threshold!r}")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be a finite number > 0; got {step_size!r}")
    if not isinstance(cap, int) or cap < 1:
        raise ValueError(f"cap must be an integer >= 1; got {cap!r}")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (low, high) with low < high, or None; got {bounds!r}")
