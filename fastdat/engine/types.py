"""What passes between the parts of the engine: a batch, the description of a step, its inputs and its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastdat.config import DATConfig
from fastdat.engine.spectral.normalise import SpectralWeight
from fastdat.engine.weight_norm import NormedWeight
from fastdat.info import StepInfo
from fastdat.losses import Loss

Tensors = dict[str, Tensor]
Args = tuple[Any, ...]
AuxLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
SideWeights = tuple[Tensors, Tensors]
"""D's weights by name, for its call on reals and for its call on fakes."""


class Pair(NamedTuple):
    """One tensor a side."""

    real: Tensor
    fake: Tensor


class Batch(NamedTuple):
    """Samples (m, ...) a side, with D's further arguments."""

    xr: Tensor
    xf: Tensor
    args_real: Args = ()
    args_fake: Args = ()
    both: Tensor | None = None
    """Real then fake in one tensor (2m, ...) where there is one already; ``xr`` and ``xf`` are its halves."""

    def detached(self) -> Batch:
        """The same samples as constants for autograd."""
        both = None if self.both is None else self.both.detach()
        return self._replace(xr=self.xr.detach(), xf=self.xf.detach(), both=both)

    def replaced(self, xr: Tensor, xf: Tensor) -> Batch:
        """Other samples with the same arguments of D."""
        return self._replace(xr=xr, xf=xf, both=None)

    def samples(self) -> Tensor:
        """Real then fake as one tensor (2m, ...)."""
        return torch.cat([self.xr, self.xf]) if self.both is None else self.both

    def joined(self) -> tuple[Tensor, Args]:
        """Real then fake as one batch (2m, ...), with D's further arguments for it."""
        pairs = zip(self.args_real, self.args_fake, strict=True)
        args = tuple(torch.cat([r, f]) if isinstance(r, Tensor) else r for r, f in pairs)
        return self.samples(), args

    def is_joinable(self) -> bool:
        """Whether D's further arguments for the two sides can go through one call of D."""
        m = self.xr.shape[0]
        for real, fake in zip(self.args_real, self.args_fake, strict=True):
            if isinstance(real, Tensor) and isinstance(fake, Tensor):
                if real.ndim == 0 or real.shape[0] != m:
                    return False
                if (real.shape, real.dtype, real.device) != (fake.shape, fake.dtype, fake.device):
                    return False
            elif isinstance(real, Tensor) or isinstance(fake, Tensor) or not _are_equal(real, fake):
                return False
        return True


def _are_equal(a: object, b: object) -> bool:
    try:
        return type(a) is type(b) and bool(a == b)
    except (RuntimeError, ValueError):  # of arrays
        return False


@dataclass(frozen=True)
class StepSpec:
    """Everything that shapes the step's graph, apart from the tensors."""

    config: DATConfig
    loss: Loss
    independent: bool = False
    """D treats its samples independently, so one coefficient a sample describes the attack."""
    joint: bool = False
    """Real and fake share a call of D: D is independent, moves no buffer, has one sigma a step, and its arguments and
    outputs can be joined."""
    spectral: tuple[SpectralWeight, ...] = ()
    normed: tuple[NormedWeight, ...] = ()
    """Weights under torch's older weight norm."""
    moving: tuple[str, ...] = ()
    """Buffers that a call of D updates (batch norm's running statistics)."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(further name, name) of parameters that D holds under several names."""
    batch: int = 0
    """Samples a side in the whole batch: of all ranks, of all micro-batches."""
    group: dist.ProcessGroup | None = None
    """Ranks that share the batch; None for one process."""
    inputs_wanted: tuple[str, ...] = ()
    """Those of ``"xr"``, ``"xf"`` whose gradient is wanted."""
    with_info: bool = False
    traced: bool = True
    """Derivatives are those of ``torch.func``, which can be compiled and mapped over. Otherwise they are autograd's,
    which take any D."""


class FromWholeBatch(NamedTuple):
    """What a part of a batch takes from the whole batch, so that it computes its share of the whole batch's step."""

    signs: tuple[Pair, ...] = ()
    """Signs (n,) a side of each attack step; the part computes the rest of the attack."""
    x_hat: Pair | None = None
    """The perturbed samples (n, ...) a side, where nothing is differentiated through the attack."""


class StepInputs(NamedTuple):
    """The tensors of a step, all of them constants for autograd."""

    trainable: Tensors
    """Parameters whose gradient is wanted, by name."""
    frozen: Tensors
    """The other parameters, by name."""
    buffers: Tensors
    """u, v and the moving buffers, by name, before the step."""
    batch: Batch
    given: FromWholeBatch = FromWholeBatch()


class StepResult(NamedTuple):
    """What a step computes."""

    loss: Tensor
    grads: Tensors
    """Gradient of each trainable parameter, and of ``xr``, ``xf`` where it is wanted."""
    buffers: Tensors
    """New values of the buffers that moved: u, v, running statistics."""
    info: StepInfo | None = None
