"""What ``dat_step(..., with_info=True)`` tells of the step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class DATInfo:
    """Measurements of one step, of this rank's samples. Detached tensors on D's device; nothing here synchronises.

    Logits are (N,), images have the shape of the inputs, the rest are 0-dimensional.
    """

    logits_real: Tensor
    """D(x_hat_r)."""
    logits_fake: Tensor
    """D(x_hat_f)."""
    clean_logits_real: Tensor
    """D(x_r), the pass that gives the targets."""
    clean_logits_fake: Tensor
    """D(x_f), the pass that gives the targets."""
    xr_adv: Tensor
    """x_hat_r, what the loss saw."""
    xf_adv: Tensor
    """x_hat_f, what the loss saw."""
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
    """The same of the fakes."""
    penalty_fraction: Tensor
    """Share of the attacked samples whose first delta lowers D's own objective to first order: the gradient
    penalty case of Eq. (13), the others being rewards or unmoved. NaN where nothing is attacked."""
    aux: tuple[tuple[Any, ...], tuple[Any, ...]] = field(default=((), ()))
    """D's further outputs on x_hat_r and on x_hat_f."""
