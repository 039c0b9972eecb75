"""Loading a split from its publisher's files: real images, other resolutions, too many images."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fastdat.data import DataError, ImageSet, load_split, pack
from fastdat.data.load import check_is_there
from fastdat.util.ranks import Ranks
from tests.data.helpers import assert_refused, write_tiny_imagenet

T = TypeVar("T")


class TwoMachines(Ranks):
    """The first of two ranks; the other one has the same but for ``differs``, a type of what they tell each other."""

    def __init__(self, differs: type | None) -> None:
        super().__init__(0, 2)
        self._differs = differs

    def all_of(self, here: T) -> list[T]:
        return [here, cast(T, not here) if type(here) is self._differs else here]


def test_machines_with_other_data(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    write_tiny_imagenet(tmp_path, pixels)
    assert len(load_split("tiny-imagenet", tmp_path, ranks=TwoMachines(None))) == 4
    with pytest.raises(
        DataError, match="is a packed store on some machines and holds the publisher's files on"
    ):
        load_split("tiny-imagenet", tmp_path, ranks=TwoMachines(bool))
    with pytest.raises(DataError, match="holds other images on some machines than on others"):
        load_split("tiny-imagenet", tmp_path, ranks=TwoMachines(str))


def test_cifar10(cifar10_root: Path, cifar10: ImageSet) -> None:
    found = load_split("cifar10", cifar10_root, "test")
    assert (len(found), found.images.shape[1:], found.name) == (10_000, (3, 32, 32), "cifar10 test")
    assert load_split("cifar10", cifar10_root).fingerprint == cifar10.fingerprint != found.fingerprint


def test_cifar10_at_another_resolution(cifar10: ImageSet, cifar10_root: Path) -> None:
    small = load_split("cifar10", cifar10_root, "test", 16)
    original = load_split("cifar10", cifar10_root, "test")
    picture = Image.fromarray(original.images[7].permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))
    assert (small.images[7].permute(1, 2, 0).numpy() == expected).all()


def test_too_many_images_to_decode_at_every_start(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_imagenet(tmp_path, pixels)
    monkeypatch.setattr("fastdat.data.load.MOST_IMAGES", 4)
    assert len(load_split("tiny-imagenet", tmp_path)) == 4
    monkeypatch.setattr("fastdat.data.load.MOST_IMAGES", 3)
    assert_refused(
        "tiny-imagenet",
        tmp_path,
        r"has 4 images, too many[\s\S]*fastdat data pack tiny-imagenet .* --resolution 64\n"
        rf"and give --data STORE, or call STORE {tmp_path / 'tiny-imagenet'} and give --data {tmp_path}$",
    )


def test_a_folder_of_several_sets(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """Publisher's files of small sets, and a store under the name of a large one."""
    write_tiny_imagenet(tmp_path / "data", pixels)
    files = load_split("tiny-imagenet", tmp_path / "data")
    pack("tiny-imagenet", tmp_path / "data", tmp_path / "store", splits=("train",), workers=0)
    store = tmp_path / "many" / "tiny-imagenet"
    store.parent.mkdir()
    (tmp_path / "store").rename(store)
    check_is_there("tiny-imagenet", store.parent)
    assert torch.equal(load_split("tiny-imagenet", store.parent).images, files.images)
    assert (
        load_split("tiny-imagenet", store.parent).fingerprint
        == load_split("tiny-imagenet", store).fingerprint
    )
    with pytest.raises(DataError, match="cifar10"):
        check_is_there("cifar10", store.parent)
    with pytest.raises(DataError, match="has no test split; it has: train"):
        check_is_there("tiny-imagenet", store.parent, "test")
    with pytest.raises(DataError, match="at 64 pixels; expected 32"):
        check_is_there("tiny-imagenet", store, "train", 32)
