"""Fig. 1; see adversarial_share.py."""

from fastdat.experiments.images.adversarial_share import run_fig1 as run

__all__ = ["run"]
