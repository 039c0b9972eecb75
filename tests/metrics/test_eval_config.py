"""The settings of scores: the paper's protocol by default, their limits, and their summary."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from fastdat.metrics import EvalConfig
from fastdat.util.errors import ConfigError


def test_the_defaults_are_the_protocol_of_the_paper() -> None:
    assert asdict(EvalConfig()) == {
        "every": None,
        "metrics": ("fid", "kid", "is"),
        "splits": ("train", "test"),
        "extractor": "inception-v3-compat",
        "weights": None,
        "fakes": 50_000,
        "reals": 50_000,
        "seed": 0,
        "batch_size": 128,
        "kid_subsets": 10,
        "kid_subset_size": None,
        "is_splits": 10,
    }


def test_the_summary() -> None:
    images = EvalConfig(metrics=("kid", "is"), splits=("test",), fakes=2000, reals=1500, seed=3)
    assert (
        images.summary
        == "kid, is by inception-v3-compat: 2,000 fakes against up to 1,500 reals of test, seed 3"
    )
    both = EvalConfig(extractor="colours").summary
    assert both.endswith("by colours: 50,000 fakes against up to 50,000 reals of train and test, seed 0")
    assert EvalConfig(metrics=("modes",), fakes=9000).summary == "modes: 9,000 fakes, seed 0"


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("every", [1, None], [0]),
        ("fakes", [4], [3]),
        ("reals", [4], [3]),
        ("seed", [0, 2**32 - 1], [-1, 2**32]),
        ("batch_size", [1], [0]),
        ("kid_subsets", [1], [0]),
        ("kid_subset_size", [2, None], [1]),
        ("is_splits", [1], [0]),
        ("metrics", [("precision-recall",), ("modes",)], [("fid", "fid"), ("fid", "modes"), ("psnr",)]),
        ("splits", [("train",)], [("train", "train"), ("val",)]),
    ],
)
def test_limits(name: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        assert getattr(EvalConfig(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ConfigError, match="metrics" if name == "metrics" else rf"\b{name}\b"):
            EvalConfig(**{name: value})
