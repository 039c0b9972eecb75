"""Evaluators: which scores they give, what their records hold, and what they refuse before generating anything."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.data.mixture import BALANCED
from fastdat.metrics import EvalConfig, ImageEvaluator, ModesEvaluator
from fastdat.metrics.evaluators import ranking, shown
from fastdat.metrics.scores import rounded
from fastdat.util.errors import ConfigError, DataError
from tests.metrics.helpers import CPU, colours, config, fakes_of, part


def test_real_images_score_better_than_darkened_ones(cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": cifar10, "test": part(cifar10, 0, 400)}
    evaluator = ImageEvaluator(config(fakes=400, reals=400), data, CPU, tmp_path)
    good, *_ = evaluator(fakes_of(cifar10.images[1000:1400]))
    dark, *_ = evaluator(fakes_of(cifar10.images[1000:1400] // 2))
    assert good["scores"]["kid"] < 0.1 * dark["scores"]["kid"]
    assert good["scores"]["fid"] < 0.1 * dark["scores"]["fid"]


def numpy_state() -> bytes:
    """The state of NumPy's global generator, which torch-fidelity might draw from."""
    state = np.random.get_state()[1]  # noqa: NPY002
    return np.asarray(state).tobytes()


def test_a_record_holds_all_that_the_scores_depend_on(cifar10: ImageSet, tmp_path: Path) -> None:
    train, test = part(cifar10, 0, 100), part(cifar10, 100, 150)
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    records = ImageEvaluator(config(), {"train": train, "test": lambda: test}, CPU, tmp_path)(
        fakes_of(cifar10.images[200:])
    )
    assert torch.equal(before[0], torch.get_rng_state()), "no global generator is touched"
    assert before[1:] == (random.getstate(), numpy_state())
    assert [record["split"] for record in records] == ["train", "test"]
    record = json.loads(json.dumps(records[1]))
    assert {key: record[key] for key in ("extractor", "fake_count", "real_count", "seed", "resolution", "resize")} == {
        "extractor": "colours", "fake_count": 60, "real_count": 50, "seed": 0, "resolution": 32, "resize": "none",
    }  # fmt: skip
    assert (record["kid_subsets"], record["kid_subset_size"]) == (10, 5)
    assert record["data_sha256"] == test.fingerprint
    assert record["extractor_sha256"] == colours(None).sha256 != colours("other").sha256
    assert set(record["versions"]) == {"fastdat", "torch", "python", "torch_fidelity"}
    assert set(record["scores"]) == {"fid", "kid", "kid_std"}
    assert "[colours]" in shown(record | {"step": 3})
    assert ranking(record, config()) == ("kid", -record["scores"]["kid"])


def test_impossible_scores_are_refused_before_anything_is_generated(
    cifar10: ImageSet, tmp_path: Path
) -> None:
    def never(count: int) -> Iterator[Tensor]:
        raise AssertionError("generated")

    evaluator = ImageEvaluator(config(metrics=("is",)), {"train": cifar10, "test": cifar10}, CPU, tmp_path)
    with pytest.raises(ConfigError, match="is needs class logits, which colours does not give"):
        evaluator(never)


def test_subsets_larger_than_the_data_are_refused_before_anything_is_generated(
    cifar10: ImageSet, tmp_path: Path
) -> None:
    few = ImageSet("few", cifar10.images[:50], cifar10.labels[:50], cifar10.classes)
    evaluator = ImageEvaluator(config(kid_subset_size=55), {"train": cifar10, "test": few}, CPU, tmp_path)
    with pytest.raises(ConfigError, match="there are 60 fakes and 50 reals: choose at most 50"):
        evaluator.prepare()


def test_too_few_real_images_are_refused_before_anything_is_generated(
    cifar10: ImageSet, tmp_path: Path
) -> None:
    settings = config(metrics=("precision-recall",), splits=("test",))
    for count, message in ((3, "the test split has 3 images, and scores need 4"), (1, "has 1 image, and")):
        evaluator = ImageEvaluator(settings, {"test": part(cifar10, 0, count)}, CPU, tmp_path)
        with pytest.raises(DataError, match=message):
            evaluator.prepare()
    four = ImageEvaluator(settings, {"test": part(cifar10, 0, 4)}, CPU, tmp_path)
    assert four(fakes_of(cifar10.images)) is not None


def test_a_score_that_is_not_finite_is_null() -> None:
    record = {
        "step": 1,
        "split": "train",
        "extractor": "x",
        "scores": rounded({"kid": math.nan, "fid": 1.23456789}),
    }
    assert json.loads(json.dumps(record, allow_nan=False))["scores"] == {"kid": None, "fid": 1.23457}
    assert "kid no number  fid 1.2346" in shown(record)
    assert ranking(record, config()) == ("kid", -math.inf)


def test_modes_of_points() -> None:
    points = BALANCED.sample(2000, torch.Generator().manual_seed(0))
    settings = EvalConfig(metrics=("modes",), fakes=2000)
    (record,) = ModesEvaluator(settings, BALANCED)(fakes_of(points))
    assert record["scores"]["modes"] == 9
    assert ranking(record, settings) == ("modes", 9)
