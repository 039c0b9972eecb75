"""Features of real images: computed once, again if anything they depend on differs or the cache is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastdat.data import ImageSet
from fastdat.metrics import ImageEvaluator, reals
from tests.metrics.helpers import CPU, Colours, config, fakes_of, part


def test_features_are_computed_once(cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": part(cifar10, 0, 100), "test": part(cifar10, 100, 150)}
    first = ImageEvaluator(config(), data, CPU, tmp_path)(fakes_of(cifar10.images[200:]))
    assert Colours.images_seen == 60 + 80 + 50
    again = ImageEvaluator(config(), data, CPU, tmp_path)(fakes_of(cifar10.images[200:]))
    assert Colours.images_seen == 60 + 80 + 50 + 60, "only the fakes"
    assert [record["scores"] for record in first] == [record["scores"] for record in again]


@pytest.mark.parametrize("changes", [{"reals": 81}, {"seed": 1}, {"weights": "file"}], ids=str)
def test_other_settings_have_other_features(
    changes: dict[str, Any], cifar10: ImageSet, tmp_path: Path
) -> None:
    if "weights" in changes:
        (tmp_path / "file").write_text("")
        changes = {"weights": str(tmp_path / "file")}
    data = {"train": part(cifar10, 0, 100), "test": part(cifar10, 100, 150)}
    ImageEvaluator(config(splits=("train",)), data, CPU, tmp_path)(fakes_of(cifar10.images))
    before = Colours.images_seen
    settings = config(splits=("train",), **changes)
    ImageEvaluator(settings, data, CPU, tmp_path)(fakes_of(cifar10.images))
    assert Colours.images_seen == before + 60 + settings.reals


def test_other_images_have_other_features(cifar10: ImageSet, tmp_path: Path) -> None:
    for data in (part(cifar10, 0, 80), part(cifar10, 1, 81)):
        ImageEvaluator(config(splits=("train",)), {"train": data}, CPU, tmp_path)(fakes_of(cifar10.images))
    assert Colours.images_seen == 2 * (60 + 80)


@pytest.mark.parametrize("name", ["features.npy", "statistics.npz", "key.json"])
def test_a_damaged_entry_is_computed_again(name: str, cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": part(cifar10, 0, 80)}
    scores = []
    for _ in range(2):
        evaluator = ImageEvaluator(config(splits=("train",)), data, CPU, tmp_path)
        scores.append(evaluator(fakes_of(cifar10.images))[0]["scores"])
        (file,) = tmp_path.rglob(name)
        file.write_bytes(file.read_bytes()[:7])
    assert scores[0] == scores[1]
    assert Colours.images_seen == 2 * (60 + 80)


def test_a_cache_that_cannot_be_written_costs_only_time(cifar10: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = {"train": part(cifar10, 0, 80)}
    assert ImageEvaluator(config(splits=("train",)), data, CPU, tmp_path / "file")(fakes_of(cifar10.images))


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("FASTDAT_CACHE", raising=False)
    assert reals.default_cache() == Path("/x/fastdat")
    monkeypatch.setenv("FASTDAT_CACHE", "/y")
    assert reals.default_cache() == Path("/y")
