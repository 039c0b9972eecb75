"""LeCam's anchors: what they follow, from when on they count, and that they are saved."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor

from fastdat.regularizers import LeCam
from tests.regularizers.eager_points import EagerPoints, Linear, gradients

D = Linear([1.0, 0.0])
REAL, FAKE = [4.0, 1.0, 7.0], [2.0, -5.0, 1.5]


def points(real: list[float], fake: list[float]) -> EagerPoints:
    """A step in which D's logits are these."""
    xr, xf = (torch.tensor([[t, 9.0] for t in side], dtype=torch.float64) for side in (real, fake))
    return EagerPoints(D, xr, xf)


def step(term: LeCam, at: EagerPoints) -> Tensor:
    """One step: the value, and the term's tensors take their new values."""
    given = {name: tensor.clone() for name, tensor in term.state().items()}
    value = term.value(at, given)
    after = term.advanced(at, given)
    assert after.keys() == given.keys()
    for name, tensor in term.state().items():
        assert after[name].dtype == tensor.dtype
        assert not after[name].requires_grad
        tensor.copy_(after[name])
    return value


def test_the_first_step_sets_the_anchors_to_its_means() -> None:
    term = LeCam()
    step(term, points(REAL, FAKE))
    assert (term.real.item(), term.fake.item(), term.steps.item()) == (4.0, -0.5, 1)


def test_the_anchors_are_running_means() -> None:
    term, batches = LeCam(decay=0.9), [(REAL, FAKE), ([1.0], [3.0]), ([2.0, 6.0], [0.0, -2.0])]
    for real, fake in batches:
        step(term, points(real, fake))
    assert term.real.item() == pytest.approx(0.9 * (0.9 * 4 + 0.1 * 1) + 0.1 * 4, rel=1e-14)
    assert term.fake.item() == pytest.approx(0.9 * (0.9 * -0.5 + 0.1 * 3) + 0.1 * -1, rel=1e-14)
    assert term.steps.item() == 3


def test_the_penalty_takes_the_anchors_of_its_own_step_as_constants() -> None:
    term = LeCam(start=0)
    value = step(term, points(REAL, FAKE))
    # a_r = 4, a_f = -0.5: all reals are above a_f, all fakes below a_r.
    assert value.item() == pytest.approx((4.5**2 + 1.5**2 + 7.5**2 + 2**2 + 9**2 + 2.5**2) / 3, rel=1e-14)
    # d/dw_0 of (w x - a)^2 is 2 x (w x - a), where w = 1.
    slope = (2 * (4 * 4.5 + 1 * 1.5 + 7 * 7.5) - 2 * (2 * 2 - 5 * 9 + 1.5 * 2.5)) / 3
    assert gradients(value, D)[0].item() == pytest.approx(slope, rel=1e-14)


def test_logits_beyond_the_other_sides_anchor_are_free() -> None:
    term = LeCam(start=0, decay=0.0)
    value = step(term, points([-3.0, -1.0], [2.0, 4.0]))  # a_r = -2, a_f = 3
    assert value.item() == 0
    assert gradients(value, D).norm() == 0


@pytest.mark.parametrize(("every", "start", "first"), [(1, 3, 3), (4, 8, 2), (4, 9, 3)])
def test_the_penalty_begins_at_step_start(every: int, start: int, first: int) -> None:
    term = LeCam(start=start, every=every)
    values = [step(term, points(REAL, FAKE)) for _ in range(first + 2)]
    assert [value.item() > 0 for value in values] == [False] * first + [True, True]
    assert gradients(values[0], D).norm() == 0
    assert term.steps.item() == every * (first + 2)


def test_its_state_is_saved_and_loaded() -> None:
    term = LeCam()
    step(term, points(REAL, FAKE))
    file = io.BytesIO()
    torch.save(term.state_dict(), file)
    file.seek(0)
    other = LeCam()
    other.load_state_dict(torch.load(file))
    assert {name: t.item() for name, t in other.state().items()} == {"real": 4.0, "fake": -0.5, "steps": 1}


def test_every_one_is_its_own() -> None:
    term = LeCam()
    assert {term: 1}[term] == 1
    assert term != LeCam()
    copied = copy.deepcopy(term)
    assert copied != term
    assert copied.settings == term.settings
    step(copied, points(REAL, FAKE))
    assert term.steps.item() == 0
