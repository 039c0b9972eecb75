"""The mixtures: probabilities, layout, moments."""

from __future__ import annotations

import math

import pytest
import torch

from fastdat.data.mixture import BALANCED, GRID, IMBALANCED, MEANS, RING, STD, Mixture
from fastdat.metrics.modes import coverage


def test_layout() -> None:
    assert len(set(MEANS)) == 9
    assert {value for mean in MEANS for value in mean} == {-1.0, 0.0, 1.0}
    left, middle, right = (IMBALANCED.probabilities[3 * i : 3 * i + 3] for i in range(3))
    assert [mean[0] for mean in MEANS] == [-1.0] * 3 + [0.0] * 3 + [1.0] * 3
    assert left == pytest.approx([0.05] * 3)
    assert middle == pytest.approx([0.05 / 3] * 3)
    assert right == pytest.approx([0.8 / 3] * 3)
    assert BALANCED.probabilities == pytest.approx([1 / 9] * 9)


def test_ring_and_grid() -> None:
    ring, grid = torch.tensor(RING.means, dtype=torch.float64), torch.tensor(GRID.means, dtype=torch.float64)
    assert ring.norm(dim=1).tolist() == pytest.approx([1.0] * 8)
    # Neighbours, the last and the first too, are the side of a regular octagon apart.
    assert (ring - ring.roll(1, 0)).norm(dim=1).tolist() == pytest.approx([2 * math.sin(math.pi / 8)] * 8)
    assert sorted(GRID.means) == [(x / 2, y / 2) for x in range(-2, 3) for y in range(-2, 3)]
    nearest = torch.pdist(grid).min().item()
    assert nearest == 0.5
    assert (RING.std, GRID.std) == (0.05, 0.05)
    assert RING.probabilities == (1 / 8,) * 8
    assert GRID.probabilities == pytest.approx([1 / 25] * 25)


@pytest.mark.parametrize("mixture", [BALANCED, IMBALANCED, RING, GRID], ids=lambda m: m.name)
def test_samples_follow_the_mixture(mixture: Mixture) -> None:
    n = 200_000
    x = mixture.sample(n, torch.Generator().manual_seed(1))
    assert x.shape == (n, 2)
    assert x.dtype == torch.float32
    due = torch.tensor(mixture.probabilities, dtype=torch.float64)
    error = (due * (1 - due) / n).sqrt()
    assert ((coverage(x, mixture).histogram - due).abs() < 5 * error).all()
    means, std = torch.tensor(mixture.means), mixture.std
    mode = torch.cdist(x, means).argmin(1)
    residual = (x - means[mode]).double()
    assert residual.mean(0).abs().max() < 5 * std / n**0.5
    assert residual.std(0).tolist() == pytest.approx([std, std], rel=0.01)
    assert abs(torch.corrcoef(residual.T)[0, 1].item()) < 0.012


def test_u_selects_the_mode_by_cumulative_probability() -> None:
    u = torch.tensor([0.0, 0.049, 0.051, 0.999, 0.1999, 0.2001], dtype=torch.float64)
    x = IMBALANCED.place(u, torch.zeros(6, 2, dtype=torch.float64))
    assert x.tolist() == [list(MEANS[mode]) for mode in (0, 0, 1, 8, 5, 6)]
    noise = torch.tensor([[1.0, -2.0]])
    assert torch.allclose(BALANCED.place(torch.tensor([0.5]), noise), STD * noise)  # the middle mode is at 0


def test_equal_generators_give_equal_samples() -> None:
    first, second = (IMBALANCED.sample(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("p", [(1.0,), (0.2,) * 9, (0.0, *[0.125] * 8), (-0.1, 0.3, *[0.8 / 7] * 7)])
def test_bad_probabilities(p: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="9 Gaussians needs 9 positive probabilities with sum 1"):
        Mixture("bad", p)


def test_a_mixture_needs_means_and_a_positive_deviation() -> None:
    with pytest.raises(ValueError, match="2 Gaussians needs 2 positive probabilities with sum 1; got"):
        Mixture("bad", (0.5, 0.25, 0.25), ((0.0, 1.0), (1.0, 0.0)))
    with pytest.raises(ValueError, match=r"0 Gaussians needs some positive probabilities .*; got \(\)"):
        Mixture("bad", (), ())
    for std in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"a positive standard deviation; got {std}"):
            Mixture("bad", (1.0,), ((0.0, 1.0),), std)
