"""What training changes: G and D, their optimizers, and the running average of G."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from fastdat.training import checkpoint
from fastdat.training.ema import EMA
from fastdat.util.errors import ConfigError


@dataclass(frozen=True)
class Networks:
    """Two nets on one device with their optimizers.

    Args:
        G, D: the nets, and ``opt_g``, ``opt_d`` their optimizers; as in :class:`fastdat.training.Trainer`.
        ema: the running average of G, or None.
    """

    G: nn.Module
    D: nn.Module
    opt_g: Optimizer
    opt_d: Optimizer
    ema: EMA | None

    @property
    def device(self) -> torch.device:
        return next(self.G.parameters()).device

    @property
    def sampled(self) -> nn.Module:
        """The net that is sampled and scored: the average if there is one, else G."""
        return self.G if self.ema is None else self.ema.net

    @property
    def sampled_name(self) -> str:
        """``"G"`` or ``"ema"``, for records of scores."""
        return "G" if self.ema is None else "ema"

    def to_checkpoint(self) -> checkpoint.State:
        """The entries of a checkpoint."""
        return {
            "netG": self.G.state_dict(),
            "netD": self.D.state_dict(),
            "ema": None if self.ema is None else self.ema.net.state_dict(),
            "optG": self.opt_g.state_dict(),
            "optD": self.opt_d.state_dict(),
        }

    def restore(self, saved: checkpoint.State, path: Path) -> None:
        """Load the entries of the checkpoint ``path``.

        Raises:
            ConfigError: they belong to other nets.
        """
        try:
            self.G.load_state_dict(saved["netG"])
            self.D.load_state_dict(saved["netD"])
            if self.ema is not None:
                self.ema.net.load_state_dict(saved["ema"])
            checkpoint.load_optimizer(self.opt_g, saved["optG"])
            checkpoint.load_optimizer(self.opt_d, saved["optD"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{path} belongs to other nets than these: {error}") from error

    def start_from(self, saved: checkpoint.State, path: Path) -> None:
        """Load only the weights of the checkpoint ``path``. Without an average in it, the average starts as G.

        Raises:
            ConfigError: they belong to other nets.
        """
        average = saved["netG"] if saved["ema"] is None else saved["ema"]
        try:
            self.G.load_state_dict(saved["netG"])
            self.D.load_state_dict(saved["netD"])
            if self.ema is not None:
                self.ema.net.load_state_dict(average)
        except RuntimeError as error:
            first = "\n".join(str(error).splitlines()[:3])
            raise ConfigError(
                f"init_from={path} has the weights of other nets than these. Give the same model, resolution, ngf, ndf "
                f"and nz, and data with as many channels and classes, as its run had.\n{first}"
            ) from error
