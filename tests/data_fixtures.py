"""Real images: from ``$FASTDAT_DATA``, or else unpacked from ``../shared/data`` once per session, or else skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastdat.data import ImageSet, load_cifar10

_UNPACK = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "unpack.py"


def unpacked(dest: Path) -> Path | None:
    """The folder of the real images, which is ``dest`` if they have to be unpacked first; None where there are none."""
    if "FASTDAT_DATA" in os.environ:
        return Path(os.environ["FASTDAT_DATA"])
    if not _UNPACK.is_file():
        return None
    subprocess.run([sys.executable, str(_UNPACK), str(dest)], check=True, capture_output=True, timeout=300)
    return dest


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds ``cifar-10-batches-py``."""
    folder = unpacked(tmp_path_factory.mktemp("data"))
    if folder is None:
        pytest.skip(f"no real CIFAR-10 here: neither $FASTDAT_DATA nor {_UNPACK}")
    return folder


@pytest.fixture(scope="session")
def tiny_root(cifar10_root: Path) -> Path:
    """The folder that holds ``tiny-imagenet-200``."""
    if not (cifar10_root / "tiny-imagenet-200").is_dir():
        pytest.skip(f"no Tiny-ImageNet in {cifar10_root}")
    return cifar10_root


@pytest.fixture(scope="session")
def cifar10(cifar10_root: Path) -> ImageSet:
    """All 50,000 training images."""
    return load_cifar10(cifar10_root, "train")


@pytest.fixture
def few_images(cifar10: ImageSet) -> ImageSet:
    """The first 100 training images, for runs of a few steps."""
    return ImageSet("cifar10 train[:100]", cifar10.images[:100], cifar10.labels[:100], cifar10.classes)
