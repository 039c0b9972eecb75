"""DATConfig refuses bad values where they are given."""

from __future__ import annotations

import ast
import dataclasses
import re

import pytest

from fastdat import DATConfig
from tests.environment import REPOSITORY


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("seed", "logit", ValueError, "one of logits, eq10, alg1; got 'logit'"),
        ("reduction", "mean", ValueError, "one of batch, sample; got 'mean'"),
        ("power_iterations", 1, ValueError, "one of once, per_forward; got 1"),
        ("eps", -1.0, ValueError, "finite number >= 0"),
        ("eps", float("nan"), ValueError, "finite"),
        ("eps", "1", TypeError, "number >= 0"),
        ("eps_batch", 0, ValueError, "integer >= 1"),
        ("eps_batch", 64.0, TypeError, "where None means the actual global batch"),
        ("delta_clip", 0.0, ValueError, "> 0"),
        ("delta_clip", float("inf"), ValueError, "where None means no limit"),
        ("bounds", (1, -1), ValueError, r"with a < b, or None .null in YAML and --set.; got \(1, -1\)"),
        ("bounds", (0, 1, 2), ValueError, r"\[a, b\], each a finite number"),
        ("bounds", 1.0, ValueError, r"\[a, b\], each a finite number"),
        ("bounds", (0, float("inf")), ValueError, r"\[a, b\], each a finite number"),
        ("bounds", ("a", "b"), ValueError, r"\[a, b\], each a finite number"),
        ("steps", 0, ValueError, "integer >= 1"),
        ("steps", True, TypeError, "integer >= 1"),
        ("clean_weight", -0.5, ValueError, ">= 0"),
        ("second_order", 1, TypeError, "true or false"),
        ("clip_real", None, TypeError, "true or false"),
    ],
)
def test_bad_values(field: str, value: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"DATConfig.{field}.*{says}"):
        DATConfig(**{field: value})


def test_frozen_and_hashable() -> None:
    config = DATConfig(bounds=[-1, 1])
    assert config == DATConfig()
    assert hash(config) == hash(DATConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.eps = 2.0


def test_presets() -> None:
    assert DATConfig() == DATConfig(
        seed="logits", reduction="batch", eps=1.0, eps_batch=64, delta_clip=1.0, bounds=(-1.0, 1.0), clip_real=True,
        steps=1, second_order=False, real=True, fake=True, clean_weight=0.0, power_iterations="once",
    )  # fmt: skip
    official = DATConfig.official()
    assert (official.eps_batch, official.clip_real, official.power_iterations) == (None, False, "per_forward")
    paper = DATConfig.paper()
    assert (paper.seed, paper.reduction, paper.eps, paper.eps_batch) == ("eq10", "sample", 1.0, 1)
    assert paper.delta_clip is None


def test_bounds_of_a_side() -> None:
    assert DATConfig().bounds_of("real") == (-1.0, 1.0)
    assert DATConfig(clip_real=False).bounds_of("real") is None
    assert DATConfig(clip_real=False).bounds_of("fake") == (-1.0, 1.0)


def test_the_guide_has_all_settings_and_their_defaults() -> None:
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| `(.*?)` \|", (REPOSITORY / "docs/dat_step.md").read_text(), re.M
    )
    names = {field.name for field in dataclasses.fields(DATConfig)}
    documented = {
        name: default for cell, default in rows for name in re.findall(r"\w+", cell) if name in names
    }
    assert {name: ast.literal_eval(default) for name, default in documented.items()} == {
        name: getattr(DATConfig(), name) for name in names
    }
