"""The readers of data sets: publishers' files, archives, images."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from PIL import Image

from fastdat.data import archive, cifar10, cifar100, lsun, mnist, stl10, tiny_imagenet
from fastdat.data.image_files import UnreadableImage, decode
from fastdat.util.errors import DataError
from tests.fuzz import attacks, wrapping
from tests.fuzz.target import Target

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)


# --- pickles ---------------------------------------------------------------------------------------------------------


def _batches() -> list[bytes]:
    """A batch of two images in each protocol, and as Python 2 wrote it; and the names of ten classes."""
    batch = {"data": PIXELS.reshape(2, -1)[:, :], "labels": [3, 9], "filenames": ["a.png", "b.png"]}
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
    return [pickle.dumps({"data": PIXELS.reshape(2, -1), "fine_labels": [99, 0]}, p) for p in (0, 2, 4)]


# --- bins and tables -------------------------------------------------------------------------------------------------

_IDX_LABELS = struct.pack(">2I", 0x801, 3) + b"\x00\x05\x09"
_IDX_IMAGES = struct.pack(">4I", 0x803, 3, 28, 28) + PIXELS.tobytes()[: 3 * 784]
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
def images() -> Sequence[bytes]:
    """A small image in each format and mode that is read."""
    pictures = [Image.fromarray(PIXELS[0].transpose(1, 2, 0)), Image.fromarray(PIXELS[1, 0])]
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


IMAGE_TOKENS = (
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
            for i, image in enumerate(images()[:12]):
                transaction.put(b"%040x" % i, image)
        return Path(folder, "data.mdb").read_bytes()


_PAGE, _BEGINNING = 4096, 160  # bytes: of a page, and of its header with the places of its entries


def _beginnings() -> list[bytes]:
    """The beginnings of all pages, which liblmdb would follow anywhere."""
    whole = _database()
    return [b"".join(whole[at : at + _BEGINNING] for at in range(0, len(whole), _PAGE))]


def _with_beginnings(content: bytes) -> bytes:
    whole = bytearray(_database())
    for i, at in enumerate(range(0, len(whole), _PAGE)):
        part = content[i * _BEGINNING : (i + 1) * _BEGINNING]
        whole[at : at + len(part)] = part
    return bytes(whole)


def _read_database(content: bytes, folder: Path) -> None:
    (folder / "data.mdb").write_bytes(content)
    try:
        source = lsun.open_lsun_bedroom(folder, "train", 2)
        for i in range(len(source)):
            with suppress(UnreadableImage):
                source.read(i)
    finally:
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


JSON_TOKENS = (
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
        images,
        _read_image,
        (UnreadableImage,),
        100_000,
        IMAGE_TOKENS,
        megabytes=1500,
    ),
    Target("lsun lmdb", _beginnings, _read_database, (DataError,), 20_000, wrap=_with_beginnings),
    Target(
        "png behind its checksums",
        lambda: [image for image in images() if image.startswith(b"\x89PNG")],
        _read_image,
        (UnreadableImage,),
        60_000,
        IMAGE_TOKENS,
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
)
