"""fastdat: Direct Adversarial Training for GANs in one compiled graph a step.

    loss = fastdat.dat_step(D, xr, xf)      # instead of D's loss
    loss.backward()

Names are loaded on first use, so that ``import fastdat`` and the command line start without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastdat.util.version import __version__ as __version__

if TYPE_CHECKING:
    from fastdat.config import DATConfig as DATConfig
    from fastdat.engine.capture import capture as capture
    from fastdat.engine.generator_step import generator_step as generator_step
    from fastdat.engine.plain_step import d_step as d_step
    from fastdat.engine.spectral.fused import fuse_spectral_norm as fuse_spectral_norm
    from fastdat.engine.spectral.fused import normalised_once as normalised_once
    from fastdat.engine.spectral.fused import spectral_norm as spectral_norm
    from fastdat.engine.step import dat_step as dat_step
    from fastdat.info import DATInfo as DATInfo
    from fastdat.losses import Loss as Loss
    from fastdat.losses import PairLoss as PairLoss
    from fastdat.losses import generator_loss as generator_loss
    from fastdat.training import Trainer as Trainer
    from fastdat.training.saved_nets import load as load

# Where each public name is defined.
_HOME = {
    "DATConfig": "fastdat.config",
    "DATInfo": "fastdat.info",
    "Loss": "fastdat.losses",
    "PairLoss": "fastdat.losses",
    "Trainer": "fastdat.training",
    "capture": "fastdat.engine.capture",
    "d_step": "fastdat.engine.plain_step",
    "dat_step": "fastdat.engine.step",
    "fuse_spectral_norm": "fastdat.engine.spectral.fused",
    "generator_loss": "fastdat.losses",
    "generator_step": "fastdat.engine.generator_step",
    "load": "fastdat.training.saved_nets",
    "normalised_once": "fastdat.engine.spectral.fused",
    "spectral_norm": "fastdat.engine.spectral.fused",
}
_MODULES = {
    "announce": "fastdat.engine.announce",
    "data": "fastdat.data",
    "functional": "fastdat.engine.functional",
    "kernels": "fastdat.kernels",
    "losses": "fastdat.losses",
    "metrics": "fastdat.metrics",
    "nets": "fastdat.nets",
    "passes": "fastdat.engine.passes",
    "reference": "fastdat.reference",
    "regularizers": "fastdat.regularizers",
    "robustness": "fastdat.robustness",
    "training": "fastdat.training",
    "zero_flow": "fastdat.engine.passes.zero_flow",
}

__all__ = [
    "DATConfig",
    "DATInfo",
    "Loss",
    "PairLoss",
    "Trainer",
    "capture",
    "d_step",
    "dat_step",
    "fuse_spectral_norm",
    "generator_loss",
    "generator_step",
    "load",
    "normalised_once",
    "spectral_norm",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'fastdat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_MODULES])
