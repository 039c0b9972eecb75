"""Scores from features, compared with their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdat.metrics.scores import (
    Statistics,
    against_reals,
    check_inception_score,
    kid_subset_size,
    of_fakes,
)
from fastdat.util.errors import ConfigError
from tests.metrics.helpers import config


def test_fid_equals_its_formula() -> None:
    a, b = torch.randn(400, 5), torch.randn(300, 5) * 1.5 + 0.3
    scores = against_reals(a, b, Statistics.of(b), config(metrics=("fid",)))
    mu_a, mu_b = a.double().mean(0), b.double().mean(0)
    s_a, s_b = (torch.from_numpy(np.cov(x.double().numpy(), rowvar=False)) for x in (a, b))
    roots = torch.linalg.eigvals(s_a @ s_b).real.clamp(min=0).sqrt().sum()
    expected = (mu_a - mu_b).square().sum() + s_a.trace() + s_b.trace() - 2 * roots
    assert scores["fid"] == pytest.approx(expected.item(), rel=1e-4)


def test_kid_equals_its_formula_if_a_subset_holds_all_images() -> None:
    a, b = torch.randn(40, 5), torch.randn(40, 5) + 0.5
    scores = against_reals(a, b, Statistics.of(b), config(metrics=("kid",), kid_subsets=1))

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x.double() @ y.double().T / 5 + 1) ** 3

    def mean_off_diagonal(m: Tensor) -> Tensor:
        return (m.sum() - m.trace()) / (40 * 39)

    expected = mean_off_diagonal(k(a, a)) + mean_off_diagonal(k(b, b)) - 2 * k(a, b).mean()
    assert scores == {"kid": pytest.approx(expected.item(), rel=1e-4), "kid_std": 0}


def test_the_seed_says_which_images_the_subsets_of_kid_hold() -> None:
    a, b = torch.randn(40, 5), torch.randn(40, 5) + 0.5

    def kid(seed: int) -> dict[str, float]:
        settings = config(metrics=("kid",), kid_subsets=2, kid_subset_size=9, seed=seed)
        return against_reals(a, b, Statistics.of(b), settings)

    assert kid(1) == kid(1)
    assert kid(1)["kid"] != kid(2)["kid"]
    assert 0 < kid(1)["kid_std"] < kid(1)["kid"]


def test_precision_is_of_fakes_and_recall_of_reals() -> None:
    """All fakes lie among the reals, but only where the first 12 of 40 reals are."""
    real = torch.randn(40, 5) + torch.tensor([0.0] * 12 + [99.0] * 28)[:, None]
    fake = torch.randn(30, 5) * 0.1
    scores = against_reals(fake, real, Statistics.of(real), config(metrics=("precision-recall",)))
    assert scores.keys() == {"precision", "recall"}
    assert scores["precision"] == 1
    assert scores["recall"] < 0.4


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """torch-fidelity tells each score and shows a progress bar unless told not to."""
    a, b = torch.randn(40, 5), torch.randn(50, 5)
    scores = against_reals(a, b, Statistics.of(b), config(metrics=("fid", "kid", "precision-recall")))
    assert scores.keys() == {"fid", "kid", "kid_std", "precision", "recall"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fakes", "real", "subset", "expected"),
    [
        (50_000, 50_000, None, 5000),
        (50_000, 10_000, None, 1000),
        (60, 80, None, 6),
        (5, 80, None, 2),
        (60, 80, 50, 50),
    ],
)
def test_sizes_of_kid_subsets(fakes: int, real: int, subset: int | None, expected: int) -> None:
    assert kid_subset_size(fakes, real, config(kid_subset_size=subset)) == expected


def test_kid_subsets_larger_than_the_data_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"kid_subset_size=90, but there are 60 fakes and 80 reals: choose at most 60"
    ):
        kid_subset_size(60, 80, config(kid_subset_size=90))


def test_is_needs_one_image_per_split() -> None:
    with pytest.raises(
        ConfigError, match=r"eval.is_splits=10 needs at least as many fakes; got eval.fakes=8"
    ):
        check_inception_score(config(metrics=("is",), fakes=8), gives_logits=True)


def test_is_of_certain_and_varied_classes() -> None:
    logits = 50.0 * torch.eye(5).repeat(20, 1)
    assert of_fakes(logits, config(metrics=("is",), is_splits=1))["is"] == pytest.approx(5)
    assert of_fakes(logits, config(metrics=("fid",))) == {}


@pytest.mark.parametrize("seed", [4, 5])
def test_is_equals_its_formula_on_images_that_the_seed_has_mixed(seed: int) -> None:
    logits = torch.randn(29, 5, dtype=torch.float64) * 3
    p = logits[np.random.RandomState(seed).permutation(29)].softmax(1)
    parts = [p[:9], p[9:19], p[19:]]
    expected = [(part * (part / part.mean(0)).log()).sum(1).mean().exp().item() for part in parts]
    found = of_fakes(logits, config(metrics=("is",), is_splits=3, seed=seed))
    assert found == {"is": pytest.approx(np.mean(expected)), "is_std": pytest.approx(np.std(expected))}
