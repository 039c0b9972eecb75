"""Settings of the measurements of robustness, in a run's configuration and in the command ``fastdat attack``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastdat.util.settings import (
    NoneMeans,
    PositiveFloat,
    PositiveInt,
    SeedInt,
    check_fields,
)


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What is measured of a pair of nets, and how often while they train.

    Args:
        every: G steps between measurements while training, each at the next line of stats.jsonl; None: none.
        latent: search adversarial examples in latent space (Fig. 1).
        pgd: count the steps until D's verdict flips (Fig. 9).
        lipschitz: input gradients of D, largest singular values, and samples in the penalty case (Sec. III-C).
        samples: reals, and as many fakes, that are measured; the same ones each time, but see
            :meth:`fastdat.Trainer.reals` for a ``DataLoader``.
        norm, radius, restarts, steps: of the search in latent space;
            :func:`fastdat.robustness.latent_adversarial_share`.
        step_size, cap: of PGD; :func:`fastdat.robustness.pgd_steps_to_flip`.
        seed: of latents and of all other draws.

    Raises:
        ConfigError: a value of the wrong type or outside its range.
    """

    every: Annotated[PositiveInt | None, NoneMeans("no measurements while training")] = None
    latent: bool = True
    pgd: bool = True
    lipschitz: bool = True
    samples: PositiveInt = 128
    norm: Literal["rms", "linf", "l2"] = "rms"
    radius: PositiveFloat = 0.1
    restarts: PositiveInt = 2
    steps: PositiveInt = 30
    step_size: PositiveFloat = 2 / 255
    cap: PositiveInt = 100
    seed: SeedInt = 0

    def __post_init__(self) -> None:
        check_fields(self, prefix="monitor.")
