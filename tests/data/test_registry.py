"""The data sets by name: pages, resolutions, splits, and what each says where its files are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastdat.data import DATASETS, DataError
from fastdat.data.registry import available_splits, dataset_spec, resolution_of
from tests.data.helpers import assert_refused, save_black


@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "folder"])
def test_a_missing_folder_says_how_to_get_it(dataset: str, tmp_path: Path) -> None:
    spec = DATASETS[dataset]
    how = "fastdat data download " + re.escape(dataset) if spec.origin else "http://dl.yf.io"
    assert_refused(dataset, tmp_path / "nowhere", rf"nowhere does not exist[\s\S]*{how}")
    assert_refused(dataset, tmp_path, rf"holds no [\s\S]*{how}")
    assert_refused(dataset, tmp_path, "has the splits train and test; got 'val'", "val")


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "stl10", "tiny-imagenet", "mnist"])
def test_an_incomplete_publishers_folder_must_be_removed(dataset: str, tmp_path: Path) -> None:
    """The download would leave it as it is."""
    origin = DATASETS[dataset].origin
    assert origin is not None
    (tmp_path / origin.folder).mkdir(parents=True)
    assert_refused(
        dataset, tmp_path, rf"{origin.folder} is incomplete\. Remove it and run\n    fastdat data download"
    )


def test_channels_classes_and_the_resolutions_of_the_paper() -> None:
    facts = {
        name: (spec.channels, spec.classes, spec.resolution, spec.resolutions)
        for name, spec in DATASETS.items()
    }
    assert facts == {
        "cifar10": (3, 10, 32, None),
        "cifar100": (3, 100, 32, None),
        "stl10": (3, 0, 48, None),
        "tiny-imagenet": (3, 200, 64, None),
        "lsun-bedroom": (3, 0, 64, None),
        "mnist": (1, 10, 28, (28, 32)),
        "folder": (3, None, None, None),
    }
    assert resolution_of(DATASETS["cifar10"], None) == 32
    assert resolution_of(DATASETS["cifar10"], 1) == 1
    with pytest.raises(DataError, match="unknown data set 'imagenet'; there are: cifar10"):
        dataset_spec("imagenet")
    with pytest.raises(
        DataError, match="the resolution of CIFAR-10 must be a positive number; got resolution=0"
    ):
        resolution_of(DATASETS["cifar10"], 0)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_page(name: str) -> None:
    text = DATASETS[name].page.read_text()
    assert text.startswith("# ")
    assert f"fastdat data pack {name}" in text
    assert f"-{name} " in text, "a preset that trains on it"


def test_only_a_missing_split_is_left_out_not_a_damaged_one(tmp_path: Path) -> None:
    save_black(tmp_path / "train" / "0.png")
    assert available_splits("folder", tmp_path) == ("train",)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="test holds no images"):
        available_splits("folder", tmp_path)
    (tmp_path / "stl10_binary").mkdir()
    with (tmp_path / "stl10_binary" / "unlabeled_X.bin").open("wb") as file:
        file.truncate(100_000 * 3 * 96 * 96)
    with pytest.raises(DataError, match=r"holds no stl10_binary/test_X\.bin"):
        available_splits("stl10", tmp_path)
