"""Fig. 8; see adversarial_share.py."""

from fastdat.experiments.images.adversarial_share import run_fig8 as run

__all__ = ["run"]
