"""What a step is made from: its static description and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastdat.config import DATConfig
from fastdat.engine.spectral.normalise import SpectralWeight
from fastdat.losses import Loss

Tensors = dict[str, Tensor]
Args = tuple[Any, ...]
AuxLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Pair(NamedTuple):
    """One value a side."""

    real: Tensor
    fake: Tensor


@dataclass(frozen=True)
class StepSpec:
    """Everything that shapes the step's graph, apart from the tensors."""

    config: DATConfig
    loss: Loss
    independent: bool = False
    """D treats its samples independently: one coefficient a sample describes the attack."""
    joint: bool = False
    """Real and fake share a call of D: independent, no buffer moves, one sigma, arguments and outputs can be joined."""
    spectral: tuple[SpectralWeight, ...] = ()
    moving: tuple[str, ...] = ()
    """Buffers that a call of D updates (batch norm's running statistics)."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(further name, name) of parameters that D holds under several names."""
    batch: int = 0
    """Samples a side in the whole batch: of all ranks, of all micro-batches."""
    group: dist.ProcessGroup | None = None
    """Ranks that share the batch; None for one process."""
    with_info: bool = False
    attacked: tuple[str, str] | None = None
    """Names in ``fastdat.kernels`` of the functions of D that are attacked on real and on fake; None for a user's."""


class Inputs(NamedTuple):
    """A batch (m, ...) a side, with D's further arguments."""

    xr: Tensor
    xf: Tensor
    args_real: Args = ()
    args_fake: Args = ()
    both: Tensor | None = None
    """Real then fake in one tensor (2m, ...) where there is one already, of which ``xr`` and ``xf`` are halves."""

    def detached(self) -> Inputs:
        both = None if self.both is None else self.both.detach()
        return self._replace(xr=self.xr.detach(), xf=self.xf.detach(), both=both)

    def replaced(self, xr: Tensor, xf: Tensor) -> Inputs:
        """The same with other samples."""
        return self._replace(xr=xr, xf=xf, both=None)

    def samples(self) -> Tensor:
        """Real then fake as one batch (2m, ...)."""
        return torch.cat([self.xr, self.xf]) if self.both is None else self.both

    def joined(self) -> tuple[Tensor, Args]:
        """Real then fake as one batch (2m, ...), with D's further arguments."""
        pairs = zip(self.args_real, self.args_fake, strict=True)
        args = tuple(torch.cat([r, f]) if isinstance(r, Tensor) else r for r, f in pairs)
        return self.samples(), args


class Fixed(NamedTuple):
    """What a part of a larger batch takes as given, so as to compute its share of the whole batch's step."""

    signs: tuple[Pair, ...] = ()
    """Signs of each attack step, (n,) a side; the attack itself is computed here. Or"""
    adversarial: tuple[Tensor, Tensor] | None = None
    """x_hat itself, real and fake, where delta is a constant and the loss does not contain the clean samples."""
