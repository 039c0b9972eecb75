"""Which regularizers take part in a step, under which names; and what the reference refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import fastdat
from fastdat import DATConfig
from fastdat.regularizers import R1, R2, Needs, Points, Term
from tests.regularizers.hand_cases import PLAIN, Linear, samples

STEPS = {"reference": fastdat.reference.dat_step, "eager": partial(fastdat.dat_step, compile=False)}
each_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)


@each_step
def test_a_term_takes_part_in_its_turns_only(step: Any) -> None:
    """``every`` times as strong there; the measurement is the value without that factor, under a name that stays."""
    D, (xr, xf) = Linear(), samples()
    terms = (R1(gamma=2.0, every=4), R1(gamma=6.0), R2(gamma=4.0, every=2))
    square = 1.5**2
    plain = step(D, xr, xf, PLAIN, "wgan").detach()
    for number, names, value in (
        (8, {"r1": square, "r1-2": 3 * square, "r2": 2 * square}, (4 + 3 + 2 * 2) * square),
        (6, {"r1-2": 3 * square, "r2": 2 * square}, (3 + 2 * 2) * square),
        (9, {"r1-2": 3 * square}, 3 * square),
    ):
        loss, info = step(D, xr, xf, PLAIN, "wgan", regularizers=terms, step=number, with_info=True)
        assert float(loss.detach() - plain) == pytest.approx(value)
        assert {n: float(v) for n, v in info.terms.items() if "grad_norm" not in n} == pytest.approx(names)
        assert all(float(info.terms[f"{name}.grad_norm"]) == pytest.approx(1.5) for name in names)


@each_step
def test_turns_need_the_number_of_the_step(step: Any) -> None:
    with pytest.raises(ValueError, match="step"):
        step(Linear(), *samples(), PLAIN, regularizers=(R1(every=2),))


@each_step
@pytest.mark.parametrize("seed", ["eq10", "alg1"])
def test_a_pair_loss_has_no_g1_to_attack(step: Any, seed: Any) -> None:
    with pytest.raises(ValueError, match=seed):
        step(Linear(), *samples(), DATConfig(seed=seed), "rpgan")


@dataclass(frozen=True)
class OwnTerm(Term):
    """Of a user."""

    weight: float = 1.0
    every: int = 1
    name = "own"
    needs = Needs(logits=True)

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return points.logits().real.square().mean()


def test_the_reference_knows_no_term_of_a_user() -> None:
    D, (xr, xf) = Linear(), samples()
    with pytest.raises(NotImplementedError, match=r"OwnTerm.*compile=False"):
        fastdat.reference.dat_step(D, xr, xf, PLAIN, regularizers=(OwnTerm(),))
    _, info = fastdat.dat_step(D, xr, xf, PLAIN, compile=False, regularizers=(OwnTerm(),), with_info=True)
    torch.testing.assert_close(info.terms["own"], D(xr).detach().square().mean())
