"""The measurements that ``dat_step(..., with_info=True)`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class SideInfo(NamedTuple):
    """Measurements of one side, real or fake; the fields are explained in :class:`DATInfo`."""

    logits: Tensor
    clean_logits: Tensor
    x_adv: Tensor
    delta_rms: Tensor
    grad_norm: Tensor
    clipped: Tensor
    aux: tuple[Any, ...]


class StepInfo(NamedTuple):
    """Measurements of a step, one record per side, as the engine passes them on."""

    real: SideInfo
    fake: SideInfo
    penalty_fraction: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class DATInfo:
    """Measurements of one step over this rank's samples.

    They are detached tensors on D's device. Making them never waits for the device; reading a value does.

    Logits are (N,), images have the shape of the inputs, the rest are 0-dimensional.
    """

    logits_real: Tensor
    """D(x_hat_r)."""
    logits_fake: Tensor
    """D(x_hat_f)."""
    clean_logits_real: Tensor
    """D(x_r), from the pass that gives the targets; of ``RobGAN``, by D in evaluation mode, as it attacks."""
    clean_logits_fake: Tensor
    """D(x_f), from the pass that gives the targets."""
    xr_adv: Tensor
    """x_hat_r, the reals that the loss saw."""
    xf_adv: Tensor
    """x_hat_f, the fakes that the loss saw."""
    delta_rms_real: Tensor
    """Root mean square of x_hat_r - x_r over all pixels, in units of the data."""
    delta_rms_fake: Tensor
    """Root mean square of x_hat_f - x_f over all pixels, in units of the data."""
    grad_norm_real: Tensor
    """Mean over the reals of ||dA/dx_i||_2 at the clean sample; NaN where the reals are not attacked."""
    grad_norm_fake: Tensor
    """Mean over the fakes of ||dA/dx_i||_2 at the clean sample; NaN where the fakes are not attacked."""
    clipped_real: Tensor
    """Share of the reals' elements that ``delta_clip`` or ``bounds`` changed in the first attack step; NaN where the
    reals are not attacked."""
    clipped_fake: Tensor
    """Share of the fakes' elements that ``delta_clip`` or ``bounds`` changed in the first attack step; NaN where the
    fakes are not attacked."""
    penalty_fraction: Tensor
    """Share of the attacked samples whose first delta lowers D's own objective to first order, so that D's gradient is
    penalised there; at the others it is rewarded, or they stay where they are. With ``reduction="sample"`` the former
    are the penalty case of Eq. (13). With ``"batch"``, the default, all samples have one sign, so that this is near 1
    as soon as the means are in order: :func:`fastdat.robustness.penalty_case` counts the samples of Eq. (13). NaN where
    nothing is attacked."""
    aux: tuple[tuple[Any, ...], tuple[Any, ...]] = field(default=((), ()))
    """D's further outputs on x_hat_r and on x_hat_f."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Of each regularizer whose turn it was, by its name: its value times its weight. Where a regularizer takes the
    input gradient at the clean samples, ``"<name>.grad_norm"`` is the mean of ||dD/dx_i||_2 over its sides."""

    @classmethod
    def of(cls, info: StepInfo) -> DATInfo:
        """The public record of a step."""
        real, fake, penalty_fraction, terms = info
        return cls(
            logits_real=real.logits,
            logits_fake=fake.logits,
            clean_logits_real=real.clean_logits,
            clean_logits_fake=fake.clean_logits,
            xr_adv=real.x_adv,
            xf_adv=fake.x_adv,
            delta_rms_real=real.delta_rms,
            delta_rms_fake=fake.delta_rms,
            grad_norm_real=real.grad_norm,
            grad_norm_fake=fake.grad_norm,
            clipped_real=real.clipped,
            clipped_fake=fake.clipped,
            penalty_fraction=penalty_fraction,
            aux=(real.aux, fake.aux),
            terms=terms,
        )
