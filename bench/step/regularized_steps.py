"""What bench_regularizers measures: the steps of WGAN-GP and R3GAN as their code writes them, and by fastdat."""

from __future__ import annotations

from functools import partial

import fastdat
from bench.step.eager_baselines import r3gan_loss, wgan_gp_loss
from bench.step.workloads import DAT, DAT_SECOND_ORDER, PLAIN, PLAIN_PER_FORWARD, LossOf, Variant
from fastdat import DATConfig
from fastdat.regularizers import AR, GP, R1, R2, Term, cost

GAMMA = 0.05
_R1_R2 = (R1(GAMMA), R2(GAMMA))


def _eager(name: str, loss: LossOf, loss_name: str, *terms: Term) -> Variant:
    """A baseline, which computes the gradient of the plain step with ``terms``, with a power iteration a call of D."""
    config = PLAIN_PER_FORWARD
    return Variant(name, loss, loss, config, cost(config, terms), loss_name=loss_name, regularizers=terms)


def _fastdat(name: str, loss_name: str, config: DATConfig, *terms: Term) -> Variant:
    loss = partial(fastdat.dat_step, config=config, loss=loss_name, regularizers=terms)
    return Variant(
        f"fastdat {name}",
        loss,
        partial(loss, compile=False),
        config,
        cost(config, terms),
        config.second_order,
        compiled=True,
        fold=True,
        loss_name=loss_name,
        regularizers=terms,
    )


REGULARIZED = (
    _eager("eager WGAN-GP", wgan_gp_loss, "wgan", GP()),
    _fastdat("GP", "wgan", PLAIN, GP()),
    _eager("eager RpGAN + R1 + R2", partial(r3gan_loss, gamma=GAMMA), "rpgan", *_R1_R2),
    _fastdat("RpGAN + R1 + R2", "rpgan", PLAIN, *_R1_R2),
    _fastdat("DAT second order", "rpgan", DAT_SECOND_ORDER),
    _fastdat("DAT second order + R1 + R2", "rpgan", DAT_SECOND_ORDER, *_R1_R2),
    _fastdat("DAT", "rpgan", DAT),
    _fastdat("DAT + R1 + R2", "rpgan", DAT, *_R1_R2),
    _fastdat("RpGAN", "rpgan", PLAIN),
    _fastdat("RpGAN + R1", "rpgan", PLAIN, R1(GAMMA)),
    _fastdat("hinge + AR", "hinge", PLAIN, AR()),
)
"""The most important first; they are compiled in this order."""
