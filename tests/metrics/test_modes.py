"""Coverage of points whose scores are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastdat.data.mixture import BALANCED, IMBALANCED, MEANS, STD, Mixture
from fastdat.metrics.modes import coverage


def points(counts: list[int]) -> Tensor:
    """``counts[k]`` points on the mean of mode k."""
    return torch.tensor(MEANS, dtype=torch.float64).repeat_interleave(torch.tensor(counts), dim=0)


def test_exact_shares() -> None:
    found = coverage(points([1] * 9), BALANCED)
    assert found.histogram.tolist() == [1 / 9] * 9
    assert found.modes.item() == 9
    assert found.high_quality.item() == 1.0
    assert found.kl.item() == pytest.approx(0, abs=1e-12)


def test_one_mode() -> None:
    found = coverage(points([0, 0, 0, 0, 5, 0, 0, 0, 0]), BALANCED)
    assert found.modes.item() == 1
    assert found.kl.item() == pytest.approx(math.log(9))


def test_a_mode_counts_above_a_fifth_of_its_probability() -> None:
    # In the imbalanced mixture a mode of the middle column has probability 1/60, so the threshold is 1/300.
    counts = [150, 150, 150, 9, 11, 0, 800, 850, 880]
    assert sum(counts) == 3000
    assert coverage(points(counts), IMBALANCED).modes.item() == 7
    assert coverage(points(counts), BALANCED).modes.item() == 6  # probability 1/9, threshold 1/45


def test_high_quality_is_a_radius_of_three_std() -> None:
    direction = torch.tensor([3.0, 4.0], dtype=torch.float64) / 5
    radii = torch.tensor([0.0, 2.99, 3.01, 4.9], dtype=torch.float64) * STD
    found = coverage(radii[:, None] * direction + torch.tensor(MEANS[7]), BALANCED)
    assert found.high_quality.item() == 0.5
    assert found.histogram[7].item() == 1.0


def test_means_and_deviation_are_those_of_the_mixture() -> None:
    mixture = Mixture("two", (0.25, 0.75), ((0.0, 2.0), (5.0, -1.0)), 0.5)
    x = torch.tensor([[0.0, 3.4], [0.0, 3.6], [5.0, 0.0], [3.4, -1.0]], dtype=torch.float64)
    found = coverage(x, mixture)
    assert found.histogram.tolist() == [0.5, 0.5]
    assert found.high_quality.item() == 0.5  # 3 standard deviations are 1.5
    assert found.kl.item() == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))


def test_real_points_are_of_high_quality() -> None:
    found = coverage(IMBALANCED.sample(100_000, torch.Generator().manual_seed(0)), IMBALANCED)
    assert found.high_quality.item() == pytest.approx(1 - math.exp(-4.5), abs=0.002)  # Rayleigh, radius 3
    assert found.kl.item() < 1e-3
    assert found.modes.item() == 9


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=9, max_size=9).filter(any))
def test_kl_equals_its_definition(counts: list[int]) -> None:
    found = coverage(points(counts), IMBALANCED)
    n = sum(counts)
    probabilities = IMBALANCED.probabilities
    kl = sum(c / n * math.log(c / n / p) for c, p in zip(counts, probabilities, strict=True) if c)
    assert found.kl.item() == pytest.approx(kl, abs=1e-12)
    assert found.kl.item() >= -1e-12
    assert found.histogram.sum().item() == pytest.approx(1)


def test_leading_dimensions_are_measured_separately() -> None:
    x = torch.stack([points([2] * 9), points([18] + [0] * 8)]).unsqueeze(0)  # (1, 2, 18, 2)
    found = coverage(x, BALANCED)
    assert found.modes.tolist() == [[9, 1]]
    assert found.histogram.shape == (1, 2, 9)
    assert found.kl.shape == found.high_quality.shape == (1, 2)


@pytest.mark.parametrize("shape", [(2,), (5, 3), (0, 2)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(\.\.\., n, 2\)"):
        coverage(torch.zeros(shape), BALANCED)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        coverage(torch.tensor([[0.0, math.nan]]), BALANCED)
