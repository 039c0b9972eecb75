"""The reader of cifar-10-batches-py: the real files, and every way in which files can be wrong."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastdat.data import DataError, ImageSet, load_cifar10
from fastdat.data.cifar10 import FOLDER

# --- the real set ------------------------------------------------------------------------------------------------


def test_the_training_split(cifar10: ImageSet) -> None:
    assert cifar10.images.shape == (50_000, 3, 32, 32)
    assert cifar10.images.dtype == torch.uint8
    assert cifar10.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(cifar10.labels).tolist() == [5_000] * 10
    # The well-known channel means: they hold only if rows are read as CHW, red first.
    means = torch.stack([cifar10.images[:, c].sum() for c in range(3)]) / (255 * 50_000 * 32 * 32)
    torch.testing.assert_close(means, torch.tensor([0.49140, 0.48216, 0.44653]), atol=1e-5, rtol=0)
    # Neighbouring pixels resemble each other: rows and columns are not mixed up.
    images = cifar10.images[:1000].float()
    assert (images[..., 1:] - images[..., :-1]).abs().mean() < 20
    assert (images[..., 1:, :] - images[..., :-1, :]).abs().mean() < 20


def test_the_test_split_from_the_inner_folder(cifar10_root: Path) -> None:
    test = load_cifar10(cifar10_root / FOLDER, "test")
    assert test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(test.labels).tolist() == [1_000] * 10
    assert test.name == "cifar10 test"
    assert test.resolution == 32
    assert len(test) == 10_000


def test_an_unknown_split(cifar10_root: Path) -> None:
    with pytest.raises(ValueError, match="'train' and 'test'; got split='valid'"):
        load_cifar10(cifar10_root, "valid")  # type: ignore[arg-type]


# --- wrong files -------------------------------------------------------------------------------------------


def batch(count: int = 10_000, **changes: Any) -> dict[str, Any]:
    content = {"data": np.zeros((count, 3072), np.uint8), "labels": [i % 10 for i in range(count)]}
    return {key: value for key, value in (content | changes).items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The publisher's layout, with black images."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    names = [f"class {i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    (folder / "test_batch").write_bytes(pickle.dumps(batch(), 2))
    (folder / "data_batch_1").write_bytes(b"")
    return folder


def test_black_images_are_read(folder: Path) -> None:
    assert len(load_cifar10(folder.parent, "test")) == 10_000


def test_a_missing_folder_names_the_command(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(
        DataError, match=rf"nowhere does not exist.*\n    fastdat data download cifar10 {nowhere}"
    ):
        load_cifar10(nowhere)
    with pytest.raises(DataError, match=f"holds no {FOLDER}"):
        load_cifar10(tmp_path)


def test_a_missing_file(folder: Path) -> None:
    (folder / "test_batch").unlink()
    with pytest.raises(
        DataError, match=r"test_batch is missing\. Remove .* and run: fastdat data download cifar10"
    ):
        load_cifar10(folder, "test")


def test_the_users_own_folder_is_not_to_be_removed(folder: Path, tmp_path: Path) -> None:
    """It may hold other sets too, and a download would put its files one folder deeper."""
    mine = folder.rename(tmp_path / "all my data")
    (mine / "test_batch").unlink()
    with pytest.raises(DataError, match=r"test_batch is missing\. Get the whole set") as caught:
        load_cifar10(mine, "test")
    assert "Remove" not in str(caught.value)


def test_the_command_can_be_pasted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"fastdat data download cifar10 '{tmp_path}/my data'"):
        load_cifar10(tmp_path / "my data")


def test_a_truncated_file(folder: Path) -> None:
    path = folder / "test_batch"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="test_batch is damaged"):
        load_cifar10(folder, "test")
    with pytest.raises(DataError, match="data_batch_1 is damaged"):  # an empty file
        load_cifar10(folder, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: [1, 2], "its content: expected a dict, found list"),
        (lambda: batch(data=None), r"'data': expected to be there, found the keys \['labels'\]"),
        (lambda: batch(labels=None), r"'labels': expected to be there, found the keys \['data'\]"),
        (
            lambda: batch(data=[1, 2]),
            r"data: expected a uint8 array of shape \(10000, 3072\), found something else",
        ),
        (lambda: batch(data=np.zeros((10_000, 3072), np.int8)), "data: expected a uint8 array"),
        (
            lambda: batch(data=np.zeros((3072, 10_000), np.uint8)),
            r"shape \(10000, 3072\), found \(3072, 10000\)",
        ),
        (lambda: batch(9_999), r"data: expected shape \(10000, 3072\), found \(9999, 3072\)"),
        (lambda: batch(labels=[0] * 9_999), "labels: expected a list of 10000 integers, found 9999 of them"),
        (lambda: batch(labels=tuple([0] * 10_000)), "labels: expected a list of 10000 integers, found tuple"),
        (lambda: batch(labels=[0] * 9_999 + [10]), "labels: expected integers from 0 to 9, found 10"),
        (lambda: batch(labels=[0] * 9_999 + ["3"]), "labels: expected integers from 0 to 9, found '3'"),
        (lambda: batch(labels=[0] * 9_999 + [True]), "labels: expected integers from 0 to 9, found True"),
    ],
)
def test_wrong_batches(folder: Path, content: Callable[[], Any], message: str) -> None:
    (folder / "test_batch").write_bytes(pickle.dumps(content(), 2))
    with pytest.raises(DataError, match=message) as info:
        load_cifar10(folder, "test")
    assert str(folder / "test_batch") in str(info.value)


@pytest.mark.parametrize("names", ["airplane", ["airplane"], [1] * 10])
def test_wrong_class_names(folder: Path, names: Any) -> None:
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, 2))
    with pytest.raises(DataError, match="label_names: expected 10 class names"):
        load_cifar10(folder, "test")


def test_keys_may_be_python_3_text_or_python_2_bytes(folder: Path) -> None:
    content = {key.encode(): value for key, value in batch().items()}
    (folder / "test_batch").write_bytes(pickle.dumps(content, 4))
    shutil.copy(folder / "test_batch", folder / "data_batch_1")
    assert len(load_cifar10(folder, "test")) == 10_000
