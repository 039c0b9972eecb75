"""Every kind of damage to a store, in every file of it: none is used, and each is told as a DataError."""

from __future__ import annotations

import copy
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdat.data import DataError, load_split
from fastdat.data.image_set import combined_digest
from fastdat.data.store import INDEX
from fastdat.util import sealed_json
from tests.data.helpers import flip_bit, packed

pytestmark = pytest.mark.usefixtures("small_pieces")

FILES = (INDEX, *(f"{split}.{what}.npy" for split in ("train", "test") for what in ("images", "labels")))
FLIPS = 60  # of each file
HEADER_FLIPS = 20  # of them in its first 128 bytes


@pytest.fixture
def store(pictures: Path, tmp_path: Path) -> Path:
    """A store of 8 blocks to train on and 2 to test on; its path has no letters that a message could have."""
    packed(pictures, tmp_path / "store", resolution=8)
    return tmp_path / "store"


def refusals(store: Path) -> list[str]:
    """The messages of the splits that are refused. An error of another type is none, and fails the test."""
    messages = []
    for split in ("train", "test"):
        try:
            load_split("folder", store, split, 8)
        except DataError as error:
            messages.append(str(error))
    return messages


def assert_refused(store: Path, *messages: str) -> None:
    """At least one split is refused. Each refusal says what to do, and the first one has these words in it."""
    found = refusals(store)
    assert found, "damage was used"
    for message in found:
        assert f"Remove {store} and pack the data set again" in message
    for words in messages:
        assert words in found[0]


