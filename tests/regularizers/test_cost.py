"""``cost`` against FLOPs counted while a step runs, with SNGAN-32 at a width at which its first layer costs little."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fastdat
from bench.step.flops import of_compiled, of_forward
from fastdat import DATConfig
from fastdat.experiments.step_counters import CountFlops
from fastdat.nets import SNGANDiscriminator
from fastdat.regularizers import (
    ALP,
    AR,
    ASGAN,
    BCR,
    CR,
    DRAGAN,
    GP,
    LP,
    R1,
    R2,
    RFM,
    SAN,
    ApproxR1,
    ApproxR2,
    DigGAN,
    LeCam,
    MaxGP,
    RobGAN,
    Term,
    ZeroGP,
    cost,
)

M = 2
PLAIN, DAT, SECOND = DATConfig(real=False, fake=False), DATConfig(), DATConfig(second_order=True)
BOTH = (R1(), R2())
RFM_HERE = RFM("blocks.3.conv2")

Row = tuple[Any, tuple[Term, ...], float]
ROWS: dict[str, Row] = {
    "plain": (PLAIN, (), 3),
    "dat": (DAT, (), 5),
    "second-order": (SECOND, (), 7),
    "datt": (DATConfig(clean_weight=1.0), (), 7),
    "datt-second-order": (DATConfig(clean_weight=1.0, second_order=True), (), 9),
    "gp": (PLAIN, (GP(),), 5),
    "lp": (PLAIN, (LP(),), 5),
    "dragan": (PLAIN, (DRAGAN(),), 5),
    "0gp-between": (PLAIN, (ZeroGP("between"),), 5),
    "r1": (PLAIN, (R1(),), 4.5),
    "r2": (PLAIN, (R2(),), 4.5),
    "r1-r2": (PLAIN, BOTH, 6),
    "diggan": (PLAIN, (DigGAN(),), 6),
    "maxgp": (PLAIN, (MaxGP(),), 6),
    "dat-r1": (DAT, (R1(),), 6),
    "dat-r1-r2": (DAT, BOTH, 7),
    "second-order-r1-r2": (SECOND, BOTH, 7),
    "second-order-all-gradients": (SECOND, (*BOTH, DigGAN(), MaxGP()), 7),
    "asgan": (ASGAN(), (), 5),
    "asgan-r1-r2": (ASGAN(), BOTH, 7),
    "ar": (PLAIN, (AR(),), 7),
    "rfm": (PLAIN, (RFM_HERE,), 7),
    "dat-ar": (DAT, (AR(),), 10),
    "alp": (PLAIN, (ALP(),), 8),
    "robgan": (RobGAN(steps=3), (), 6),
    "robgan-r1-r2": (RobGAN(steps=2), BOTH, 9),
    "ar1": (PLAIN, (ApproxR1(),), 4.5),
    "ar1-ar2": (PLAIN, (ApproxR1(), ApproxR2()), 6),
    "cr": (PLAIN, (CR(),), 4.5),
    "bcr": (PLAIN, (BCR(),), 6),
    "lecam": (PLAIN, (LeCam(start=0),), 3),
    "dat-lecam": (DAT, (LeCam(start=0),), 7),
    "three-steps": (DATConfig(steps=3), (), 9),
    "two-steps-second-order": (DATConfig(steps=2, second_order=True), (), 11),
    "reals-only": (DATConfig(fake=False), (), 4.5),
    "reals-only-r2": (DATConfig(fake=False), (R2(),), 6),
    "reals-only-r1-r2": (DATConfig(fake=False), BOTH, 7),
    "reals-only-second-order-r1-r2": (DATConfig(fake=False, second_order=True), BOTH, 7),
    "reals-only-r1-r2-ar": (DATConfig(fake=False), (*BOTH, AR()), 12),
    "fakes-only-ar": (DATConfig(real=False), (AR(),), 10),
    "ar-r1-r2": (PLAIN, (AR(), *BOTH), 9),
    "r1-r2-ar": (PLAIN, (*BOTH, AR()), 9),
    "ar-r1": (PLAIN, (AR(), R1()), 8),
    "official": (DATConfig.official(), (), 6),
    "official-r1-r2": (DATConfig.official(), BOTH, 9),
}


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    xr, xf = (torch.rand(2, M, 3, 32, 32) * 1.6 - 0.8).unbind()
    return xr, xf * 0.9


@pytest.mark.parametrize("row", ROWS)
def test_of_the_table(row: str) -> None:
    config, terms, expected = ROWS[row]
    assert cost(config, terms) == expected


@pytest.mark.parametrize("row", ROWS)
def test_counted(row: str) -> None:
    """FLOPs of the eager step, once the first call has inspected D."""
    config, terms, expected = ROWS[row]
    D, batch = SNGANDiscriminator(32, ndf=64), samples()
    fastdat.dat_step(D, *batch, config, compile=False, regularizers=terms).backward()
    with CountFlops() as counter:
        fastdat.dat_step(D, *batch, config, compile=False, regularizers=terms).backward()
    assert counter.total / of_forward(D, batch) == pytest.approx(expected, rel=0.02)


# An eager step calls D on the clean fakes, too, for RobGAN's reals alone; a compiled one drops what nobody uses.
COMPILED = {"robgan-r1": (RobGAN(steps=2), (R1(),), 7), **ROWS}


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    ["r1", "gp", "dat-r1-r2", "second-order-r1-r2", "asgan-r1-r2", "ar", "rfm", "alp", "bcr", "robgan-r1"],
)
def test_counted_in_the_compiled_graph(row: str) -> None:
    config, terms, expected = COMPILED[row]
    D, batch = SNGANDiscriminator(32, ndf=64), samples()

    def step() -> None:
        fastdat.dat_step(D, *batch, config, fold=False, regularizers=terms).backward()

    assert cost(config, terms) == expected
    assert of_compiled(step) / of_forward(D, batch) == pytest.approx(expected, rel=0.02)


def test_turns_are_averaged() -> None:
    """With every=16, R1 costs 1.5 in one step of 16. Terms share a gradient in the steps that they have in common."""
    assert cost(PLAIN, (R1(every=16),)) == pytest.approx(3 + 1.5 / 16)
    assert cost(DAT, (R1(every=2), ZeroGP(every=2))) == pytest.approx((5 + 6) / 2)
    assert cost(DAT, (R1(every=2), GP(every=3))) == pytest.approx(5 + 1 / 2 + 2 / 3)


def test_a_head_that_is_regularized_costs_nothing() -> None:
    assert cost(PLAIN, (SAN(),)) == 3
    assert cost(DAT, (SAN(),)) == 5
