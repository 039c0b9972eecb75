"""Features of real images: computed once, again if anything they depend on differs or the cache is damaged."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch

from fastdat.data import ImageSet
from fastdat.metrics import ImageEvaluator, reals
from fastdat.metrics.reals import Reals
from tests.data.helpers import flip_bit
from tests.metrics.helpers import CPU, Colours, colours, config, fakes_of, part

LOOKED_AT = 4
"""Images of an entry whose features are computed again, to see whether the extractor still gives them."""


def test_features_are_computed_once(cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": part(cifar10, 0, 100), "test": part(cifar10, 100, 150)}
    first = ImageEvaluator(config(), data, CPU, tmp_path)(fakes_of(cifar10.images[200:]))
    assert Colours.images_seen == 60 + 80 + 50
    again = ImageEvaluator(config(), data, CPU, tmp_path)(fakes_of(cifar10.images[200:]))
    assert Colours.images_seen == 60 + 80 + 50 + 60 + 2 * LOOKED_AT, "only the fakes, and a look"
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


def test_no_image_is_chosen_twice(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (100, 3, 4, 5), dtype=torch.uint8)
    data = ImageSet("noise", images, torch.zeros(100, dtype=torch.int64), ("all",))
    found = reals.real_features(data, 80, 3, colours(None), CPU, 32, tmp_path)
    assert found is not None
    chosen = set(map(tuple, found.features.tolist()))
    assert len(chosen) == len(found.features) == 80
    assert chosen < set(map(tuple, Colours()(images).tolist()))


def test_other_images_have_other_features(cifar10: ImageSet, tmp_path: Path) -> None:
    for data in (part(cifar10, 0, 80), part(cifar10, 1, 81)):
        ImageEvaluator(config(splits=("train",)), {"train": data}, CPU, tmp_path)(fakes_of(cifar10.images))
    assert Colours.images_seen == 2 * (60 + 80)


# --- damaged entries ---------------------------------------------------------------------------------------------

FILES = ("features.npy", "statistics.npz", "key.json")
WARNING = "are damaged and are computed anew"


class Entry:
    """A cached entry of 80 images, and what happens when it is read after something was done to it."""

    def __init__(self, data: ImageSet, cache: Path, log: pytest.LogCaptureFixture) -> None:
        self._data, self._cache, self.log = data, cache, log
        self.expected = self.features()
        (self.folder,) = (cache / "reals").iterdir()

    def features(self) -> Reals:
        found = reals.real_features(self._data, 80, 0, colours(None), CPU, 32, self._cache)
        assert found is not None
        return found

    def read(self) -> tuple[int, list[str]]:
        """Number of images whose features were computed, and the warnings. The features are right."""
        self.log.clear()
        before = Colours.images_seen
        found, expected = self.features(), self.expected
        assert torch.equal(found.features, expected.features)
        assert (found.statistics.mu == expected.statistics.mu).all()
        assert (found.statistics.sigma == expected.statistics.sigma).all()
        assert all(record.name == "fastdat" for record in self.log.records)
        return Colours.images_seen - before, [record.getMessage() for record in self.log.records]


@pytest.fixture
def entry(cifar10: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Entry:
    return Entry(part(cifar10, 0, 80), tmp_path, caplog)


def test_an_entry_that_is_missing_or_good_is_not_told(entry: Entry, caplog: pytest.LogCaptureFixture) -> None:
    assert caplog.records == [], "it was missing"
    assert entry.read() == (LOOKED_AT, [])
    shutil.rmtree(entry.folder)
    assert entry.read() == (80, [])


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(name: str, entry: Entry) -> None:
    path, rng = entry.folder / name, random.Random(name)
    size = path.stat().st_size
    bits = [rng.randrange(8 * 128) for _ in range(20)] + [rng.randrange(8 * size) for _ in range(30)]
    for bit in bits:
        flip_bit(path, bit)
        computed, warnings = entry.read()
        assert (computed, len(warnings)) == (80, 1)
        assert str(entry.folder) in warnings[0]
        assert WARNING in warnings[0]
        assert entry.read() == (LOOKED_AT, []), "the entry was written anew"


@pytest.mark.parametrize("name", FILES)
def test_other_sizes_and_files_are_found(name: str, entry: Entry) -> None:
    path = entry.folder / name
    raw = path.read_bytes()
    other = np.zeros((80, 2), np.float32)
    for damaged in (b"", raw[:7], raw[:-1], raw + b"\0", b"rubbish", b"\x93NUMPY\x01\x00\x05\x00{'a':"):
        path.write_bytes(damaged)
        assert entry.read() == (80, [ANY])
    with path.open("wb") as file:
        np.save(file, other)
    assert entry.read() == (80, [ANY])
    path.unlink()
    assert entry.read() == (80, [ANY])
    path.unlink()
    path.mkdir()
    assert entry.read() == (80, [ANY])
    assert entry.read() == (LOOKED_AT, [])


def test_files_of_another_entry(entry: Entry, cifar10: ImageSet, tmp_path: Path) -> None:
    before = set(entry.folder.parent.iterdir())
    reals.real_features(part(cifar10, 1, 81), 80, 0, colours(None), CPU, 32, tmp_path)
    (other,) = set(entry.folder.parent.iterdir()) - before
    for name in ("features.npy", "statistics.npz"):
        shutil.copy(other / name, entry.folder / name)
    assert entry.read() == (80, [ANY])
    shutil.copytree(other, entry.folder, dirs_exist_ok=True)
    assert entry.read() == (80, []), "another key is no damage"


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


@pytest.mark.parametrize(("factor", "same"), [(1.004, True), (1.05, False)])
def test_an_extractor_whose_code_has_changed(
    factor: float, same: bool, entry: Entry, cifar10: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name and its weights are those of the entry. What rounding may change is no other extractor."""
    forward = Colours.forward
    monkeypatch.setattr(Colours, "forward", lambda self, images: factor * forward(self, images))
    before = Colours.images_seen
    found = entry.features()
    assert Colours.images_seen == before + LOOKED_AT + (0 if same else 80)
    expected = entry.expected.features * (1 if same else factor)
    torch.testing.assert_close(found.features, expected)
    said = [record.getMessage() for record in entry.log.records]
    assert [("colours gives other features" in text) for text in said] == ([] if same else [True])
    assert torch.equal(entry.features().features, found.features), "written anew"
