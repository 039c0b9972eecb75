"""The terms in the engine's step: what they add to it, eager, in parts and compiled."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat.regularizers import SAN, LeCam, Pair, Term
from fastdat.regularizers.term_registry import TERMS
from tests.regularizers.eager_points import EagerPoints, gradients, net_and_batch
from tests.regularizers.test_term_values import BOUNDS, CASES

CONFIG = fastdat.DATConfig(bounds=BOUNDS, eps=20.0)


def gradient_of(D: nn.Module, xr: Tensor, xf: Tensor, terms: tuple[Term, ...], **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    loss = fastdat.dat_step(D, xr, xf, CONFIG, "gan", regularizers=terms, generator=generator, **options)
    return gradients(loss, D)


def added(D: nn.Module, xr: Tensor, xf: Tensor, term: Term) -> Tensor:
    """The gradient of the term alone; SAN sees the samples that the loss sees, the others the clean ones."""
    given: Mapping[str, Tensor] = {
        **term.draws(Pair(xr, xf), torch.Generator().manual_seed(5)),
        **{name: tensor.clone() for name, tensor in term.state().items()},
    }
    if isinstance(term, SAN):
        _, info = fastdat.dat_step(D, xr, xf, CONFIG, "gan", compile=False, with_info=True)
        xr, xf = info.xr_adv, info.xf_adv
    return gradients(term.weight * term.value(EagerPoints(D, xr, xf, bounds=BOUNDS), given), D)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("microbatch", [None, 2], ids=["whole", "parts"])
def test_adds_its_gradient_to_that_of_the_step(case: str, microbatch: int | None) -> None:
    term = copy.deepcopy(CASES[case][0])  # LeCam keeps what a step has told it
    D, xr, xf = net_and_batch()
    expected = added(D, xr, xf, term)
    without = gradient_of(D, xr, xf, (), compile=False)
    found = gradient_of(D, xr, xf, (term,), compile=False, microbatch=microbatch) - without
    assert (found - expected).norm() <= 1e-10 * expected.norm()


class Tiny(nn.Module):
    """Two linear layers and two heads on images (n, 3, 4, 2); its ``conv2`` is what RFM compares."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = nn.Linear(24, 5)
        self.heads = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, direction = self.heads(torch.tanh(self.conv2(x.flatten(1)))).unbind(1)
        return logits, direction


@pytest.mark.slow
def test_all_of_them_compile_into_one_graph(compile_counters: Mapping[str, Mapping[str, int]]) -> None:
    D, xr = Tiny().double(), torch.rand(5, 3, 4, 2, dtype=torch.float64) * 1.6 - 0.8
    xf = 0.7 * xr.flip(0) + 0.2
    one_of_each = {type(term): term for term, _ in CASES.values()}.values()

    def terms() -> tuple[Term, ...]:
        return tuple(copy.deepcopy(term) for term in one_of_each)

    assert {type(term) for term in one_of_each} == set(TERMS.values())
    expected = gradient_of(D, xr, xf, terms(), compile=False)
    assert (gradient_of(D, xr, xf, terms()) - expected).norm() <= 1e-9 * expected.norm()
    assert compile_counters["graph_break"] == {}
    assert compile_counters["stats"]["unique_graphs"] == 1


def test_lecam_moves_once_a_step() -> None:
    D, xr, xf = net_and_batch()
    term = LeCam(decay=0.9, start=0)
    for microbatch in (None, 2):
        gradient_of(D, xr, xf, (term,), compile=False, microbatch=microbatch)
    assert term.steps.item() == 2
    with torch.no_grad():
        torch.testing.assert_close(term.real, D(xr)[0].mean(), rtol=1e-12, atol=0)
        torch.testing.assert_close(term.fake, D(xf)[0].mean(), rtol=1e-12, atol=0)
