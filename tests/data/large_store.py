"""Open and sample a store of black LSUN images in sparse files, in a process of its own; prints what memory it needs.

The files have their full size and take no room on the disk. Their checksums are those of zeros. So many bytes take half
a minute to check: unless that is asked for, the files are opened and mapped as always, and taken to hold zeros.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fastdat.data import TrainSampler, image_set, load_split, npy, split_files
from fastdat.data.image_layout import ImageFiles, shard_images
from fastdat.data.image_set import combined_digest
from fastdat.data.store import FORMAT, INDEX
from fastdat.util import sealed_json

SHAPE, IMAGE_BYTES = (3, 64, 64), 3 * 64 * 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True)
    parser.add_argument("--check", action="store_true", help="read every byte")
    options = parser.parse_args()
    write_store(options.folder / "warm", 1)
    use(options.folder / "warm", 1, 1)  # what every use allocates once
    digests = write_store(options.folder, options.count)
    if not options.check:
        split_files._digest = lambda descriptor, start, size: digests[size]
    before = memory()
    rows = use(options.folder, options.count, options.batches)
    after = memory()
    print(json.dumps({"rows": rows, **{key: after[key] - before[key] for key in after}}))


def write_store(folder: Path, count: int) -> dict[int, str]:
    """A store of ``count`` black images; returns the checksums of its blocks by their size."""
    folder.mkdir(parents=True, exist_ok=True)
    files = ImageFiles(folder, "train", SHAPE, shard_images(count, IMAGE_BYTES))
    for number, images in enumerate(files.counts(count)):
        with files.path(number).open("wb") as file:
            file.write(files.header(count))
            file.truncate(len(files.header(count)) + images * IMAGE_BYTES)
    labels = hashlib.sha256(bytes(8 * count)).hexdigest()
    header = npy.header(npy.LABELS, (count,))
    npy.files_of(folder, "train")[1].write_bytes(header + bytes(8 * count))
    sizes = [min(image_set.BLOCK, count - first) * IMAGE_BYTES for first in range(0, count, image_set.BLOCK)]
    digests = {size: hashlib.sha256(bytes(size)).hexdigest() for size in set(sizes)}
    blocks = [digests[size] for size in sizes]
    index = {
        "format": FORMAT,
        "dataset": "lsun-bedroom",
        "resolution": 64,
        "channels": 3,
        "resize": "",
        "source": "",
        "items": {"train": count},
        "identity": {"train": "0" * 64},
        "classes": [],
        "splits": {
            "train": {
                "count": count,
                "items": count,
                "skipped": [],
                "blocks": blocks,
                "labels": labels,
                "fingerprint": combined_digest(SHAPE, blocks),
                "shard_images": files.shard,
            }
        },
    }
    sealed_json.write(folder / INDEX, index)
    return digests


kept: list[Any] = []


def use(folder: Path, count: int, batches: int) -> int:
    """Make batches of one of eight ranks, in two epochs; returns how many rows were gathered."""
    data = load_split("lsun-bedroom", folder)
    assert len(data) == count
    rank, world = (3, 8) if count > 8 else (0, 1)
    sampler = TrainSampler(data, min(128, count), flip=True, rank=rank, world_size=world, resident=False)
    kept.append(sampler)
    for epoch in (0, 1):
        for step in range(batches):
            batch = sampler.batch(epoch * sampler.batches_per_epoch + step)
            assert np.all(batch.numpy() == -1)
    return 128 * 2 * (batches + 3)  # three are ready ahead


def memory() -> dict[str, int]:
    """Bytes of this process: its own, and of files that it has mapped and touched."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    own, *mapped = (1024 * int(lines[key].split()[0]) for key in ("RssAnon", "RssFile", "RssShmem"))
    return {"own": own, "mapped": sum(mapped)}


if __name__ == "__main__":
    main()
