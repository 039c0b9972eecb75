"""The readers of data sets: publishers' files, archives, images, packed stores, features of reals, weights."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastdat.data import archive, cifar10, cifar100, lsun, mnist, stl10, tiny_imagenet
from fastdat.data.image_files import UnreadableImage, decode
from fastdat.data.packing.journal import JOURNAL, Journal
from fastdat.data.source import ArraySource
from fastdat.data.store import INDEX, Store
from fastdat.metrics import extractors, reals
from fastdat.metrics.extractors import Extractor
from fastdat.util import sealed_json
from fastdat.util.errors import ConfigError, DataError
from tests.fuzz import attacks, wrapping
from tests.fuzz.target import Target

_PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)


# --- pickles ---------------------------------------------------------------------------------------------------------


def _batches() -> list[bytes]:
    """A batch of two images in each protocol, and as Python 2 wrote it; and the names of ten classes."""
    batch = {"data": _PIXELS.reshape(2, -1)[:, :], "labels": [3, 9], "filenames": ["a.png", "b.png"]}
    meta = {"label_names": [f"class {i}" for i in range(10)], "num_vis": 3072}
    found = [pickle.dumps(batch, protocol) for protocol in range(5)]
    return found + [pickle.dumps(meta, protocol) for protocol in (0, 2, 4)]


def _read_batch(content: bytes, folder: Path) -> None:
    """As a batch of images and as the names of the classes: one of the two must be refused."""
    path = folder / "batch"
    path.write_bytes(content)
    layout = cifar10._LAYOUT
    try:
        cifar10.read_batch(path, layout, 2)
    except DataError:
        cifar10.read_classes(path, layout)


def _read_fine_batch(content: bytes, folder: Path) -> None:
    path = folder / "batch"
    path.write_bytes(content)
    cifar10.read_batch(path, cifar100._LAYOUT, 2)


def _fine_batches() -> list[bytes]:
    return [pickle.dumps({"data": _PIXELS.reshape(2, -1), "fine_labels": [99, 0]}, p) for p in (0, 2, 4)]


# --- bins and tables -------------------------------------------------------------------------------------------------

_IDX_LABELS = struct.pack(">2I", 0x801, 3) + b"\x00\x05\x09"
_IDX_IMAGES = struct.pack(">4I", 0x803, 3, 28, 28) + _PIXELS.tobytes()[: 3 * 784]
_IDX_IMAGES = _IDX_IMAGES.ljust(16 + 3 * 784, b"\x07")


def _read_idx(content: bytes, folder: Path, name: str) -> None:
    (folder / name).write_bytes(content)
    mnist.open_mnist(folder, "train")


def _idx(name: str, **changes: Any) -> Target:
    images = "images" in name
    others = {"train-images-idx3-ubyte": _IDX_IMAGES, "train-labels-idx1-ubyte": _IDX_LABELS}

    def prepare(folder: Path) -> None:
        for other, content in others.items():
            if other.split("-")[1] not in name:
                (folder / other).write_bytes(content)

    return Target(
        f"mnist {'images' if images else 'labels'}{' gzipped' if name.endswith('.gz') else ''}",
        lambda: [_IDX_IMAGES if images else _IDX_LABELS],
        lambda content, folder: _read_idx(content, folder, name),
        (DataError,),
        prepare=prepare,
        **changes,
    )


def _read_bin(content: bytes, folder: Path) -> None:
    (folder / "unlabeled_X.bin").write_bytes(content)
    source = stl10.open_stl10(folder, "train", 2)
    source.read(1)


def _tiny_imagenet(folder: Path) -> None:
    for name in (
        "train/n01/images/a.JPEG",
        "train/n02/images/b.JPEG",
        "val/images/c.JPEG",
        "val/images/d.JPEG",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "secret.JPEG").write_bytes(b"")


def _read_annotations(content: bytes, folder: Path) -> None:
    (folder / "val" / "val_annotations.txt").write_bytes(content)
    source = tiny_imagenet.open_tiny_imagenet(folder, "test")
    inside = {f"val/images/{name}" for name in ("c.JPEG", "d.JPEG")}
    assert set(source.paths) <= inside, source.paths


# --- images ----------------------------------------------------------------------------------------------------------


@cache
def _images() -> Sequence[bytes]:
    """A small image in each format and mode that is read."""
    pictures = [Image.fromarray(_PIXELS[0].transpose(1, 2, 0)), Image.fromarray(_PIXELS[1, 0])]
    found = []
    for picture in (*pictures, pictures[0].convert("P"), pictures[0].convert("RGBA")):
        for form in ("png", "jpeg", "webp", "bmp", "gif", "tiff", "ppm"):
            if form in ("jpeg", "ppm") and picture.mode in ("P", "RGBA"):
                continue
            out = io.BytesIO()
            picture.save(out, form, **({"compression": "tiff_lzw"} if form == "tiff" else {}))
            found.append(out.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    pictures[0].save(out, "jpeg", exif=exif, progressive=True)
    return [*found, out.getvalue()]


_IMAGE_TOKENS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%true)(w)file\n", b"IHDR", b"PLTE", b"tRNS", b"zTXt",
    b"iTXt", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"\xff\xd8\xff\xe1", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"II*\x00",
    b"MM\x00*", b"RIFF", b"WEBPVP8X", b"ANIM", b"ALPH", b"GIF89a", b"P6 99999 99999 255\n", b"BM",
)  # fmt: skip


def _read_image(content: bytes, folder: Path) -> None:
    image = decode(io.BytesIO(content))
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3


@cache
def _database() -> bytes:
    """The lmdb file of a dozen images."""
    import tempfile

    import lmdb

    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=1 << 20) as database, database.begin(write=True) as transaction:
            for i, image in enumerate(_images()[:12]):
                transaction.put(b"%040x" % i, image)
        return Path(folder, "data.mdb").read_bytes()


def _read_database(content: bytes, folder: Path) -> None:
    (folder / "data.mdb").write_bytes(content)
    try:
        source = lsun.open_lsun_bedroom(folder, "train", 2)
        for i in range(len(source)):
            with suppress(UnreadableImage):
                source.read(i)
    finally:
        with suppress(Exception):  # it is not open, for one
            lsun._open(folder.resolve(), os.getpid()).close()
        lsun._open.cache_clear()


# --- archives --------------------------------------------------------------------------------------------------------


def _tars() -> list[bytes]:
    link = tarfile.TarInfo("a/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
    members = {"a/meta": b"meta", "a/b/data": bytes(range(100)), "x" * 120: b"long name"}
    return [wrapping.tar_of(members), wrapping.tar_of({"a/meta": b"1"}, link)]


def _read_archive(content: bytes, folder: Path) -> None:
    packed, unpacked = folder / "archive", folder / "unpacked"
    packed.write_bytes(content)
    try:
        archive.unpack(packed, unpacked)
    except OSError as error:  # a name too long, a file in the way of a folder: the download says so
        raise archive.ArchiveError(str(error)) from error
    finally:
        assert sorted(entry.name for entry in folder.iterdir()) in (["archive"], ["archive", "unpacked"])
        for entry in unpacked.rglob("*") if unpacked.exists() else ():
            assert not entry.is_symlink(), entry


def _remove_unpacked(folder: Path) -> None:
    rmtree(folder / "unpacked", ignore_errors=True)


_ARCHIVE_TOKENS = (b"../", b"/etc/", b"a/link", b"..\\", b"ustar\x0000", b"ustar  \x00", b"1", b"2", b"5", b"x", b"g",
                   b"L", b"S", b"\x80" + b"\x00" * 10 + b"\xff", b"\xff" * 12, b"30 path=../../outside\n",
                   b"20 size=99999999\n", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"7777777777")  # fmt: skip


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
            Image.fromarray(_PIXELS[0].transpose(1, 2, 0)).save(path)
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
    source = ArraySource(_PIXELS, np.array([0, 1]))
    line = {"split": "train", "start": 0, "stop": 2, "count": 1, "identity": source.identity(),
            "skipped": [[1, "b", "damaged"]], "fingerprint": "0" * 64, "labels": "0" * 64}  # fmt: skip
    return [json.dumps(line).encode(), json.dumps(line | {"start": 1, "skipped": []}).encode()]


def _read_journal(content: bytes, folder: Path) -> None:
    from fastdat.data.image_layout import ImageFiles

    (folder / "partial" / JOURNAL).write_bytes(content)
    images = ImageFiles(folder / "partial", "train", (3, 32, 32), None)
    Journal(folder / "partial", "train", ArraySource(_PIXELS, np.array([0, 1])), images)


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
            extractors._refuse_other_content(weights)
            self.load_state_dict(torch.load(weights, weights_only=True))


extractors.FACTORIES["fuzz"] = lambda weights: Extractor("fuzz", _Linear(weights), "none")


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
    extractors.make_extractor("fuzz", str(folder / "weights.pt"), torch.device("cpu"))


_JSON_TOKENS = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b'"train"',
    b"NaN",
    b"[",
    b'{"a":',
    b'"',
    b"\\ud800",
)
PICKLE_TOKENS = (
    *attacks.PICKLES.values(),
    b"R", b"b", b"s", b"u", b"a", b"e", b"(", b"0", b"2", b"t", b"\x85", b"\x86", b"\x94", b"h\x00", b"q\x00",
    b"]", b"}",
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n)R",
)  # fmt: skip

TARGETS = (
    Target("cifar10 pickles", _batches, _read_batch, (DataError,), 180_000, PICKLE_TOKENS),
    Target("cifar100 pickles", _fine_batches, _read_fine_batch, (DataError,), 60_000, PICKLE_TOKENS),
    _idx("train-images-idx3-ubyte", inputs=50_000),
    _idx("train-labels-idx1-ubyte", inputs=50_000),
    _idx("train-images-idx3-ubyte.gz", inputs=40_000, wrap=wrapping.gzipped),
    Target("stl10 bin", lambda: [bytes(2 * 3 * 96 * 96)], _read_bin, (DataError,), 10_000),
    Target(
        "tiny-imagenet annotations",
        lambda: [b"c.JPEG\tn01\t0\t0\t63\t63\nd.JPEG\tn02\t0\t0\t63\t63\n"],
        _read_annotations,
        (DataError,),
        50_000,
        (b"../../secret.JPEG", b"/etc/passwd", b"\x00", b"\t", b"\n", b"n01", b"\x85", b"c.JPEG"),
        prepare=_tiny_imagenet,
    ),
    Target(
        "images, lsun values",
        _images,
        _read_image,
        (UnreadableImage,),
        100_000,
        _IMAGE_TOKENS,
        megabytes=1500,
    ),
    Target("lsun lmdb", lambda: [_database()], _read_database, (DataError,), 10_000),
    Target(
        "png behind its checksums",
        lambda: [image for image in _images() if image.startswith(b"\x89PNG")],
        _read_image,
        (UnreadableImage,),
        60_000,
        _IMAGE_TOKENS,
        wrap=wrapping.png,
        megabytes=1500,
    ),
    Target(
        "tar",
        _tars,
        _read_archive,
        (archive.ArchiveError,),
        25_000,
        _ARCHIVE_TOKENS,
        wrapping.tar,
        tidy=_remove_unpacked,
    ),
    Target(
        "tar.gz",
        _tars,
        _read_archive,
        (archive.ArchiveError,),
        15_000,
        _ARCHIVE_TOKENS,
        lambda content: wrapping.gzipped(wrapping.tar(content)),
        tidy=_remove_unpacked,
    ),
    Target(
        "zip",
        lambda: [wrapping.zip_of({"a/meta": b"meta", "a/b/data": bytes(range(100)), "a/empty/": b""})],
        _read_archive,
        (archive.ArchiveError,),
        25_000,
        _ARCHIVE_TOKENS,
        tidy=_remove_unpacked,
    ),
    _store_target(
        INDEX, _store_without_digest, inputs=30_000, tokens=_JSON_TOKENS, wrap=wrapping.sealed_json
    ),
    _store_target("train.images.npy", lambda: [_store()["train.images.npy"]], inputs=10_000),
    _store_target("train.labels.npy", lambda: [_store()["train.labels.npy"]], inputs=10_000),
    Target(
        "journal of a partial store",
        _lines,
        _read_journal,
        (DataError,),
        20_000,
        _JSON_TOKENS,
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
        _JSON_TOKENS,
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
