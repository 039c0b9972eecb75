"""Samples in the penalty case of Eq. (13), against shares that are counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fastdat.robustness import MonitorConfig, PenaltyCase, measure, penalty_case


class Logit(nn.Module):
    """A sample (1,) is its own logit; its label is added."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x[:, 0] * self.one if label is None else x[:, 0] * self.one + label), x


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_shares_by_hand() -> None:
    # Reals have the mean 1.5, fakes 0.5. All reals but 0.25 reach 0.5; all fakes but 2.5 stay below 1.5.
    xr, xf = column(4, 0.5, 0.25, 1.25), column(-1, 0.5, 2.5, -0.5, 1.0)
    assert (float(xr.mean()), float(xf.mean())) == (1.5, 0.5)
    for size in (None, 2):
        assert penalty_case(Logit(), xr, xf, batch_size=size) == PenaltyCase(real=3 / 4, fake=4 / 5)
    # The other way round: reals with the mean 0.5 that reach 1.5, fakes with the mean 1.5 that stay below 0.5.
    assert penalty_case(Logit(), xf, xr) == PenaltyCase(real=1 / 5, fake=2 / 4)


def test_a_residual_of_zero_counts() -> None:
    assert penalty_case(Logit(), column(2, 2), column(2, 2, 2)) == PenaltyCase(1, 1)


def test_labels_go_with_their_samples() -> None:
    xr, xf = column(0, 0), column(0, 0, 0)
    labels = torch.tensor([3.0, -1.0]).double(), torch.tensor([0.0, 0.0, 9.0]).double()
    found = penalty_case(Logit(), xr, xf, args_real=labels[:1], args_fake=labels[1:])
    assert found == PenaltyCase(real=1 / 2, fake=2 / 3)  # means 1 and 3


def test_without_finite_means_there_is_no_share() -> None:
    found = penalty_case(Logit(), column(math.inf, 0), column(1, 2))
    assert math.isnan(found.real)
    assert math.isnan(found.fake)


def test_rows_must_fit() -> None:
    with pytest.raises(ValueError, match="args_real must hold tensors with a row for each of the 2 xr"):
        penalty_case(Logit(), column(1, 2), column(1, 2), args_real=(torch.zeros(3),))


def test_logits_that_overflow_do_not_end_a_measurement() -> None:
    """A monitor may not end the training that it watches."""
    G, D = nn.Linear(2, 3), nn.Linear(3, 1)
    with torch.no_grad():
        D.weight.fill_(3e38)
    z, reals = torch.randn(5, 2), 100 * torch.randn(5, 3)
    found = measure(G, D, (z,), (reals,), MonitorConfig(samples=5, steps=2, cap=3), bounds=None)
    assert (found.latent, found.pgd_real, found.pgd_fake) == (None, None, None)
    assert found.numbers().keys() == {"sigma_max", "sigma_mean"}
    with torch.no_grad():
        D.weight[0, 1] = math.nan
    assert measure(G, D, (z,), (reals,), MonitorConfig(samples=5), bounds=None).numbers() == {}
