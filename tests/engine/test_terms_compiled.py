"""Regularizers in a compiled step: one graph, the numbers of the reference, and no new graph when a weight changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch._dynamo
from torch import Tensor

import fastdat
from fastdat import DATConfig
from fastdat.engine import compile as engines
from fastdat.regularizers import AR, CR, GP, R1, R2, RFM, LeCam, RobGAN
from fastdat.regularizers.term import Needs, Points, Term
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make
from tests.engine.term_cases import Direction
from tests.engine.test_terms import ATTACKS, compare, stepped
from tests.slow_cases import slow_except

TRACED: list[tuple[str, str, tuple[str, ...]]] = [
    ("spectral", "none", ("gp", "r1", "ar", "lecam")),
    ("spectral", "dat", ("alp", "r2", "rfm", "ar1")),
    ("spectral", "per-forward", ("0gp-both", "bcr", "dragan")),
    ("conditional", "second-order", ("r1", "r2", "diggan", "cr")),
    ("batchnorm", "datt-two-steps", ("maxgp", "rfm", "gp")),
    ("batchnorm", "robgan", ("alp", "0gp-real", "ar2")),
    ("conv", "asgan", ("0gp-between", "rfm", "r1")),
]


@pytest.mark.parametrize(("kind", "attack", "names"), slow_except(TRACED[::2], TRACED))
@pytest.mark.usefixtures("only_traced")
def test_traced_as_one_graph(kind: str, attack: str, names: tuple[str, ...]) -> None:
    """Several of them at once: fullgraph, and the reference's numbers."""
    torch.manual_seed(0)
    xr, xf, args = batch(kind, m=5)
    compare(make(kind), xr, xf, names, 1e-10, config=ATTACKS[attack], loss="gan", compile=True, **args)


@pytest.mark.usefixtures("only_traced")
@pytest.mark.slow
def test_traced_with_a_further_output() -> None:
    torch.manual_seed(0)
    xr, xf, _ = batch("conv", m=5)
    compare(
        Direction(make("conv")),
        xr,
        xf,
        ("san", "r1"),
        1e-10,
        config=ATTACKS["dat"],
        loss="rpgan",
        compile=True,
    )


@dataclass(frozen=True)
class SmallFeatures(Term):
    """A user's term that looks at features of the clean samples only."""

    weight: float = 3.0
    every: int = 1

    name = "small_features"
    needs = Needs(features="conv2")

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return sum(side.square().mean() for side in points.features("conv2"))  # type: ignore[return-value]


@pytest.mark.usefixtures("only_traced")
@pytest.mark.slow
def test_traced_with_a_further_loss() -> None:
    """It calls D last, and nobody takes the features of that call: none may be left over."""
    torch.manual_seed(0)
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    found = [
        stepped(
            D, xr, xf, (SmallFeatures(),), compile=compile, aux_loss=lambda D, xr, xf: D(xr).square().mean()
        )
        for compile in (False, True)
    ]
    assert relative_error(found[1][1], found[0][1]) <= 1e-12
    assert found[0][3].terms["small_features"] > 0


@pytest.mark.usefixtures("only_traced")
@pytest.mark.slow
def test_twenty_steps_are_two_graphs() -> None:
    """One with the lazy regularizer, one without; weights that change are inputs. LeCam's anchors move."""
    torch.manual_seed(0)
    D = make("spectral")
    gamma = torch.tensor(1.0)
    terms = (R1(gamma, every=4), GP(2.0), LeCam(1.0, decay=0.5, start=0), RFM("conv2", eps=0.3))
    plain = (R1(gamma, every=4), GP(2.0), LeCam(1.0, decay=0.5, start=0), RFM("conv2", eps=0.3))
    own, reference = copy.deepcopy(D), copy.deepcopy(D)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for step in range(20):
        gamma.fill_(1.0 + step / 10)
        xr, xf, _ = batch("spectral", m=5)
        for net, function, regularizers, generator in (
            (own, fastdat.dat_step, terms, generators[0]),
            (reference, fastdat.reference.dat_step, plain, generators[1]),
        ):
            net.zero_grad()
            function(
                net, xr, xf, loss="gan", regularizers=regularizers, step=step, generator=generator
            ).backward()
        assert relative_error(gradients(own), gradients(reference)) <= 1e-7  # gamma is in fp32
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 2
    torch.testing.assert_close(terms[2].state(), plain[2].state())


