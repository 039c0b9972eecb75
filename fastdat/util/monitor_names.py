"""Names in stats.jsonl of what the monitor of robustness measures."""

from __future__ import annotations

MONITORED = (
    "verdict_threshold",
    "latent_share",
    "latent_eligible",
    "pgd_steps_real",
    "pgd_steps_fake",
    "pgd_flipped_real",
    "pgd_flipped_fake",
    "lipschitz_real_mean",
    "lipschitz_fake_mean",
    "lipschitz_between_mean",
    "lipschitz_real_q95",
    "lipschitz_fake_q95",
    "lipschitz_between_q95",
    "lipschitz_real_max",
    "lipschitz_fake_max",
    "lipschitz_between_max",
    "sigma_max",
    "sigma_mean",
    "penalty_case_real",
    "penalty_case_fake",
)
"""In the order of :meth:`fastdat.robustness.Measured.numbers`."""
