"""A repeated step of every kind runs the graph that there is: nothing is taken apart, and nothing is traced in vain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.engine import prepared
from fastdat.regularizers import AR, CR, R1, RFM, LeCam
from tests.discriminators import Conv, batch, make
from tests.engine.term_cases import TERMS, Direction
from tests.engine.test_repeated import scale

pytestmark = pytest.mark.usefixtures("only_traced")


def hooked() -> nn.Module:
    D = Conv()
    D.conv1.register_forward_hook(scale(1.5))
    return D


MADE: dict[str, Callable[[], nn.Module]] = {
    "a hook": hooked,
    "parametrized": lambda: Conv(nn.utils.parametrizations.spectral_norm),
    "older spectral norm": lambda: Conv(nn.utils.spectral_norm),
    "older weight norm": lambda: Conv(nn.utils.weight_norm),
    "batch norm": lambda: make("batchnorm"),
}


def mean_of(D: nn.Module, xr: Tensor, xf: Tensor, scale: float) -> Tensor:
    mean: Tensor = scale * D(xr).mean()
    return mean


STEPS: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "first order": lambda D, xr, xf: fastdat.dat_step(D, xr, xf).backward(),
    "second order": lambda D, xr, xf: fastdat.dat_step(D, xr, xf, DATConfig(second_order=True)).backward(),
    "of G": lambda D, xr, xf: fastdat.generator_step(D, xf.requires_grad_(), xr),
    "aux_loss": lambda D, xr, xf: fastdat.dat_step(D, xr, xf, aux_loss=lambda D, xr, xf: D(xr).mean()),
    "penalties": lambda D, xr, xf: fastdat.dat_step(D, xr, xf, regularizers=(R1(2.0), AR(), LECAM)),
    "aux_loss, a new partial": lambda D, xr, xf: fastdat.dat_step(
        D, xr, xf, aux_loss=partial(mean_of, scale=0.5)
    ),
    "features": lambda D, xr, xf: fastdat.dat_step(D, xr, xf, regularizers=(RFM("conv2"),)),
    "consistency": lambda D, xr, xf: fastdat.dat_step(D, xr, xf, regularizers=(CR(),)),
}
LECAM = LeCam(start=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("made", "stepped"),
    [(made, "first order") for made in MADE] + [("parametrized", step) for step in list(STEPS)[1:]],
)
def test_a_repeated_step_runs_its_graph(made: str, stepped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    D, step = MADE[made]().double(), STEPS[stepped]
    step(D, *batch("conv", m=5)[:2])
    monkeypatch.setattr(prepared, "structure_of", None)  # what a step takes apart before it may be traced
    for _ in range(3):
        step(D, *batch("conv", m=5)[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", TERMS)
def test_every_regularizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    D: nn.Module = Direction(Conv()) if name == "san" else Conv()
    D, term = D.double(), TERMS[name]()
    for i in range(4):
        if i == 1:
            monkeypatch.setattr(prepared, "structure_of", None)
        fastdat.dat_step(D, *batch("conv", m=5)[:2], regularizers=(term,)).backward()


def test_the_values_of_a_partial_are_followed() -> None:
    D = Conv().double()
    xr, xf, _ = batch("conv", m=5)
    for factor in (0.5, 2.0, 2.0):
        aux_loss = partial(mean_of, scale=factor)
        found, expected = (
            fastdat.dat_step(D, xr, xf, aux_loss=aux_loss, compile=compile) for compile in (True, False)
        )
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
