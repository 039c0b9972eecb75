"""The readers of packed stores, of the features of reals, and of the weights of extractors."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastdat.data.packing.journal import JOURNAL, Journal
from fastdat.data.source import ArraySource
from fastdat.data.store import INDEX, Store
from fastdat.metrics import extractors, reals
from fastdat.metrics.extractors import Extractor
from fastdat.util import sealed_json
from fastdat.util.errors import ConfigError, DataError
from tests.fuzz import wrapping
from tests.fuzz.data_targets import JSON_TOKENS, PICKLE_TOKENS, PIXELS
from tests.fuzz.target import Target

# --- stores ----------------------------------------------------------------------------------------------------------


@cache
def _store() -> dict[str, bytes]:
    """The files of a store of two images, as packing makes them."""
    import tempfile

    from fastdat.data import pack

    with tempfile.TemporaryDirectory() as scratch:
        for name in ("a", "b"):
            path = Path(scratch, "pictures", name, "1.png")
            path.parent.mkdir(parents=True)
            Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(path)
        pack(
            "folder",
            Path(scratch, "pictures"),
            Path(scratch, "store"),
            resolution=32,
            splits=("train",),
            workers=0,
        )
        return {path.name: path.read_bytes() for path in Path(scratch, "store").iterdir()}


def _store_without_digest() -> list[bytes]:
    index = sealed_json.unseal(_store()[INDEX])
    index["source"] = "pictures"  # the scratch folder has another name each time
    return [json.dumps(index, indent=1).encode(), json.dumps(index).encode()]


def _write_store(folder: Path, left_out: str) -> None:
    (folder / "store").mkdir()
    for name, content in _store().items():
        if name != left_out:
            (folder / "store" / name).write_bytes(content)


def _read_store(content: bytes, folder: Path, name: str) -> None:
    (folder / "store" / name).write_bytes(content)
    store = Store(folder / "store")
    list(store.damage())
    store.split("train", "folder", 32)


def _store_target(name: str, seeds: Any, **changes: Any) -> Target:
    return Target(
        f"store {name}",
        seeds,
        lambda content, folder: _read_store(content, folder, name),
        (DataError,),
        prepare=lambda folder: _write_store(folder, name),
        reads=("/proc/sys/kernel/random/boot_id",),  # by which processes know that they share a machine
        **changes,
    )


def _lines() -> list[bytes]:
    source = ArraySource(PIXELS, np.array([0, 1]))
    line = {"split": "train", "start": 0, "stop": 2, "count": 1, "identity": source.identity(),
            "skipped": [[1, "b", "damaged"]], "fingerprint": "0" * 64, "labels": "0" * 64}  # fmt: skip
    return [json.dumps(line).encode(), json.dumps(line | {"start": 1, "skipped": []}).encode()]


def _read_journal(content: bytes, folder: Path) -> None:
    from fastdat.data.image_layout import ImageFiles

    (folder / "partial" / JOURNAL).write_bytes(content)
    images = ImageFiles(folder / "partial", "train", (3, 32, 32), None)
    Journal(folder / "partial", "train", ArraySource(PIXELS, np.array([0, 1])), images)


# --- features and weights --------------------------------------------------------------------------------------------

_KEY: dict[str, Any] = {"format": 2, "count": 5, "extractor": "x"}


@cache
def _features() -> dict[str, bytes]:
    features, statistics = io.BytesIO(), io.BytesIO()
    np.save(features, np.ones((5, 3), np.float32))
    np.savez(statistics, mu=np.ones(3, np.float32), sigma=np.eye(3))
    return {"features.npy": features.getvalue(), "statistics.npz": statistics.getvalue()}


def _read_features(content: bytes, folder: Path, name: str) -> None:
    entry = folder / "entry"
    entry.mkdir(exist_ok=True)
    files = {**_features(), name: content}
    digests = {file: hashlib.sha256(files[file]).hexdigest() for file in _features()}
    files.setdefault("key.json", wrapping.sealed_json(json.dumps({"key": _KEY, "files": digests}).encode()))
    for file, held in files.items():
        (entry / file).write_bytes(held)
    reals._read(entry, _KEY)


class _Linear(nn.Module):
    """The smallest extractor, read like the built-in ones."""

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        if weights is not None:
            self.load_state_dict(extractors._tensors(weights))


def linear_extractor(weights: str | None) -> Extractor:
    """The smallest extractor, found by its import path: a registered one would stay for the tests that follow."""
    return Extractor("linear", _Linear(weights), "none")


@cache
def _weights() -> list[bytes]:
    state = _Linear(None).state_dict()
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    return [wrapping.torch_archive(state), legacy.getvalue()]


@cache
def _with_pickle() -> Callable[[bytes], bytes]:
    return wrapping.with_pickle(_weights()[0])


def _read_weights(content: bytes, folder: Path) -> None:
    (folder / "weights.pt").write_bytes(content)
    extractors.make_extractor(f"{__name__}:linear_extractor", str(folder / "weights.pt"), torch.device("cpu"))


TARGETS = (
    _store_target(INDEX, _store_without_digest, inputs=30_000, tokens=JSON_TOKENS, wrap=wrapping.sealed_json),
    _store_target("train.images.npy", lambda: [_store()["train.images.npy"]], inputs=10_000),
    _store_target("train.labels.npy", lambda: [_store()["train.labels.npy"]], inputs=10_000),
    Target(
        "journal of a partial store",
        _lines,
        _read_journal,
        (DataError,),
        20_000,
        JSON_TOKENS,
        lambda content: wrapping.sealed_json(content) + b"\n",
        prepare=lambda folder: (folder / "partial").mkdir(),
    ),
    *(
        Target(
            f"features of reals: {name}",
            lambda name=name: [_features()[name]],
            lambda content, folder, name=name: _read_features(content, folder, name),
            (),
            20_000,
            (b"'descr': '|O'", b"'<f8'", b"(1099511627776,)", b"True", b"PK\x05\x06", b"\x93NUMPY\x02\x00"),
        )
        for name in ("features.npy", "statistics.npz")
    ),
    Target(
        "features of reals: key.json",
        lambda: [json.dumps({"key": _KEY, "files": {}}).encode()],
        lambda content, folder: _read_features(content, folder, "key.json"),
        (),
        20_000,
        JSON_TOKENS,
        wrapping.sealed_json,
    ),
    Target("weights of an extractor", _weights, _read_weights, (ConfigError,), 20_000, PICKLE_TOKENS),
    Target(
        "weights behind their checksums",
        lambda: [wrapping.pickle_in(_weights()[0])],
        _read_weights,
        (ConfigError,),
        30_000,
        PICKLE_TOKENS,
        lambda content: _with_pickle()(content),
    ),
)
