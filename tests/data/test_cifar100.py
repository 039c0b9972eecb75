"""CIFAR-100, on noise in the publisher's layout."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastdat.data import load_split
from tests.data.helpers import assert_refused


def write_cifar100(folder: Path) -> Path:
    """A CIFAR-100 of the published size, whose images are noise, in the publisher's pickle protocol."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 50_000), ("test", 10_000)):
        labels = rng.integers(0, 100, count).tolist()
        batch = {
            "data": rng.integers(0, 256, (count, 3072), np.uint8),
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
        }
        (folder / split).write_bytes(pickle.dumps(batch, protocol=2))
    names = {"fine_label_names": [f"class{i}" for i in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder.parent


def test_fine_labels_are_read(tmp_path: Path) -> None:
    root = write_cifar100(tmp_path / "cifar-100-python")
    found = load_split("cifar100", root, "test")
    raw = pickle.loads((root / "cifar-100-python" / "test").read_bytes())
    assert (found.images[3].flatten().numpy() == raw["data"][3]).all()
    assert found.labels.tolist() == raw["fine_labels"]
    assert found.classes[:2] == ("class0", "class1")
    (root / "cifar-100-python" / "test").unlink()
    assert_refused("cifar100", root, r"test is missing.*fastdat data download cifar100", "test")
    assert_refused("cifar100", tmp_path / "x", "fastdat data download cifar100")


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
            return open, (str(tmp_path / "was-here"),)

    root = write_cifar100(tmp_path / "cifar-100-python")
    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps(Evil()))
    assert_refused("cifar100", root, "Nothing in it was executed")
