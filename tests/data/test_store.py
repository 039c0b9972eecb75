"""Packing: what a store holds, and that neither a kill nor damage nor a full disk can make a wrong one."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from fastdat import cli
from fastdat.data import DataError, ImageSet, Store, load_split, pack
from fastdat.data import decode as images_module
from fastdat.data.registry import DATASETS, open_split
from fastdat.data.store import _tensor

TREE = Path(__file__).resolve().parents[2]


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def pictures(cifar10: ImageSet, tmp_path: Path) -> Path:
    """A folder of 60 real images in two classes, and 10 to test with."""
    for i in range(70):
        folder = tmp_path / "pictures" / ("test" if i >= 60 else "train") / ("a" if i % 3 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cifar10.images[i].permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and pieces of 8 images, so that a few images are many, each durable at once."""
    for module in ("fastdat.data.decode", "fastdat.data.packing", "fastdat.data.store"):
        monkeypatch.setattr(f"{module}.BLOCK", 8)
    monkeypatch.setattr("fastdat.data.packing._PIECE", 8)
    monkeypatch.setattr("fastdat.data.packing._DURABLE_EVERY", 0)


def packed(pictures: Path, dest: Path, **changes: Any) -> Store:
    return pack("folder", pictures, dest, **{"resolution": 32, "workers": 0} | changes).store


def content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


# --- what a store is ---------------------------------------------------------------------------------------------


def test_a_store_holds_what_the_reader_reads(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    for split in ("train", "test"):
        plain = load_split("folder", pictures, split, 32)
        stored = load_split("folder", tmp_path / "store", split, 32)
        assert torch.equal(plain.images, stored.images)
        assert torch.equal(plain.labels, stored.labels)
        assert plain.classes == stored.classes
        assert plain.fingerprint == stored.fingerprint == stored.digest
        array = np.load(tmp_path / "store" / f"{split}.images.npy")
        assert (array == plain.images.numpy()).all(), "a plain NumPy file"
    assert not (tmp_path / "store.partial").exists()
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        "store.json", "train.images.npy", "train.labels.npy", "test.images.npy", "test.labels.npy",
    }  # fmt: skip


def test_real_data_is_packed_as_it_is(cifar10_root: Path, tmp_path: Path) -> None:
    store = pack("cifar10", cifar10_root, tmp_path / "store", splits=("test",)).store
    assert list(store.damaged()) == []
    plain = load_split("cifar10", cifar10_root, "test")
    stored = load_split("cifar10", tmp_path / "store", "test")
    assert torch.equal(plain.images, stored.images)
    assert plain.fingerprint == stored.fingerprint
    with pytest.raises(DataError, match="has no train split; it has: test"):
        load_split("cifar10", tmp_path / "store", "train")


@pytest.mark.usefixtures("small_blocks")
def test_processes_change_nothing(pictures: Path, tmp_path: Path) -> None:
    (pictures / "train" / "a" / "013.png").write_bytes(b"no image")
    packed(pictures, tmp_path / "alone", workers=0)
    packed(pictures, tmp_path / "many", workers=2)
    assert content(tmp_path / "alone") == content(tmp_path / "many")
    assert Store(tmp_path / "many").index["splits"]["train"]["skipped"][0][0] == "a/013.png"


