"""How robust a discriminator is: adversarial examples of G (Fig. 1, 8), steps of PGD (Fig. 9), steepness (Sec. III-C).

All measurements work on any G (z -> images) and D (images -> logits), and leave both exactly as they were.
"""

from fastdat.robustness.latent_search import LatentShare, latent_adversarial_share
from fastdat.robustness.lipschitz_monitor import (
    GradientNorms,
    Steepness,
    input_gradient_norms,
    layer_norms,
    lipschitz,
)
from fastdat.robustness.measured import Measured, measure
from fastdat.robustness.monitor import Monitor
from fastdat.robustness.monitor_config import MonitorConfig
from fastdat.robustness.penalty_case import PenaltyCase, penalty_case
from fastdat.robustness.pgd import PGDFlips, pgd_steps_to_flip
from fastdat.robustness.probe import logits_of, midpoint

__all__ = [
    "GradientNorms",
    "LatentShare",
    "Measured",
    "Monitor",
    "MonitorConfig",
    "PGDFlips",
    "PenaltyCase",
    "Steepness",
    "input_gradient_norms",
    "latent_adversarial_share",
    "layer_norms",
    "lipschitz",
    "logits_of",
    "measure",
    "midpoint",
    "penalty_case",
    "pgd_steps_to_flip",
]
