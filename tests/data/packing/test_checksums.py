"""Checksums in memory: they do not depend on how many images are appended at once."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fastdat.data.image_set import combined_digest
from fastdat.data.packing.checksums import Checksums

SHAPE = (3, 2, 5)
IMAGES = np.random.default_rng(0).integers(0, 256, (22, *SHAPE), np.uint8)
LABELS = np.arange(22, dtype=np.int64) - 300


def sha(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastdat.data.image_set.BLOCK", 4)


@pytest.mark.parametrize("count", [1, 4, 20, 22])
@pytest.mark.parametrize("at_once", [1, 3, 4, 5, 11, 22])
def test_entries(at_once: int, count: int) -> None:
    checksums = Checksums(SHAPE)
    for first in range(0, count, at_once):
        stop = min(first + at_once, count)
        checksums.append(IMAGES[first:stop], LABELS[first:stop])
        assert len(checksums.entries()["blocks"]) == -(-stop // 4)
    blocks = [sha(IMAGES[first : min(first + 4, count)]) for first in range(0, count, 4)]
    expected = {
        "blocks": blocks,
        "labels": sha(LABELS[:count]),
        "fingerprint": combined_digest(SHAPE, blocks),
    }
    assert checksums.entries() == expected


def test_a_copy_goes_its_own_way() -> None:
    one = Checksums(SHAPE)
    one.append(IMAGES[:6], LABELS[:6])
    two, before = one.copy(), one.entries()
    assert two.entries() == before
    two.append(IMAGES[6:13], LABELS[6:13])
    assert one.entries() == before
    one.append(IMAGES[6:13], LABELS[6:13])
    assert one.entries() == two.entries() != before


def test_other_orders_in_memory_make_no_difference() -> None:
    one, two = Checksums(SHAPE), Checksums(SHAPE)
    one.append(IMAGES[:6], LABELS[:12:2])
    turned = np.ascontiguousarray(IMAGES[:6].transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1)
    two.append(turned, LABELS[:12:2].astype(">i8"))
    assert one.entries() == two.entries()
