"""A store whose images lie in several files is used, resumed and refused like one that has them in one."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdat.data import DataError, Store, TrainSampler, load_split
from fastdat.data.store import INDEX
from fastdat.util import sealed_json
from tests.data.helpers import command_to_pack, content, flip_bit, packed, run_command, stop_after
from tests.slow_cases import slow_except

SHARDS = [f"train.images-{number:04d}.u8" for number in range(4)]


@pytest.fixture
def whole(pictures: Path, tmp_path: Path, small_pieces: None) -> Path:
    """The same images in one file."""
    return packed(pictures, tmp_path / "whole").path


@pytest.fixture
def store(whole: Path, pictures: Path, tmp_path: Path, small_shards: None) -> Path:
    """60 images to train on in shards of 16, and 10 to test on in one file."""
    return packed(pictures, tmp_path / "store").path


def load(store: Path) -> torch.Tensor:
    return load_split("folder", store, "train", 32).images


def test_the_same_images_in_other_files(store: Path, whole: Path) -> None:
    names = [*SHARDS, INDEX, "test.images.npy", "test.labels.npy", "train.labels.npy"]
    assert sorted(path.name for path in store.iterdir()) == sorted(names)
    assert [(store / name).stat().st_size // 3072 for name in SHARDS] == [16, 16, 16, 12]
    one, many = (load_split("folder", path, "train", 32) for path in (whole, store))
    assert torch.equal(one.images, many.images)
    assert torch.equal(one.labels, many.labels)
    assert one.fingerprint == many.fingerprint
    facts = [Store(path).index["splits"] for path in (whole, store)]
    assert [f["train"].pop("shard_images") for f in facts] == [None, 16]
    assert facts[0] == facts[1]


def test_a_shard_is_read_with_numpy(store: Path) -> None:
    images = np.memmap(store / SHARDS[3], np.uint8, "r").reshape(-1, 3, 32, 32)
    assert (images == load(store)[48:].numpy()).all()


def test_batches_cross_shards(store: Path, whole: Path) -> None:
    one, many = (
        TrainSampler(load_split("folder", path, "train", 32), 25, seed=4, flip=True, resident=resident)
        for path, resident in ((whole, True), (store, False))
    )
    try:
        for step in (0, 1, 5):
            assert torch.equal(one.batch(step), many.batch(step))
    finally:
        many.close()


def test_the_files_may_be_removed_while_they_are_used(store: Path) -> None:
    images = load(store)
    expected = images.clone()
    shutil.rmtree(store)
    assert torch.equal(images, expected)


# --- formats -----------------------------------------------------------------------------------------------------


def test_a_store_of_the_format_before_is_used(whole: Path, pictures: Path) -> None:
    index = sealed_json.read(whole / INDEX)
    index["format"] = 2
    for facts in index["splits"].values():
        del facts["shard_images"]
    sealed_json.write(whole / INDEX, index)
    assert load(whole).shape == (60, 3, 32, 32)
    packed(pictures, whole)
    assert sealed_json.read(whole / INDEX)["format"] == 2, "it holds these images already"
    assert run_command("data", "check", whole)[0] == 0


def test_packing_again_into_a_store_of_another_layout_does_nothing(
    whole: Path, store: Path, pictures: Path
) -> None:
    before = content(whole)
    packed(pictures, whole)  # by now it would be packed into shards
    assert content(whole) == before


# --- kills and damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", slow_except([5], [1, 2, 5, 8, 9]))
def test_a_killed_run_resumes_with_the_same_result(
    pieces: int, store: Path, pictures: Path, tmp_path: Path
) -> None:
    """kill -9 within a shard, between two, in the last one, and in the other split."""
    command = command_to_pack(pictures, tmp_path / "killed", "--shards", "--pause", "0.05")
    with subprocess.Popen(**command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(pieces):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    (tmp_path / "killed.partial" / "train.images-0004.u8").write_bytes(b"more")
    calls: list[int] = []
    packed(pictures, tmp_path / "killed", progress=lambda *arguments: calls.append(arguments[1]))
    assert len(calls) <= 10 - pieces, "finished pieces are not packed again"
    assert content(tmp_path / "killed") == content(store)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing", "exchanged"])
def test_damage_to_a_partial_store_is_packed_again(
    damage: str, store: Path, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partial = stop_after(40, pictures, tmp_path / "stopped")
    first, second = (partial / name for name in SHARDS[:2])
    if damage == "flipped bit":
        flip_bit(second, 8 * 9 * 3072)
    elif damage == "truncated":
        second.write_bytes(second.read_bytes()[:-1])
    elif damage == "missing":
        second.unlink()
    else:
        first.rename(partial / "aside")
        second.rename(first)
        (partial / "aside").rename(second)
    calls: list[int] = []
    packed(pictures, tmp_path / "stopped", progress=lambda *arguments: calls.append(arguments[1]))
    assert calls[0] == (8 if damage == "exchanged" else 24 if damage == "missing" else 32)
    assert "the train files are not what journal.jsonl says; packing again from image" in caplog.text
    assert content(tmp_path / "stopped") == content(store)


@pytest.mark.parametrize("name", SHARDS)
def test_every_flipped_bit_is_found(name: str, store: Path) -> None:
    path, rng = store / name, random.Random(name)
    for bit in (rng.randrange(8 * path.stat().st_size) for _ in range(10)):
        flip_bit(path, bit)
        first = 16 * SHARDS.index(name) + bit // 8 // 3072 // 8 * 8
        with pytest.raises(
            DataError, match=rf"block {first // 8} \(images {first} to .* of {path} has changed"
        ):
            load(store)
        flip_bit(path, bit)
    assert len(load(store)) == 60


def test_other_files_in_the_place_of_shards_are_found(store: Path) -> None:
    path = store / SHARDS[1]
    raw = path.read_bytes()
    for damaged, message in (
        (raw[:-1], f"{path} has 49,151 bytes; expected 49,152"),
        (b"", f"{path} has 0 bytes; expected 49,152"),
        (raw + b"0", f"{path} has 49,153 bytes"),
        ((store / SHARDS[0]).read_bytes(), f"block 2 (images 16 to 23) of {path} has changed"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            load(store)
        assert message in str(caught.value)
        assert f"Remove {store} and pack the data set again" in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing"):
        load(store)
    assert run_command("data", "check", store)[0] == 2


def test_a_store_that_has_lost_its_index_is_still_known(store: Path) -> None:
    (store / INDEX).unlink()
    with pytest.raises(DataError, match=r"store.json is missing. Remove .* and pack"):
        load(store)
