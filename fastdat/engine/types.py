"""What passes between the parts of the engine: a batch, the description of a step, its inputs and its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastdat.config import AttackConfig, Wiring
from fastdat.engine.features import Capture
from fastdat.engine.spectral.normalise import SpectralWeight
from fastdat.engine.weight_norm import NormedWeight
from fastdat.info import StepInfo
from fastdat.losses import AnyLoss
from fastdat.regularizers.term import Pair, Term

Tensors = dict[str, Tensor]
Args = tuple[Any, ...]
AuxLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
SideWeights = tuple[Tensors, Tensors]
"""D's weights by name, for its call on reals and for its call on fakes."""


class Sides(NamedTuple):
    """An answer a side."""

    real: bool
    fake: bool


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


class StepNeeds(NamedTuple):
    """What the terms of a step need of its pass through the clean samples."""

    kept: bool = False
    """They differentiate it."""
    gradient: Sides = Sides(False, False)
    """Sides whose input gradient they differentiate."""
    loss_gradient: bool = False
    """They take the input gradient of D's loss as a constant."""
    second_order: bool = False
    """They differentiate an input gradient, here or at other samples."""

    @classmethod
    def of(cls, terms: Sequence[Term]) -> StepNeeds:
        """All needs of these terms."""
        needs = [term.needs for term in terms]
        sides = {side for n in needs for side in n.gradient}
        return cls(
            kept=any(n.logits or n.features for n in needs) or bool(sides),
            gradient=Sides("real" in sides, "fake" in sides),
            loss_gradient=any(n.loss_gradient for n in needs),
            second_order=any(n.second_order for n in needs) or bool(sides),
        )


@dataclass(frozen=True)
class StepSpec:
    """Everything that shapes the step's graph, apart from the tensors."""

    config: AttackConfig
    loss: AnyLoss
    terms: tuple[Term, ...] = ()
    """The regularizers whose turn it is. One whose weight is a tensor has another weight here, which means nothing."""
    term_names: tuple[str, ...] = ()
    """Of each, in ``DATInfo.terms``."""
    weighed: tuple[bool, ...] = ()
    """Of each term, whether its weight is a tensor, and so one of the inputs."""
    needs: StepNeeds = StepNeeds()  # noqa: RUF009 - it is immutable
    """What the terms need, all together."""
    captures: tuple[Capture, ...] = ()
    """Of the outputs of D's submodules that terms see."""
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
    wiring: Wiring | None = None
    """Of a step of G; None for a step of D."""
    traced: bool = True
    """Derivatives are those of ``torch.func``, which can be compiled and mapped over. Otherwise they are autograd's,
    which take any D."""

    @property
    def attacked(self) -> Sides:
        """The sides that are perturbed: in a step of G the fakes."""
        return Sides(self.config.real, self.config.fake) if self.wiring is None else Sides(False, True)

    @property
    def second_order(self) -> bool:
        """Whether the loss is differentiated through the attack."""
        return self.config.second_order if self.wiring is None else self.wiring == "second_order"

    @property
    def differentiates_clean(self) -> bool:
        """Whether the loss is differentiated through the pass at the clean samples."""
        return self.second_order or self.config.clean_weight > 0 or self.needs.kept

    @property
    def differentiates_gradient(self) -> bool:
        """Whether the loss is differentiated through an input gradient: the step is of second order."""
        return self.second_order or self.needs.second_order


class FromWholeBatch(NamedTuple):
    """What a part of a batch takes from the whole batch, so that it computes its share of the whole batch's step."""

    signs: tuple[Pair, ...] = ()
    """Signs (n,) a side of each attack step; the part computes the rest of the attack."""
    x_hat: Pair | None = None
    """The perturbed samples (n, ...) a side, where nothing is differentiated through the attack."""
    reductions: tuple[tuple[Tensor, ...], ...] = ()
    """Of each term, what it takes of the whole batch (``Points.total`` and its like), in its order."""


class TermInputs(NamedTuple):
    """The tensors of the terms, in their order."""

    draws: tuple[Tensors, ...] = ()
    """Random numbers by name, (m, ...)."""
    states: tuple[Tensors, ...] = ()
    """What the terms keep from step to step, by name, before the step."""
    weights: tuple[Tensor | None, ...] = ()
    """The weights that are tensors."""


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
    terms: TermInputs = TermInputs()


class StepResult(NamedTuple):
    """What a step computes."""

    loss: Tensor
    grads: Tensors
    """Gradient of each trainable parameter, and of ``xr``, ``xf`` where it is wanted."""
    buffers: Tensors
    """New values of the buffers that moved: u, v, running statistics."""
    states: tuple[Tensors, ...] = ()
    """New values of what the terms keep."""
    info: StepInfo | None = None
