"""Settings that move along half a period of a cosine during training, as in R3GAN (Huang et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor
from torch.optim import Optimizer

from fastdat.training.ema import EMA
from fastdat.util.errors import ConfigError
from fastdat.util.settings import NoneMeans, NonNegativeFloat, PositiveFloat, PositiveInt, Range, check_fields

_Beta = Annotated[float, Range(at_least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Which settings move from their values at the start to others at the end, and stay there.

    After ``t`` of ``steps`` G steps a setting is ``end + (start - end) (1 + cos(pi t / steps)) / 2``.

    Args:
        steps: G steps until the end; None: all of the run's.
        lr: the rate of both optimizers at the end; None: as ``lr_decay`` says.
        beta2: Adam's second beta at the end; None: constant.
        regularizers: what the weights of all regularizers are multiplied by at the end; None: constant.
        ema_halflife: the half-life of G's running average, in G steps, begins at 0 and ends at the one that the decay
            ``ema`` has, so that the average soon forgets the first nets.

    Raises:
        ConfigError: a value of the wrong type or outside its range, or ``steps`` but nothing that moves.
    """

    steps: Annotated[PositiveInt | None, NoneMeans("all of the run's")] = None
    lr: Annotated[PositiveFloat | None, NoneMeans("as lr_decay says")] = None
    beta2: Annotated[_Beta | None, NoneMeans("constant")] = None
    regularizers: Annotated[NonNegativeFloat | None, NoneMeans("constant")] = None
    ema_halflife: bool = False

    def __post_init__(self) -> None:
        check_fields(self, prefix="cosine.")
        if self.steps is not None and not self.moves:
            raise ConfigError(
                f"cosine.steps={self.steps} would have no effect: set what moves, cosine.lr, cosine.beta2, "
                "cosine.regularizers or cosine.ema_halflife"
            )

    @property
    def moves(self) -> bool:
        """Whether any setting moves."""
        return self.ema_halflife or any(end is not None for end in (self.lr, self.beta2, self.regularizers))


class Cosine:
    """Sets what moves for one iteration after another; a function of the step alone.

    Args:
        config: what moves.
        steps: G steps of the run.
        optimizers: their rates and betas now are those of the start.
        strengths: 0-dimensional tensors that terms hold as weights, each with its value at the start.
        ema: G's running average; its decay now is that of the end.

    Raises:
        ConfigError: an optimizer has no betas, which ``config.beta2`` should move.
    """

    def __init__(
        self,
        config: CosineConfig,
        steps: int,
        optimizers: Sequence[Optimizer],
        strengths: Sequence[tuple[Tensor, float]] = (),
        ema: EMA | None = None,
    ) -> None:
        self._config, self._steps = config, config.steps or steps
        groups = [(optimizer, i) for optimizer in optimizers for i in range(len(optimizer.param_groups))]
        for optimizer, i in groups:
            if config.beta2 is not None and "betas" not in optimizer.param_groups[i]:
                raise ConfigError(
                    f"cosine.beta2 moves the second beta of Adam, and {type(optimizer).__name__} has no betas: leave "
                    "it out"
                )
        self._starts = [
            (optimizer, i, float(group["lr"]), tuple(map(float, group.get("betas", ()))))
            for optimizer, i in groups
            for group in [optimizer.param_groups[i]]
        ]
        self._strengths, self._ema = strengths, ema
        self._halflife = math.log(0.5) / math.log(ema.decay) if ema is not None and ema.decay > 0 else 0.0

    def set(self, done: int) -> None:
        """Set what moves for the iteration after ``done`` G steps."""
        config, way = self._config, self._way(done)
        for optimizer, i, lr, betas in self._starts:
            group = optimizer.param_groups[i]  # looked up each time: loading a state makes new ones
            if config.lr is not None:
                set_number(group, "lr", lr + way * (config.lr - lr))
            if config.beta2 is not None:
                group["betas"] = (betas[0], betas[1] + way * (config.beta2 - betas[1]))
        if config.regularizers is not None:
            for strength, start in self._strengths:
                strength.fill_(start * (1 + way * (config.regularizers - 1)))
        if config.ema_halflife and self._ema is not None:
            halflife = way * self._halflife
            self._ema.decay = 0.5 ** (1 / halflife) if halflife > 0 else 0.0

    def put_back(self) -> None:
        """Give the optimizers their betas of the start again; the rates are :class:`LearningRate`'s."""
        if self._config.beta2 is not None:
            for optimizer, i, _, betas in self._starts:
                optimizer.param_groups[i]["betas"] = betas

    def _way(self, done: int) -> float:
        """From 0 at the start to 1 at the end."""
        return (1 - math.cos(math.pi * min(done / self._steps, 1))) / 2


def set_number(group: dict[str, Any], key: str, value: float) -> None:
    """Set a number of an optimizer's group; of a tensor, in place, since a captured graph may read it."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