def test_an_undamaged_store_is_used(store: Path) -> None:
    assert refusals(store) == []


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(name: str, store: Path) -> None:
    path, rng = store / name, random.Random(name)
    bits = [rng.randrange(8 * 128) for _ in range(HEADER_FLIPS)]
    bits += [rng.randrange(8 * path.stat().st_size) for _ in range(FLIPS - HEADER_FLIPS)]
    for bit in bits:
        flip_bit(path, bit)
        assert_refused(store, *words_for(path, bit // 8))
        flip_bit(path, bit)
    assert refusals(store) == []


def words_for(path: Path, byte: int) -> list[str]:
    """What the message must say about a damaged byte of a file."""
    split = path.name.split(".")[0]
    if path.name == INDEX:
        return [f"{path} is damaged"]
    if byte < 128:
        return [f"the header of {path} has changed"]
    if "labels" in path.name:
        return [f"{split}: the labels in {path} have changed", f"fastdat data check {path.parent}"]
    block, count = (byte - 128) // (8 * 192), {"train": 60, "test": 10}[split]
    last = min(8 * block + 7, count - 1)
    return [f"{split}: block {block} (images {8 * block} to {last}) of {path} has changed", "--resolution 8"]


@pytest.mark.parametrize("name", FILES)
def test_other_sizes_are_found(name: str, store: Path) -> None:
    path, rng = store / name, random.Random(name)
    raw = path.read_bytes()
    ends = [0, 1, 10, 127, 128, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(10))]
    for damaged in [raw[:end] for end in ends] + [raw + b"\0", raw + raw, b"\n" + raw]:
        path.write_bytes(damaged)
        assert_refused(store, str(path))
    path.write_bytes(raw)
    assert refusals(store) == []


@pytest.mark.parametrize("name", FILES)
def test_missing_files_and_folders_in_their_place(name: str, store: Path) -> None:
    path = store / name
    path.unlink()
    assert_refused(store, f"{path} is missing")
    path.mkdir()
    assert_refused(store, str(path), "cannot be read: Is a directory" if name == INDEX else "is no file")
    path.rmdir()
    path.symlink_to(store / "nowhere")
    assert_refused(store, f"{path} is missing")


@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("counts", ["different", "equal"])
def test_files_of_train_and_test_exchanged(what: str, counts: str, pictures: Path, tmp_path: Path) -> None:
    if counts == "equal":  # ten images in each split, of other classes
        for path in (pictures / "train").rglob("*.png"):
            if not 10 <= int(path.stem) < 20:
                path.unlink()
    store = tmp_path / "store"
    packed(pictures, store, resolution=8)
    train, test = (store / f"{split}.{what}.npy" for split in ("train", "test"))
    train.rename(tmp_path / "aside")
    test.rename(train)
    (tmp_path / "aside").rename(test)
    assert len(refusals(store)) == 2
    assert_refused(store, str(train))


def test_files_of_another_store(store: Path, pictures: Path, tmp_path: Path) -> None:
    """Their headers and sizes are the same, and they fit each other."""
    images = sorted((pictures / "train").rglob("*.png"))
    shutil.copy(images[0], images[59])
    packed(pictures, tmp_path / "other", resolution=8)
    for what in ("images", "labels"):
        shutil.copy(tmp_path / "other" / f"train.{what}.npy", store / f"train.{what}.npy")
    assert_refused(store, "train: block 7 (images 56 to 59)")


# --- the index ---------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_bytes(store: Path) -> None:
    """What records call data_sha256. An index with another one is refused, even where its own checksum is right."""
    data = load_split("folder", store, "train", 8)
    images = np.load(store / "train.images.npy")
    digests = [hashlib.sha256(images[first : first + 8].tobytes()).hexdigest() for first in range(0, 60, 8)]
    assert data.fingerprint == combined_digest((3, 8, 8), digests)
    change_index(store, lambda index: index["splits"]["train"].update(fingerprint="0" * 64))
    assert_refused(store, "train: the index has a fingerprint that is not that of the images")


def change_index(store: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write another index with a right checksum."""
    index = sealed_json.read(store / INDEX)
    change(index)
    sealed_json.write(store / INDEX, index)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "store.json is damaged: it is empty"),
        (b"rubbish", "store.json is damaged: it is no JSON"),
        (b"\xff\x00", "store.json is damaged: it is no JSON"),
        (b"[" * 100_000, "store.json is damaged: it is no JSON"),
        (b"[1]", "store.json is damaged: expected a JSON object, got list"),
        (b"3", "store.json is damaged: expected a JSON object, got int"),
        (b"{}", "store.json is damaged: it has no sha256"),
        (b'{"format": 2}', "store.json is damaged: it has no sha256"),
        (b'{"format": 1, "dataset": "folder"}', "is a store of format 1; this version reads 2 and 3"),
        (sealed_json.seal({"format": 4}), "is a store of format 4; this version reads 2 and 3"),
        (sealed_json.seal({}), "is a store of format None; this version reads 2 and 3"),
        (sealed_json.seal({"format": [2]}), "is a store of format [2]; this version reads 2 and 3"),
        (sealed_json.seal({"format": 2.0}), "format: expected a positive integer, got 2.0"),
        (sealed_json.seal({"format": 2}), "dataset is missing; expected a text"),
    ],
)
def test_an_index_that_is_none(raw: bytes, message: str, store: Path) -> None:
    (store / INDEX).write_bytes(raw)
    assert_refused(store, message)


def test_missing_entries(store: Path) -> None:
    index = sealed_json.read(store / INDEX)
    keys = [(key,) for key in index if key != "format"]
    keys += [("splits", split, key) for split in ("train", "test") for key in index["splits"][split]]
    assert len(keys) == 9 + 2 * 7
    for key in keys:
        change_index(store, lambda found, key=key: inner(found, key).pop(key[-1]))
        assert_refused(store, f"store.json is damaged: {'.'.join(key)} is missing; expected ")
        sealed_json.write(store / INDEX, index)
    assert refusals(store) == []


def inner(index: dict[str, Any], key: tuple[str, ...]) -> dict[str, Any]:
    """The object that holds the last of the keys."""
    for step in key[:-1]:
        index = index[step]
    return index


COUNTS, TEXTS = [None, 0, -3, 1.5, True, "8", [8], {}, 1 << 300], [None, 3, ["folder"], {}]
LISTS, SPLITS = [None, 3, "ab", {}, [3], [None]], [None, 3, "train", ["train"], {}, {"train": None}]
DIGESTS = [None, 3, "", "0" * 63, "g" * 64, "0" * 64 + "\n", ["0" * 64]]
WRONG: dict[tuple[str, ...], list[Any]] = {
    ("dataset",): TEXTS,
    ("resolution",): COUNTS,
    ("channels",): COUNTS,
    ("resize",): TEXTS,
    ("source",): TEXTS,
    ("items",): [*SPLITS, {"train": -1}, {"valid": 3}],
    ("identity",): [*SPLITS, {"train": "abc"}, {"valid": "0" * 64}],
    ("classes",): LISTS,
    ("splits",): [*SPLITS, {"train": []}, {"../other": {}}],
    ("splits", "train", "count"): [*COUNTS, 59, 61, 10**30],
    ("splits", "train", "items"): [*COUNTS, 59, 61, 10**30],
    ("splits", "train", "skipped"): [*LISTS, [["a"]], [["a", "b", "c"]], [["a", 3]], [["a", "b"]]],
    ("splits", "train", "blocks"): [*LISTS, [], ["0" * 64], ["0" * 64] * 9, ["0" * 63] * 8],
    ("splits", "train", "labels"): DIGESTS,
    ("splits", "train", "fingerprint"): DIGESTS,
    ("splits", "train", "shard_images"): [0, -64, 1.5, True, "8", [8], {}, 8, 63],
}


@pytest.mark.parametrize("key", WRONG, ids=".".join)
def test_wrong_entries(key: tuple[str, ...], store: Path) -> None:
    index = sealed_json.read(store / INDEX)
    for value in WRONG[key]:
        changed = copy.deepcopy(index)
        inner(changed, key)[key[-1]] = value
        sealed_json.write(store / INDEX, changed)
        assert_refused(store, "store.json is damaged: ", "expected ")
        if key[-1] not in ("items", "skipped"):  # the message names the count that they should give
            assert f"{'.'.join(key)}: expected " in refusals(store)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda index: index["splits"]["train"].update(count=61, items=61),
            "train.labels.npy has 608 bytes; expected 616",
        ),
        (
            lambda index: index["splits"]["train"].update(count=10**30),
            "splits.train.count: expected 60 (60 items, ",
        ),
        (
            lambda index: index["splits"]["train"].update(count=10**30, items=10**30),
            "splits.train.blocks: expected 1250",
        ),
        (lambda index: index.update(channels=1), "train.images.npy has 11,648 bytes; expected 3,968"),
        (
            lambda index: index.update(channels=(1 << 300) - 1),
            "train.images.npy has 11,648 bytes; expected 7,822,218,149,124,426",
        ),
    ],
)
def test_counts_that_do_not_fit(change: Callable[[dict[str, Any]], Any], message: str, store: Path) -> None:
    change_index(store, change)
    assert message in "\n".join(refusals(store))


@pytest.mark.parametrize("what", ["images", "labels"])
def test_another_shape_of_the_same_size(what: str, store: Path) -> None:
    """NumPy would read the file without complaint."""
    path = store / f"train.{what}.npy"
    np.save(path, np.load(path).reshape((60, 8, 8, 3) if what == "images" else (60, 1)))
    assert_refused(store, f"the header of {path} has changed")