@pytest.mark.parametrize("name", ["folder", "cifar10", "tiny-imagenet"])
def test_a_process_is_sent_its_own_images_only(
    name: str, pictures: Path, cifar10_root: Path, tmp_path: Path
) -> None:
    """Of a set of millions, too: what is sent for all blocks together is about the set, once."""
    source = open_split(DATASETS[name], pictures if name == "folder" else cifar10_root, "train")
    whole, parts = pickle.dumps(source), [source.part(i, min(i + 10, 60)) for i in range(0, 60, 10)]
    assert sum(len(pickle.dumps(part)) for part in parts) < 60 / len(source) * len(whole) + 6 * 8000
    for i in (0, 17, 59):
        image, label = parts[i // 10].read(i % 10)
        expected, expected_label = source.read(i)
        assert (image == expected).all()
        assert label == expected_label
        assert parts[i // 10].name_of(i % 10) == source.name_of(i)


def test_progress_is_told(pictures: Path, tmp_path: Path, small_blocks: None) -> None:
    told: list[tuple[str, int, int, int]] = []
    packed(pictures, tmp_path / "store", progress=lambda *a: told.append(a))
    assert told[0] == ("train", 8, 60, 0)
    assert told[-1] == ("test", 10, 10, 0)


def test_packing_again_is_done_already(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    before = (tmp_path / "store" / "store.json").stat().st_mtime_ns
    packed(pictures, tmp_path / "store")
    assert (tmp_path / "store" / "store.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"holds another store: resolution 32 then, 16 now"):
        packed(pictures, tmp_path / "store", resolution=16)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="other exists and is no packed data set"):
        packed(pictures, tmp_path / "other")


@pytest.mark.parametrize(
    ("dataset", "size", "message"),
    [
        ("folder", 16, "holds folder at 32 pixels; expected folder at 16"),
        ("cifar10", 32, "expected cifar10 at 32"),
    ],
)
def test_another_store_than_wanted(
    dataset: str, size: int, message: str, pictures: Path, tmp_path: Path
) -> None:
    packed(pictures, tmp_path / "store")
    with pytest.raises(DataError, match=message):
        load_split(dataset, tmp_path / "store", "train", size)


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
def test_corrupt_images_are_left_out_and_listed(pictures: Path, tmp_path: Path) -> None:
    plain = load_split("folder", pictures, "train", 32)
    bad = sorted(p for p in pictures.rglob("*.png") if "train" in str(p))[9]
    bad.write_bytes(bad.read_bytes()[:60])
    result = pack("folder", pictures, tmp_path / "store", resolution=32, workers=0)
    ((split, name, reason),) = result.skipped
    assert (split, name) == ("train", str(bad.relative_to(pictures / "train")))
    assert reason
    stored = load_split("folder", tmp_path / "store", "train", 32)
    keep = [i for i in range(60) if i != 9]
    assert torch.equal(stored.images, plain.images[keep])
    assert torch.equal(stored.labels, plain.labels[keep])
    assert result.store.index["splits"]["train"]["skipped"] == [[name, reason]]
    assert list(result.store.damaged()) == []


@pytest.mark.usefixtures("small_blocks")
def test_a_folder_that_is_mostly_rubbish_is_refused(pictures: Path, tmp_path: Path) -> None:
    for path in list((pictures / "train").rglob("*.png"))[::3]:
        path.write_bytes(b"rubbish")
    with pytest.raises(
        DataError, match=r"of the first \d+ images of train cannot be read.*nothing was put in place"
    ):
        packed(pictures, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("small_blocks")
def test_damage_is_found(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    path = tmp_path / "store" / "train.images.npy"
    raw = bytearray(path.read_bytes())
    raw[128 + 8 * 3072 + 5] ^= 1
    path.write_bytes(raw)
    code, _, err = invoke("data", "check", tmp_path / "store")
    assert code == 2
    assert "train: block 1 (images 8 to 15) has changed since it was packed" in err
    raw[128 + 8 * 3072 + 5] ^= 1
    path.write_bytes(raw)
    assert invoke("data", "check", tmp_path / "store")[:2] == (
        0,
        f"{tmp_path / 'store'} is as it was packed\n",
    )


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train.images.npy", lambda raw: raw[:-1], "npy is damaged"),
        ("train.images.npy", lambda raw: b"", "npy is damaged"),
        ("train.labels.npy", lambda raw: raw[:-8], "npy is damaged"),
        ("store.json", lambda raw: raw[:-30], "store.json is damaged"),
        (
            "store.json",
            lambda raw: raw.replace(b'"format": 1', b'"format": 7'),
            "store of format 7; this version reads 1",
        ),
        (
            "store.json",
            lambda raw: raw.replace(b'"count": 60', b'"count": 61'),
            r"expected uint8 \(61, 3, 32, 32\)",
        ),
    ],
)
def test_a_damaged_store_does_not_open(
    name: str, damage: Any, message: str, pictures: Path, tmp_path: Path
) -> None:
    packed(pictures, tmp_path / "store")
    path = tmp_path / "store" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_split("folder", tmp_path / "store", "train", 32)


def test_a_fingerprint_depends_on_every_pixel(cifar10: ImageSet) -> None:
    def fingerprint(images: Tensor) -> str:
        return ImageSet("some", images, cifar10.labels[:10], cifar10.classes).fingerprint

    some = cifar10.images[:10].clone()
    before = fingerprint(some)
    some[9, 2, 31, 31] ^= 1
    assert fingerprint(some) != before
    assert fingerprint(some.flip(0)) != fingerprint(some)
    assert images_module.BLOCK == 4096


# --- ends in the middle ------------------------------------------------------------------------------------------

KILLED = """
import sys, time
sys.path.insert(0, {tree!r})
import fastdat.data.decode, fastdat.data.packing, fastdat.data.store
for module in (fastdat.data.decode, sys.modules["fastdat.data.packing"], fastdat.data.store):
    module.BLOCK = 8
sys.modules["fastdat.data.packing"]._PIECE, sys.modules["fastdat.data.packing"]._DURABLE_EVERY = 8, 0
def progress(*told):
    print(*told, flush=True)
    time.sleep({pause})
sys.modules["fastdat.data.packing"].pack(
    "folder", {source!r}, {dest!r}, resolution=32, workers=0, progress=progress
)
"""


def pack_in_a_process(pictures: Path, dest: Path, pause: float = 0.0) -> list[str]:
    code = KILLED.format(tree=str(TREE), source=str(pictures), dest=str(dest), pause=pause)
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("blocks", [1, 4, 9])
@pytest.mark.usefixtures("small_blocks")
def test_kill_and_go_on(blocks: int, pictures: Path, tmp_path: Path) -> None:
    """kill -9 after so many of the ten blocks, in the first split or the second: the files of a run nobody killed."""
    bad = sorted((pictures / "train").rglob("*.png"))[9]
    bad.write_bytes(b"rubbish")
    packed(pictures, tmp_path / "whole")
    command = pack_in_a_process(pictures, tmp_path / "store", 0.05)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(blocks):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "store").exists()
    with (tmp_path / "store.partial" / "journal.jsonl").open("a") as file:
        file.write('{"split": "tr')  # what a kill in the middle of a line may leave
    told: list[Any] = []
    packed(pictures, tmp_path / "store", progress=lambda *a: told.append(a))
    assert content(tmp_path / "whole") == content(tmp_path / "store")
    assert len(told) <= 10 - blocks, "what was done is not done again"
    assert not (tmp_path / "store.partial").exists()


@pytest.mark.usefixtures("small_blocks")
def test_what_was_begun_otherwise_is_told(pictures: Path, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(pictures, tmp_path / "store", progress=stop)
    with pytest.raises(DataError, match=r"was begun otherwise: resolution 32 then, 16 now"):
        packed(pictures, tmp_path / "store", resolution=16)
    next((pictures / "train").rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"was begun otherwise: items .*60.* then, .*59.* now"):
        packed(pictures, tmp_path / "store")
    (tmp_path / "store2.partial").mkdir()
    (tmp_path / "store2.partial" / "precious").write_text("")
    with pytest.raises(DataError, match="is in the way"):
        packed(pictures, tmp_path / "store2")


def test_no_room_is_told_before_the_work(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100_000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(
        DataError, match=r"has 0 MiB of room, and 0 MiB are needed for 70 images of 32 pixels"
    ):
        packed(pictures, tmp_path / "store")
    monkeypatch.undo()
    assert packed(pictures, tmp_path / "store", resolution=16).index["resolution"] == 16, "nothing was begun"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("small_blocks")
def test_a_disk_that_fills_up(pictures: Path, tmp_path: Path, small_disk: Path) -> None:
    packed(pictures, tmp_path / "whole")

    def fill(split: str, done: int, total: int, skipped: int) -> None:
        if done == 16:
            with pytest.raises(OSError, match="No space"):
                (small_disk / "ballast").write_bytes(bytes(1 << 20))

    with pytest.raises(DataError, match=r"No space left on device. What was packed so far is kept in"):
        packed(pictures, small_disk / "store", progress=fill)
    assert not (small_disk / "store").exists()
    (small_disk / "ballast").unlink()
    packed(pictures, small_disk / "store")
    assert content(tmp_path / "whole") == content(small_disk / "store")


def test_a_limit_on_the_size_of_files(pictures: Path, tmp_path: Path) -> None:
    """The same failure where nothing can be mounted: the operating system refuses the write."""
    command = pack_in_a_process(pictures, tmp_path / "store")
    command[2] = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n" + command[2]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "DataError: cannot write" in result.stderr
    assert "File too large" in result.stderr
    assert not (tmp_path / "store").exists()
    packed(pictures, tmp_path / "store2")


@pytest.mark.usefixtures("small_blocks")
def test_what_was_refused_is_refused_again_until_it_is_mended(pictures: Path, tmp_path: Path) -> None:
    files = sorted((pictures / "train").rglob("*.png"))
    kept = [file.read_bytes() for file in files]
    for file in files[:40]:
        file.write_bytes(b"rubbish")
    for _ in range(3):
        with pytest.raises(DataError, match="This looks like a wrong folder or a broken disk"):
            packed(pictures, tmp_path / "store")
    for file, content_before in zip(files, kept, strict=True):
        file.write_bytes(content_before)
    packed(pictures, tmp_path / "store")
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.usefixtures("small_blocks")
def test_images_mended_between_two_runs_are_taken_in(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "whole")
    bad = sorted((pictures / "train").rglob("*.png"))[3]
    good = bad.read_bytes()
    bad.write_bytes(b"rubbish")

    def stop(split: str, done: int, *_: int) -> None:
        if done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(pictures, tmp_path / "store", progress=stop)
    bad.write_bytes(good)
    packed(pictures, tmp_path / "store")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def stopped_after_two_blocks(pictures: Path, dest: Path) -> Path:
    def stop(split: str, done: int, *_: int) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(pictures, dest, progress=stop)
    return dest.with_name(dest.name + ".partial")


@pytest.mark.parametrize("name", ["train.images.npy", "train.labels.npy"])
@pytest.mark.parametrize("damage", ["gone", "short"])
@pytest.mark.usefixtures("small_blocks")
def test_files_shorter_than_the_journal_are_refused(
    name: str, damage: str, pictures: Path, tmp_path: Path
) -> None:
    """They would be filled up with zeros, which no checksum made afterwards could tell from images."""
    partial = stopped_after_two_blocks(pictures, tmp_path / "store")
    if damage == "gone":
        (partial / name).unlink()
    else:
        os.truncate(partial / name, (partial / name).stat().st_size - 1)
    with pytest.raises(
        DataError, match=f"{name} is shorter than its journal says. Remove .*partial and pack anew"
    ):
        packed(pictures, tmp_path / "store")


@pytest.mark.usefixtures("small_blocks")
def test_a_journal_of_two_processes_is_refused(pictures: Path, tmp_path: Path) -> None:
    partial = stopped_after_two_blocks(pictures, tmp_path / "store")
    journal = (partial / "journal.jsonl").read_text()
    (partial / "journal.jsonl").write_text(journal + journal.splitlines()[-1] + "\n")
    with pytest.raises(DataError, match=r"journal.jsonl is damaged. Remove .*store.partial and pack anew"):
        packed(pictures, tmp_path / "store")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("changed", [5, 12, 40])
def test_images_replaced_between_two_runs_are_packed_as_they_are(
    changed: int, cifar10: ImageSet, pictures: Path, tmp_path: Path
) -> None:
    """Under the same names: a block that was done of others, and all after it, is done again."""
    stopped_after_two_blocks(pictures, tmp_path / "store")
    again = sorted((pictures / "train").rglob("*.png"))[changed]
    Image.fromarray(cifar10.images[200].permute(1, 2, 0).numpy()).resize((40, 40)).save(again)
    told: list[int] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: told.append(done))
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert told[0] == min(changed // 8 * 8, 16) + 8


def test_images_replaced_after_packing_are_told(cifar10: ImageSet, pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    again = next((pictures / "train").rglob("*.png"))
    Image.fromarray(cifar10.images[200].permute(1, 2, 0).numpy()).resize((40, 40)).save(again)
    with pytest.raises(DataError, match="holds another store: as many images then, but others"):
        packed(pictures, tmp_path / "store")


@pytest.mark.usefixtures("small_blocks")
def test_pieces_between_two_waits_for_the_disk_are_done_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastdat.data.packing._DURABLE_EVERY", 3600)
    partial = stopped_after_two_blocks(pictures, tmp_path / "store")
    assert not (partial / "journal.jsonl").exists()
    packed(pictures, tmp_path / "store")
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_few_large_images_are_shared_among_processes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece is bounded by its bytes, too, and the store does not depend on it."""
    monkeypatch.setattr("fastdat.data.packing._PIECE_BYTES", 5 * 3 * 32 * 32)
    told: list[int] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: told.append(done))
    assert told == [*range(5, 61, 5), 5, 10]
    monkeypatch.undo()
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.usefixtures("small_blocks")
def test_two_processes_do_not_pack_into_one_place(pictures: Path, tmp_path: Path) -> None:
    command = pack_in_a_process(pictures, tmp_path / "store", 0.2)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(DataError, match=r"another process is packing into .*store.partial"):
            packed(pictures, tmp_path / "store")
        process.communicate()
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@pytest.mark.usefixtures("small_blocks")
def test_a_stop_before_or_after_the_last_move(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(pictures, tmp_path / "whole")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    for i, name in enumerate(("os.rename", "fastdat.data.packing._tidy")):
        dest = tmp_path / f"store{i}"
        with monkeypatch.context() as patched:
            patched.setattr(name, stop)
            with pytest.raises(KeyboardInterrupt):
                packed(pictures, dest)
        packed(pictures, dest)
        assert content(dest) == content(tmp_path / "whole")
        assert not dest.with_name(f"store{i}.partial").exists()


def test_another_source_is_not_taken_for_this_one(cifar10: ImageSet, pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    moved = pictures.rename(tmp_path / "moved")
    packed(moved, tmp_path / "store")  # the same images
    Image.fromarray(cifar10.images[99].permute(1, 2, 0).numpy()).save(moved / "train" / "a" / "another.png")
    with pytest.raises(DataError, match=r"holds another store: items .*60.* then, .*61.* now"):
        packed(moved, tmp_path / "store")
    next((moved / "train" / "a").glob("0*.png")).unlink()
    with pytest.raises(DataError, match="holds another store: as many images then, but others"):
        packed(moved, tmp_path / "store")


def test_a_disk_that_fails_is_no_bad_image(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's errors stop packing, which can go on later; counted as damage, good images would be lost."""
    opened = Image.open

    def failing(file: Any, *rest: Any) -> Any:
        if str(file).endswith("013.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(file, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", failing)
        with pytest.raises(DataError, match=r"013.png cannot be read: Input/output error"):
            packed(pictures, tmp_path / "store")
    assert packed(pictures, tmp_path / "store").index["splits"]["train"]["count"] == 60


def test_decoding_processes_end_with_the_one_that_packs(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(TREE)!r})
from fastdat.data.packing import _Pool
import os
if __name__ == "__main__":
    with _Pool(2, 1) as pool:
        print(*[pool._pool.submit(os.getpid).result() for _ in range(1)], *pool._pool._processes, flush=True)
        time.sleep(60)
"""
    script = tmp_path / "pool.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert all(Path(f"/proc/{pid}").exists() for pid in children)
        process.kill()
    end = time.monotonic() + 10
    while any(running(pid) for pid in children):
        assert time.monotonic() < end, "they wait for work that will never come"
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_store_larger_than_memory_can_be_opened(pictures: Path, tmp_path: Path) -> None:
    """A sparse one of 1 TiB: what is mapped for reading does not count against memory."""
    packed(pictures, tmp_path / "store")
    count = (1 << 40) // (3 * 32 * 32)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 3, 32, 32), }}".encode()
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    with (tmp_path / "store" / "train.images.npy").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + count * 3 * 32 * 32)
    images = Store(tmp_path / "store")._load("train.images.npy", "uint8", (count, 3, 32, 32), "r")
    assert images[count - 1].sum() == 0
    assert _tensor(images)[count // 2].sum() == 0


# --- the command -------------------------------------------------------------------------------------------------


def test_pack_and_info(pictures: Path, tmp_path: Path) -> None:
    bad = next((pictures / "train").rglob("*.png"))
    bad.write_bytes(b"rubbish")
    code, out, err = invoke(
        "data", "pack", "folder", pictures, tmp_path / "store", "--resolution", 32, "--workers", 0
    )
    assert code == 0
    assert "train: 59 images, 1 left out, fingerprint " in out
    assert f"left out of train: {bad.relative_to(pictures / 'train')}: " in err
    assert "\r" not in err
    assert invoke("data", "info", tmp_path / "store")[1] == out
    again = invoke("data", "pack", "folder", pictures, tmp_path / "store", "--resolution", 32)
    assert again[:2] == (0, out)
    assert "holds these images already, by their names and sizes: nothing to do" in again[2]
    assert f"left out of train: {bad.relative_to(pictures / 'train')}: " in again[2]
    index = json.loads((tmp_path / "store" / "store.json").read_text())
    assert index["resize"].startswith("middle square")


def test_pack_takes_the_splits_there_are(pictures: Path, tmp_path: Path) -> None:
    code, out, _ = invoke(
        "data", "pack", "folder", pictures / "train", tmp_path / "store", "--resolution", 16, "--workers", 0
    )
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[1:]] == ["  train"]


def test_info_lists_and_tells() -> None:
    code, out, _ = invoke("data", "info")
    assert (code, len(out.splitlines())) == (0, 7)
    assert "stl10          STL-10, 48 pixels, no labels; fastdat data download" in out
    assert invoke("data", "info", "stl10")[1].startswith("# STL-10")
    assert "unknown data set 'imagenet'" in invoke("data", "info", "imagenet")[2]


def test_a_script_without_a_guard_is_told(pictures: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    call = f"pack('folder', {str(pictures)!r}, {str(tmp_path / 'store')!r}, resolution=32, workers=1)"
    setup = (
        f"import sys; sys.path.insert(0, {str(TREE)!r})\nimport fastdat.data\nfrom fastdat.data import pack\n"
    )
    script.write_text(f"{setup}sys.modules['fastdat.data.packing']._PIECE = 8\n{call}\n")
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert 'without `if __name__ == "__main__":`' in result.stderr.splitlines()[-1]


def test_errors_of_the_command(tmp_path: Path) -> None:
    assert (
        "does not exist"
        in invoke("data", "pack", "folder", tmp_path / "x", tmp_path / "s", "--resolution", 8)[2]
    )
    assert "is no packed data set" in invoke("data", "check", tmp_path)[2]
    assert "unknown data set" in invoke("data", "pack", "imagenet", tmp_path, tmp_path / "s")[2]