@pytest.mark.usefixtures("only_traced")
def test_equal_regularizers_and_discriminators_share_a_graph() -> None:
    torch.manual_seed(0)
    xr, xf, _ = batch("conv", m=5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for _ in range(3):
        D = make("conv")
        fastdat.dat_step(D, xr, xf, regularizers=(R1(2.0), RFM("conv2"))).backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1
    assert all(len(kind) == 1 for kind in engines._ENGINES.values())


class Brighter:
    """An augmentation of a user whose strength may change."""

    draws_per_sample = 1

    def __init__(self) -> None:
        self.strength = 0.0

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        return x + self.strength * draws[:, :, None, None]


class SmallLogits(Term):
    """A regularizer of a user that is no dataclass."""

    every = 1
    name = "small_logits"
    needs = Needs(logits=True)
    weight = 1.0

    def __init__(self) -> None:
        self.target = 0.5

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return (points.logits().real - self.target).square().mean()


@pytest.mark.usefixtures("only_traced")
def test_a_regularizer_whose_settings_change_is_followed() -> None:
    torch.manual_seed(0)
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    brighter, small = Brighter(), SmallLogits()
    terms = (CR(augment=brighter), small)
    losses = []
    for strength, target, weight in ((0.2, 0.5, 1.0), (0.8, 0.5, 1.0), (0.8, -2.0, 1.0), (0.8, -2.0, 7.0)):
        brighter.strength, small.target, small.weight = strength, target, weight
        graph, eager = (
            stepped(D, xr, xf, terms, compile=compile, generator=torch.Generator().manual_seed(5))
            for compile in (True, False)
        )
        assert relative_error(graph[1], eager[1]) <= 1e-12
        torch.testing.assert_close(graph[3].terms, eager[3].terms)
        losses.append(graph[3].terms)
    assert all(before != after for before, after in pairwise(losses[:3])), "each change is felt"


@pytest.mark.usefixtures("only_traced")
@pytest.mark.slow
def test_D_stays_as_it_was() -> None:
    """No hook, no tensor of the step, no other mode is left in D, and a repeated call does not trace again."""
    torch.manual_seed(0)
    D = make("batchnorm")
    xr, xf, _ = batch("batchnorm", m=5)
    for _ in range(3):
        stats = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        fastdat.dat_step(D, xr, xf, RobGAN(), regularizers=(RFM("conv2"), AR())).backward()
        assert not any(module._forward_hooks for module in D.modules())
        assert all(module.training for module in D.modules())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == stats


CASES: dict[str, tuple[str, object, tuple[str, ...]]] = {
    "dat": ("spectral", DATConfig(eps=30.0), ("r1", "ar", "gp")),
    "batchnorm": ("batchnorm", RobGAN(eps=0.3, step=0.2, steps=2), ("0gp-both", "rfm")),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_compiled(case: str) -> None:
    torch.manual_seed(0)
    kind, config, names = CASES[case]
    xr, xf, args = batch(kind, m=5)
    compare(make(kind), xr, xf, names, 1e-10, config=config, loss="gan", compile=True, **args)


@pytest.mark.slow
def test_compiled_in_parts() -> None:
    torch.manual_seed(0)
    D = make("spectral")
    xr, xf, _ = batch("spectral", m=6)
    terms: tuple[Term, ...] = (AR(eps=0.3), R2(2.0))
    whole = stepped(D, xr, xf, terms, generator=torch.Generator().manual_seed(1), loss="gan")
    parts = stepped(
        D, xr, xf, terms, generator=torch.Generator().manual_seed(1), loss="gan", compile=True, microbatch=3
    )
    assert relative_error(parts[1], whole[1]) <= 1e-10
    torch.testing.assert_close(parts[3].terms, whole[3].terms)
