"""Steps until D's verdict flips, against the closed form of a linear discriminator."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat.robustness import midpoint, pgd_steps_to_flip
from tests import discriminators
from tests.robustness.linear_nets import SHAPE, LinearD

A = 2 / 255


def step_of(D: LinearD) -> float:
    """A step changes the logit by a ||w||_1."""
    return A * float(D.direction.abs().sum())


@pytest.mark.parametrize("side", ["fake", "real"])
def test_a_linear_discriminator_gives_the_closed_form(side: Any) -> None:
    """ceil((t - D) / (a ||w||_1)) steps, for fakes below the threshold and, with other signs, for reals above it."""
    D, x = LinearD(), torch.randn(200, *SHAPE, dtype=torch.float64)
    threshold = 0.1
    missing = (threshold - D(x).detach()[:, 0]) * (1 if side == "fake" else -1)
    expected = (missing / step_of(D)).ceil().long()
    found = pgd_steps_to_flip(D, x, side, threshold=threshold, cap=60, bounds=None)
    eligible = missing > 0
    assert torch.equal(found.eligible, eligible)
    assert torch.equal(found.flipped, eligible & (expected <= 60))
    assert torch.equal(found.steps, torch.where(eligible, expected.clamp(max=60), 0))
    assert 0 < found.success_rate < 1, "some reach the cap"
    assert found.count == int(eligible.sum())
    assert found.success_rate == float((expected[eligible] <= 60).double().mean())
    assert found.mean_steps == pytest.approx(float(expected[eligible].clamp(max=60).double().mean()))
    moved = found.steps[:, None].double() * A * D.direction.sign() * (1 if side == "fake" else -1)
    torch.testing.assert_close(found.images.flatten(1), x.flatten(1) + moved, rtol=0, atol=1e-12)


def test_a_logit_on_the_threshold_is_that_of_a_real() -> None:
    """All numbers are exact here: w = 1, steps of 1/4, logits of -1/2, 0 and 1/2, threshold 0."""

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)

    x = torch.tensor([[-0.5], [0.0], [0.5]])
    settings: dict[str, Any] = {"threshold": 0.0, "step_size": 0.25}
    fakes, reals = (pgd_steps_to_flip(Sum(), x, side, **settings) for side in ("fake", "real"))
    assert fakes.eligible.tolist() == [True, False, False]
    assert fakes.steps.tolist() == [2, 0, 0], "after two steps its logit is 0"
    assert reals.eligible.tolist() == [False, True, True]
    assert reals.steps.tolist() == [0, 1, 3], "after two steps its logit is 0, which is a real's"
    at_the_cap = pgd_steps_to_flip(Sum(), x, "real", cap=3, **settings)
    assert (at_the_cap.steps.tolist(), at_the_cap.flipped.tolist()) == ([0, 1, 3], [False, True, True])
    below = pgd_steps_to_flip(Sum(), x, "real", cap=2, **settings)
    assert (below.steps.tolist(), below.flipped.tolist()) == ([0, 1, 2], [False, True, False])


def test_images_stay_within_their_bounds() -> None:
    """The bounds stop the attack: the logit ends at the sum over |w| of what is left to the bound."""
    D, x = LinearD(), torch.rand(20, *SHAPE, dtype=torch.float64) * 1.2 - 0.7
    found = pgd_steps_to_flip(D, x, "fake", threshold=1e3, bounds=(-0.75, 0.5), cap=170)
    assert not found.flipped.any()
    assert found.steps.tolist() == [170] * 20
    corner = torch.where(D.direction > 0, 0.5, -0.75).double()
    torch.testing.assert_close(found.images.flatten(1), corner.expand(20, 6), rtol=0, atol=0)
    assert math.isnan(pgd_steps_to_flip(D, x, "real", threshold=1e3).mean_steps)


def test_parts_and_labels_change_nothing() -> None:
    D = discriminators.make("conditional", torch.float32)
    x, y = torch.rand(7, 3, 8, 8) * 2 - 1, torch.randint(5, (7,))
    threshold = midpoint(D, x[:3], x[3:], args_real=(y[:3],), args_fake=(y[3:],))
    whole = pgd_steps_to_flip(D, x, "fake", threshold=threshold, args=(y,), cap=15)
    parts = pgd_steps_to_flip(D, x, "fake", threshold=threshold, args=(y,), cap=15, batch_size=2)
    assert 0 < whole.count < 7
    assert torch.equal(whole.steps, parts.steps)
    torch.testing.assert_close(whole.images, parts.images)


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook", "fused", "batchnorm"])
def test_the_net_stays_as_it_was(kind: str) -> None:
    D = discriminators.make("spectral" if kind == "fused" else kind, torch.float32)
    if kind == "fused":
        fastdat.fuse_spectral_norm(D)
    x = torch.rand(4, 3, 8, 8)
    before, given, state = copy.deepcopy(D.state_dict()), x.clone(), torch.get_rng_state()
    with torch.no_grad():
        pgd_steps_to_flip(D, x, "real", threshold=-1e3, cap=3)
    torch.testing.assert_close(D.state_dict(), before, rtol=0, atol=0)
    assert all(m.training for m in D.modules())
    assert all(p.grad is None and p.requires_grad for p in D.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, given)
    assert not x.requires_grad


@pytest.mark.slow
def test_compiled_as_eager() -> None:
    D, x = discriminators.make("spectral", torch.float32), torch.rand(6, 3, 8, 8)
    threshold = midpoint(D, x, x) - 0.02
    eager, compiled = (
        pgd_steps_to_flip(D, x, "real", threshold=threshold, compile=compile) for compile in (False, True)
    )
    assert eager.flipped.any()
    assert torch.equal(eager.steps, compiled.steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": "fakes"}, 'side must be "real" or "fake"; got \'fakes\''),
        ({"threshold": math.inf}, "threshold must be a finite number; got inf"),
        ({"step_size": 0.0}, "step_size must be a finite number > 0; got 0.0"),
        ({"cap": 0}, "cap must be an integer >= 1; got 0"),
        ({"bounds": (1.0, -1.0)}, "bounds must be .low, high. with low < high, or None; got"),
        ({"args": (torch.zeros(2),)}, "args must hold tensors with a row for each of the 3 x"),
        ({"x": torch.zeros(0, *SHAPE)}, "x must hold at least one sample"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    given = {"x": torch.zeros(3, *SHAPE).double(), "side": "fake", "threshold": 0.0} | changes
    with pytest.raises(ValueError, match=message):
        pgd_steps_to_flip(LinearD(), given.pop("x"), given.pop("side"), **given)
