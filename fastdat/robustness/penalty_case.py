"""How many samples are in the penalty case of Eq. (13), for the claim of Sec. III-C that most of them are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from fastdat.robustness.probe import Args, logits_of_both


@dataclass(frozen=True)
class PenaltyCase:
    """Parts of 1 of the samples whose residual in Eq. (13) is >= 0; NaN where D's mean logits are not finite.

    Args:
        real: of the reals, those with ``D(x_r) >= mean D(x_f)``.
        fake: of the fakes, those with ``D(x_f) <= mean D(x_r)``.
    """

    real: float
    fake: float


def penalty_case(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    *,
    args_real: Args = (),
    args_fake: Args = (),
    batch_size: int | None = None,
) -> PenaltyCase:
    """The share of samples whose residual in Eq. (13), in logits and for each sample by itself, is >= 0.

    There Eq. (13) penalises D's gradient at the sample; elsewhere it rewards it. Any D can be asked, also one that was
    trained without DAT. The expectations in Eq. (13) are means over all samples that are given. D is evaluated, and is
    left exactly as it was.

    Args:
        D: images -> logits (N,) or (N, 1), or a tuple of outputs with logits first.
        xr, xf: reals and fakes (N, ...), of any two numbers.
        args_real, args_fake: D's further arguments of each, with a row a sample.
        batch_size: samples that D sees at a time; None: all.

    Raises:
        ValueError: D does not return one logit a sample, or arguments of other lengths.
    """
    real, fake = logits_of_both(D, xr, xf, args_real, args_fake, batch_size)
    mean_real, mean_fake = real.mean().item(), fake.mean().item()
    if not (math.isfinite(mean_real) and math.isfinite(mean_fake)):
        return PenaltyCase(math.nan, math.nan)
    return PenaltyCase(_part(real >= mean_fake), _part(fake <= mean_real))


def _part(found: Tensor) -> float:
    return int(found.sum()) / len(found)
