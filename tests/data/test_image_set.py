"""Sets of images: their shapes and fingerprints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet, image_set


def test_a_fingerprint_depends_on_every_pixel(cifar10: ImageSet) -> None:
    def fingerprint(images: Tensor) -> str:
        return ImageSet("some", images, cifar10.labels[:10], cifar10.classes).fingerprint

    some = cifar10.images[:10].clone()
    before = fingerprint(some)
    some[9, 2, 31, 31] ^= 1
    assert fingerprint(some) != before
    assert fingerprint(some.flip(0)) != fingerprint(some)
    assert image_set.BLOCK == 4096, "part of the store's format"


def test_tensors_are_checked() -> None:
    images, labels = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"x: images must be uint8, got torch\.float32"):
        ImageSet("x", images.float(), labels, ())
    with pytest.raises(ValueError, match=r"x: images must be \(N, C, H, W\), N > 0, got \(0, 3, 4, 4\)"):
        ImageSet("x", images[:0], labels[:0], ())
    with pytest.raises(ValueError, match=r"x: 3 images but labels \(2,\)"):
        ImageSet("x", images, labels[:2], ())
