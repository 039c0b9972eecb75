"""Every publisher's layout: real images where they are at hand, else small files written as the publisher does."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fastdat.data import DATASETS, DataError, ImageSet, load_split
from fastdat.data import stl10 as stl10_module
from fastdat.data.lsun import open_lsun_bedroom
from fastdat.data.packing import there
from fastdat.data.registry import dataset_spec, resolution_of
from fastdat.data.source import RESIZE, UnreadableImage, decode, resized
from fastdat.data.stl10 import open_stl10


def refused(
    dataset: str, root: Path, message: str, split: str = "train", resolution: int | None = None
) -> None:
    with pytest.raises(DataError, match=message):
        load_split(dataset, root, split, resolution)


# --- real images -------------------------------------------------------------------------------------------------


def test_cifar10(cifar10_root: Path, cifar10: ImageSet) -> None:
    found = load_split("cifar10", cifar10_root, "test")
    assert (len(found), found.images.shape[1:], found.name) == (10_000, (3, 32, 32), "cifar10 test")
    assert load_split("cifar10", cifar10_root).fingerprint == cifar10.fingerprint != found.fingerprint


def test_cifar10_at_another_size(cifar10: ImageSet, cifar10_root: Path) -> None:
    small = load_split("cifar10", cifar10_root, "test", 16)
    original = load_split("cifar10", cifar10_root, "test")
    picture = Image.fromarray(original.images[7].permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))
    assert (small.images[7].permute(1, 2, 0).numpy() == expected).all()


def test_tiny_imagenet(tiny_root: Path) -> None:
    found = load_split("tiny-imagenet", tiny_root, "test")
    assert found.images.shape == (4000, 3, 64, 64)
    assert (len(found.classes), int(found.labels.min()), int(found.labels.max())) == (200, 0, 199)
    folder = tiny_root / "tiny-imagenet-200"
    name, wnid, *_ = (folder / "val" / "val_annotations.txt").read_text().splitlines()[5].split("\t")
    with Image.open(folder / "val" / "images" / name) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(found.images[5], expected)
    assert found.classes[found.labels[5]] == wnid


# --- layouts written here ----------------------------------------------------------------------------------------


@pytest.fixture
def pixels(cifar10: ImageSet) -> NDArray[np.uint8]:
    """20 real images (20, 3, 32, 32)."""
    images: NDArray[np.uint8] = cifar10.images[:20].numpy()
    return images


def cifar100_at(folder: Path, **changes: Any) -> Path:
    """A CIFAR-100 of the published size whose images are noise, written by the protocol the publisher used."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 50_000), ("test", 10_000)):
        labels = rng.integers(0, 100, count).tolist()
        batch = {
            "data": rng.integers(0, 256, (count, 3072), np.uint8),
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
        }
        (folder / split).write_bytes(pickle.dumps(batch | changes, protocol=2))
    names = {"fine_label_names": [f"class{i}" for i in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return folder.parent


def test_cifar100(tmp_path: Path) -> None:
    root = cifar100_at(tmp_path / "cifar-100-python")
    found = load_split("cifar100", root, "test")
    raw = pickle.loads((root / "cifar-100-python" / "test").read_bytes())
    assert (found.images[3].flatten().numpy() == raw["data"][3]).all()
    assert found.labels.tolist() == raw["fine_labels"], "the fine ones"
    assert found.classes[:2] == ("class0", "class1")
    (root / "cifar-100-python" / "test").unlink()
    refused("cifar100", root, r"test is missing.*fastdat data download cifar100", "test")
    refused("cifar100", tmp_path / "x", "fastdat data download cifar100")


def test_cifar100_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
            return open, (str(tmp_path / "was-here"),)

    root = cifar100_at(tmp_path / "cifar-100-python")
    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps(Evil()))
    refused("cifar100", root, "Nothing in it was executed")


def test_stl10(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    big = np.stack([resized(image.transpose(1, 2, 0), 96).transpose(2, 0, 1) for image in pixels])
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    # Column-major, as the publisher's page says: each channel column by column.
    (folder / "unlabeled_X.bin").write_bytes(big.transpose(0, 1, 3, 2).tobytes())
    source = open_stl10(tmp_path, "train", count=20)
    image, label = source.read(4)
    assert (image.transpose(2, 0, 1) == big[4]).all()
    assert label == 0
    refused("stl10", tmp_path, r"has 552,960 bytes; expected 2,764,800,000 \(100,000 images\)")
    refused("stl10", tmp_path, "holds no stl10_binary/test_X.bin", "test")


def test_stl10_through_the_front_door(
    pixels: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stl10_module, "_COUNTS", {"train": 20})
    big = np.stack([resized(image.transpose(1, 2, 0), 96).transpose(2, 0, 1) for image in pixels])
    (tmp_path / "unlabeled_X.bin").write_bytes(big.transpose(0, 1, 3, 2).tobytes())
    found = load_split("stl10", tmp_path)
    assert found.images.shape == (20, 3, 48, 48)
    expected = resized(np.ascontiguousarray(big[2].transpose(1, 2, 0)), 48)
    assert (found.images[2].permute(1, 2, 0).numpy() == expected).all()


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
def test_mnist(folder: str, packed: bool, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    grey = np.ascontiguousarray(pixels[:, 1, 2:30, 2:30])
    here = tmp_path / folder
    here.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", grey), ("labels-idx1", np.arange(20, dtype=np.uint8) % 10)):
        content = idx(array)
        (here / f"train-{name}-ubyte{'.gz' * packed}").write_bytes(
            gzip.compress(content) if packed else content
        )
    found = load_split("mnist", tmp_path)
    assert (found.images[:, 0].numpy() == grey).all()
    assert found.labels.tolist() == [i % 10 for i in range(20)]
    padded = load_split("mnist", tmp_path, resolution=32).images
    assert torch.equal(padded[:, :, 2:30, 2:30], found.images)
    assert padded.sum() == found.images.sum(), "black around it"
    refused("mnist", tmp_path, "MNIST can be had at 28 or 32; got resolution=64", resolution=64)
    refused("mnist", tmp_path, "holds no t10k-images-idx3-ubyte", "test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], "It is truncated"),
        (lambda raw: b"\0\0\x0d\3" + raw[4:], "no idx file of 3"),
        (lambda raw: b"", "it begins with nothing"),
        (lambda raw: gzip.compress(raw)[:40], "no idx file"),
    ],
    ids=["truncated", "floats", "empty", "gzip"],
)
def test_damaged_mnist(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    raw = idx(np.zeros((4, 28, 28), np.uint8))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(damage(raw))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    refused("mnist", tmp_path, message)


def lmdb_at(folder: Path, images: NDArray[np.uint8]) -> Path:
    """A database of WebP images under hexadecimal keys, as LSUN's."""
    with lmdb.open(str(folder), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i, image in enumerate(images):
            file = BytesIO()
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "webp", lossless=True)
            transaction.put(f"{i * 7919 % 4093:040x}".encode(), file.getvalue())
    return folder


def test_lsun(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    folder = lmdb_at(tmp_path / "bedroom_train_lmdb", pixels)
    train, test = (open_lsun_bedroom(tmp_path, split, test_images=6) for split in ("train", "test"))
    assert (len(train), len(test)) == (14, 6)
    assert not set(train.keys) & set(test.keys)
    assert open_lsun_bedroom(folder, "test", test_images=6).keys == test.keys, "the same ones each time"
    part = train.part(3, 5)
    assert (len(part), part.name_of(1), part.classes) == (2, train.name_of(4), ())
    again = pickle.loads(pickle.dumps(train))
    shown = {again.read(i)[0].tobytes() for i in range(14)} | {test.read(i)[0].tobytes() for i in range(6)}
    assert shown == {np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes() for image in pixels}
    refused("lsun-bedroom", tmp_path, "has 20 images, of which 10,000 are to be the test split")
    refused("lsun-bedroom", tmp_path / "x", r"does not exist. Get bedroom_train_lmdb \(43 GB\)")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "data.mdb").write_bytes(b"rubbish")
    refused("lsun-bedroom", tmp_path / "damaged", "cannot be read as lmdb")


def test_folder(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    for i, image in enumerate(pixels[:6]):
        folder = tmp_path / ("cat" if i % 2 else "dog")
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / f"{i}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    found = load_split("folder", tmp_path, resolution=32)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (found.images[0].numpy() == pixels[1]).all()
    refused("folder", tmp_path, "which size shall the images have")
    refused("folder", tmp_path, "has no test split", "test", 32)
    (tmp_path / "cat" / "1.png").write_bytes(b"\x89PNG rubbish")
    refused("folder", tmp_path, r"cat/1.png cannot be decoded: .*fastdat data pack", resolution=32)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("folder", empty, "holds no images", resolution=32)
    refused("folder", tmp_path / "nowhere", "does not exist", resolution=32)


def test_folder_with_splits(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / split).mkdir()
        for i in range(count):
            Image.fromarray(np.ascontiguousarray(pixels[i, 0])).save(tmp_path / split / f"{i}.png")  # grey
    assert len(load_split("folder", tmp_path, "train", 16)) == 3
    test = load_split("folder", tmp_path, "test", 16)
    assert (test.images.shape, test.classes) == ((2, 3, 16, 16), ())


def tiny_at(root: Path, pixels: NDArray[np.uint8]) -> Path:
    folder = root / "tiny-imagenet-200"
    for wnid in ("n01", "n02"):
        (folder / "train" / wnid / "images").mkdir(parents=True)
    (folder / "val" / "images").mkdir(parents=True)
    for i, image in enumerate(pixels[:4]):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize((64, 64))
        picture.save(folder / "train" / f"n0{1 + i % 2}" / "images" / f"{i}.JPEG")
        picture.save(folder / "val" / "images" / f"val_{i}.JPEG")
    lines = [f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t0\t63\t63" for i in range(4)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n02", "n09", r"val_annotations.txt, line 2: expected a file name and a class of train"),
        ("val_2.JPEG", "val_9.JPEG", "line 3, names val_9.JPEG, which is not in"),
    ],
)
def test_annotations_that_do_not_fit(
    old: str, new: str, message: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    table = tiny_at(tmp_path, pixels) / "val" / "val_annotations.txt"
    assert load_split("tiny-imagenet", tmp_path, "test").labels.tolist() == [0, 1, 0, 1]
    assert load_split("tiny-imagenet", tmp_path).labels.tolist() == [0, 0, 1, 1]
    table.write_text(table.read_text().replace(old, new))
    refused("tiny-imagenet", tmp_path, message, "test")
    table.unlink()
    refused("tiny-imagenet", tmp_path, "val_annotations.txt is missing", "test")


# --- sizes and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [name for name in DATASETS if name != "folder"])
def test_a_missing_folder_says_how_to_get_it(dataset: str, tmp_path: Path) -> None:
    spec = DATASETS[dataset]
    how = "fastdat data download " + re.escape(dataset) if spec.origin else "http://dl.yf.io"
    refused(dataset, tmp_path / "nowhere", rf"nowhere does not exist[\s\S]*{how}")
    refused(dataset, tmp_path, rf"holds no [\s\S]*{how}")
    refused(dataset, tmp_path, "has the splits train and test; got 'val'", "val")


def test_the_paper_s_sizes() -> None:
    sizes = {name: spec.resolution for name, spec in DATASETS.items()}
    assert sizes == {
        "cifar10": 32, "cifar100": 32, "stl10": 48, "tiny-imagenet": 64, "lsun-bedroom": 64, "mnist": 28,
        "folder": None,
    }  # fmt: skip
    with pytest.raises(DataError, match="unknown data set 'imagenet'; there are: cifar10"):
        dataset_spec("imagenet")
    with pytest.raises(DataError, match="CIFAR-10 can be had at a positive number; got resolution=0"):
        resolution_of(DATASETS["cifar10"], 0)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_page(name: str) -> None:
    text = DATASETS[name].page.read_text()
    assert text.startswith("# ")
    assert f"fastdat data pack {name}" in text
    assert f"-{name} " in text, "a preset that trains on it"


def test_resizing_takes_the_middle() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (resized(wide, 5) == 200).all()
    assert (resized(wide.transpose(1, 0, 2), 5) == 200).all()
    assert "bilinear" in RESIZE


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff rubbish"])
def test_what_is_no_image(content: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(BytesIO(content))


def test_too_many_images_to_decode_each_time(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_at(tmp_path, pixels)
    monkeypatch.setattr("fastdat.data.load.MOST", 3)
    refused(
        "tiny-imagenet",
        tmp_path,
        r"has 4 images, too many[\s\S]*fastdat data pack tiny-imagenet .* --resolution 64",
    )


# --- what cameras, scanners and half-finished downloads leave ----------------------------------------------------


def saved(image: Image.Image, **settings: Any) -> BytesIO:
    content = BytesIO()
    image.save(content, **settings)
    content.seek(0)
    return content


def test_photographs_are_turned_the_way_up_they_were_taken() -> None:
    left_is_black = np.zeros((20, 40, 3), np.uint8)
    left_is_black[:, 20:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    found = decode(saved(Image.fromarray(left_is_black), format="png", exif=exif))
    assert found.shape == (40, 20, 3)
    assert (found[:20] == 0).all()
    assert (found[20:] == 255).all()


def test_a_damaged_tag_is_no_damaged_image() -> None:
    grey = Image.new("RGB", (8, 8), (7, 8, 9))
    found = decode(saved(grey, format="png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"))
    assert (found == np.array([7, 8, 9])).all()


def test_16_bit_grey_is_scaled() -> None:
    found = decode(saved(Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), format="png"))
    assert found.shape == (4, 4, 3)
    assert (found == 0x80).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_range_are_no_image(dtype: Any) -> None:
    with pytest.raises(UnreadableImage, match="have no known range"):
        decode(saved(Image.fromarray(np.ones((4, 4), dtype)), format="tiff"))


def test_16_bit_pgm_is_scaled() -> None:
    raw = b"P5 4 4 65535\n" + np.full((4, 4), 0x8040, ">u2").tobytes()
    assert (decode(BytesIO(raw)) == 0x80).all()


@pytest.mark.parametrize(
    ("form", "options"), [("png", {}), ("gif", {}), ("tiff", {"compression": "tiff_lzw"}), ("jpeg", {})]
)
def test_damage_in_the_middle_is_no_black_half(form: str, options: dict[str, Any]) -> None:
    """Pillow gives what it could decode, without a word, where it is asked a second time."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    good = saved(Image.fromarray(noise), format=form, **options).getvalue()
    refused_by_pillow = 0
    for start in range(len(good) // 4, len(good) * 3 // 4, len(good) // 20):
        bad = good[:start] + bytes(512) + good[start + 512 :]
        try:
            with Image.open(BytesIO(bad)) as image:
                image.load()
        except (OSError, SyntaxError):
            refused_by_pillow += 1
            with pytest.raises(UnreadableImage):
                decode(BytesIO(bad))
        else:
            decode(BytesIO(bad))
    assert refused_by_pillow or form == "jpeg"


def test_a_file_that_cannot_be_read_is_no_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png cannot be read: No such file"):
        decode(tmp_path / "gone.png")


def test_a_truncated_lmdb_is_told(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    """Read beyond its end, it would end the process without a word."""
    file = lmdb_at(tmp_path / "bedroom_train_lmdb", pixels) / "data.mdb"
    size = file.stat().st_size
    for share in (0.9, 0.5):
        os.truncate(file, int(size * share))
        with pytest.raises(
            DataError, match=r"data.mdb is truncated: it has .* bytes. Get bedroom_train_lmdb"
        ):
            open_lsun_bedroom(tmp_path, "train", test_images=6)


def picture_at(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture_at(root / "cat" / "0.png", tmp_path / "elsewhere" / "0.png", root / ".hidden" / "0.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "round").symlink_to(root)  # for ever
    found = load_split("folder", root, resolution=8)
    assert found.classes == ("cat", "dog", "fox")
    assert found.labels.tolist() == [0, 1, 2]
    (root / "cat" / "1.png").symlink_to(tmp_path / "gone.png")
    refused("folder", root, r"cat/1.png cannot be read: No such file", resolution=8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_told(tmp_path: Path) -> None:
    picture_at(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    (tmp_path / "dog").chmod(0)
    try:
        refused("folder", tmp_path, r"dog cannot be listed: Permission denied", resolution=8)
    finally:
        (tmp_path / "dog").chmod(0o755)


def test_a_folder_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_at(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    listed = os.scandir

    def failing(folder: Any) -> Any:
        if str(folder).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr("fastdat.data.source.os.scandir", failing)
    refused("folder", tmp_path, r"dog cannot be listed: Permission denied", resolution=8)


def test_a_class_called_train_is_asked_about(tmp_path: Path) -> None:
    picture_at(tmp_path / "train" / "0.png", tmp_path / "val" / "0.png")
    (tmp_path / "labels").mkdir()
    assert len(load_split("folder", tmp_path, resolution=8)) == 1
    picture_at(tmp_path / "bus" / "0.png", tmp_path / "car" / "0.png")
    refused("folder", tmp_path, r"holds images in train and in bus, car. If train is a class", resolution=8)
    picture_at(tmp_path / "test" / "0.png")
    assert len(load_split("folder", tmp_path, resolution=8)) == 1, "train and test are splits for sure"


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "stl10", "tiny-imagenet", "mnist"])
def test_a_publisher_s_folder_that_is_not_complete_is_to_be_removed(dataset: str, tmp_path: Path) -> None:
    """The download would leave it as it is."""
    origin = DATASETS[dataset].origin
    assert origin is not None
    (tmp_path / origin.folder).mkdir(parents=True)
    refused(
        dataset, tmp_path, rf"{origin.folder} is not complete: remove it, and run\n    fastdat data download"
    )


def test_classes_of_a_folder_are_those_of_train(tmp_path: Path) -> None:
    for name in ("train/cat/0.png", "train/dog/0.png", "test/dog/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    test = load_split("folder", tmp_path, "test", 8)
    assert (test.classes, test.labels.tolist()) == (("cat", "dog"), [1])
    (tmp_path / "test" / "fox").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "fox" / "0.png")
    refused("folder", tmp_path, r"test/fox/0.png lies in none of the classes of train.*cat, dog", "test", 8)


def test_a_damaged_test_split_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "0.png")
    assert there("folder", tmp_path) == ("train",)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="test holds no images"):
        there("folder", tmp_path)
    (tmp_path / "stl10_binary").mkdir()
    with (tmp_path / "stl10_binary" / "unlabeled_X.bin").open("wb") as file:
        file.truncate(100_000 * 3 * 96 * 96)
    with pytest.raises(DataError, match=r"holds no stl10_binary/test_X\.bin"):
        there("stl10", tmp_path)
