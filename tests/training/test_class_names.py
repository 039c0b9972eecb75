"""Conditional runs on folders: the classes are found in the images, recorded, and the same ever after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from fastdat.data import DataError, ImageSet
from fastdat.data.packing import pack
from fastdat.training import (
    ConfigError,
    RunFolderError,
    TrainConfig,
    Trainer,
    build_nets,
    checkpoint,
    load_data,
    preset,
)
from fastdat.training.class_names import changed_classes, with_classes
from fastdat.training.trained import load_trained
from tests.training.run_fixtures import cheap_extractor
from tests.training.runs import SCORED, assert_same, latest, results, tiny, train_until, trainer_of

__all__ = ["cheap_extractor"]

NAMES = ("airplane", "cat", "ship")
#: A run on pictures of 32 pixels, scored at its end against the train split.
CHANGES = SCORED | {"resolution": 32, "steps": 3, "eval.every": 3, "eval.splits": ["train"], "logger": "none"}


@pytest.fixture
def pictures(few_images: ImageSet, tmp_path: Path) -> Path:
    """A folder with three pictures of each of three classes, as a camera's files would lie in it."""
    root = tmp_path / "pictures"
    for name in NAMES:
        rows = [i for i, label in enumerate(few_images.labels) if few_images.classes[label] == name][:3]
        (root / name).mkdir(parents=True)
        for number, row in enumerate(rows):
            Image.fromarray(few_images.images[row].permute(1, 2, 0).numpy()).save(
                root / name / f"{number}.png"
            )
    return root


def config_of(data: Path, name: str = "csngan-dat-folder", **changes: Any) -> TrainConfig:
    return preset(name).replace(CHANGES | {"data": str(data)} | changes)


def trainer(data: Path, run: Path, **changes: Any) -> Trainer:
    config = config_of(data, **changes)
    return trainer_of(config, load_data(config), run)


def read_config(run: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return settings


def test_a_run_on_subfolders(pictures: Path, tmp_path: Path) -> None:
    """Trained, scored while it trains, then scored and sampled from its folder alone."""
    run = tmp_path / "run"
    made = trainer(pictures, run)
    made.train()
    assert made.netD.get_parameter("embedding.parametrizations.weight.original").shape[0] == 3
    assert (read_config(run)["classes"], latest(run)["class_names"]) == (3, list(NAMES))
    trained = load_trained(run, device="cpu")
    assert (trained.classes, trained.class_names) == (3, NAMES)
    cats, ships = (torch.cat(list(trained.samples(2, label=label))) for label in (1, 2))
    assert not torch.equal(cats, ships)
    with pytest.raises(ConfigError, match="takes labels from 0 to 2; got 3"):
        trained.samples(2, label=3)
    records = trained.evaluate()
    assert records is not None
    assert [record["real_count"] for record in records] == [9]


def test_labels_reach_the_nets(pictures: Path, tmp_path: Path) -> None:
    """Each real comes with the number of its own subfolder."""
    batches: Any = trainer(pictures, tmp_path / "run").iteration.batches
    data = load_data(config_of(pictures))
    assert data is not None
    known = {
        image.numpy().tobytes(): int(label) for image, label in zip(data.images, data.labels, strict=True)
    }
    assert sorted(known.values()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    reals = (batches.batch(0) * 127.5 + 127.5).round().to(torch.uint8)
    assert [known[image.numpy().tobytes()] for image in reals] == batches.labels(0).tolist()


def test_resuming_is_exact_from_a_store_too(pictures: Path, tmp_path: Path) -> None:
    """A run that was begun on the folder and went on from its packed store equals an uninterrupted one."""
    changes = {"steps": 4, "checkpoints.every": 2, "eval.every": None}
    trainer(pictures, tmp_path / "whole", **changes).train()
    first = trainer(pictures, tmp_path / "parts", **changes)
    train_until(first, 3)
    pack("folder", pictures, tmp_path / "store", resolution=32, splits=("train",), workers=0)
    second = trainer(tmp_path / "store", tmp_path / "parts", **changes)
    assert second.done == 2
    second.train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))
    assert latest(tmp_path / "parts")["class_names"] == list(NAMES)


def test_other_classes_are_refused(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer(pictures, run).train()
    (pictures / "cat").rename(pictures / "kitten")
    with pytest.raises(
        ConfigError, match=r"other classes: 3 classes then, 3 now; new: kitten; gone: cat\. Give the"
    ):
        trainer(pictures, run)
    with pytest.raises(ConfigError, match=r"other classes than the run: .*new: kitten; gone: cat"):
        load_trained(run, device="cpu").evaluate()
    (pictures / "kitten" / "0.png").rename(pictures / "ship" / "9.png")
    (pictures / "kitten").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="3 classes then, 2 now; gone: cat"):
        trainer(pictures, run)
    assert changed_classes(["a", "b"], ["b", "a"]) == "2 classes then, 2 now; in another order"
    assert changed_classes([], NAMES) == "", "an earlier version's checkpoint has no names"


def test_folders_without_classes_are_refused(pictures: Path, tmp_path: Path) -> None:
    def refused(message: str, data: Path, kind: type[Exception] = DataError, **changes: Any) -> None:
        with pytest.raises(kind, match=message):
            trainer(data, tmp_path / "run", **changes)
        assert not (tmp_path / "run").exists()

    refused(
        r"got classes=5, but folder train has 3: airplane, cat, ship. Set classes=null",
        pictures,
        ConfigError,
        classes=5,
    )
    refused(r"cat has no classes: \S+cat/0.png lies in no subfolder", pictures / "cat")
    (tmp_path / "one").mkdir()
    pictures.rename(tmp_path / "one" / "pictures")
    pictures = tmp_path / "one" / "pictures"
    refused("one has a single class, pictures, and training with labels needs two or more", tmp_path / "one")
    (pictures / "cat" / "0.png").rename(pictures / "0.png")
    refused(r"has no classes: \S+pictures/0.png lies in no subfolder.* no image beside them", pictures)
    pack("folder", pictures, tmp_path / "store", resolution=32, splits=("train",), workers=0)
    refused(
        r"store was packed without classes[\s\S]*data pack folder \S+pictures \S+store-classes --resolution 32",
        tmp_path / "store",
    )
    config = config_of(pictures, "sngan-dat-folder")
    assert load_data(config) is not None, "training without labels needs no classes"


def test_a_class_without_images_is_refused(pictures: Path, tmp_path: Path) -> None:
    """Packing has left out its only image, which could not be read."""
    (pictures / "dog").mkdir()
    (pictures / "dog" / "0.png").write_bytes(b"\x89PNG rubbish")
    for number in range(12):  # so that one in ten is not left out
        Image.new("RGB", (32, 32), (number, 0, 9)).save(pictures / "cat" / f"more{number}.png")
    pack("folder", pictures, tmp_path / "store", resolution=32, splits=("train",), workers=0)
    with pytest.raises(ConfigError, match="folder train has no image of the class dog"):
        trainer(tmp_path / "store", tmp_path / "run")


def test_numbers_of_classes_that_do_not_fit_are_refused(few_images: ImageSet) -> None:
    with pytest.raises(ConfigError, match="got classes=7, but cifar10 has 10: leave classes out"):
        build_nets(tiny("csngan-dat-cifar10", classes=7))
    with pytest.raises(ConfigError, match=r"model sngan takes no labels\. Leave it out, or use csngan"):
        build_nets(tiny(classes=10))
    with pytest.raises(ConfigError, match="which only the images of a folder tell: set classes"):
        build_nets(tiny("csngan-dat-folder"))
    with pytest.raises(ConfigError, match="classes would have no effect"):
        TrainConfig(classes=3).refuse_unused()
    bare = ImageSet("folder train", few_images.images, few_images.labels, ())
    with pytest.raises(ConfigError, match="folder train has no classes; expected two or more"):
        with_classes(tiny("csngan-dat-folder"), bare)


def test_published_sets_have_names_and_record_no_number(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny("csngan-dat-cifar10"), few_images, tmp_path / "run").train()
    assert read_config(tmp_path / "run")["classes"] is None
    assert load_trained(tmp_path / "run", device="cpu").class_names[:2] == ("airplane", "automobile")
    trainer_of(tiny(), few_images, tmp_path / "plain").train()
    assert load_trained(tmp_path / "plain", device="cpu").class_names == ()


def test_names_in_a_checkpoint_are_checked(pictures: Path, tmp_path: Path) -> None:
    trainer(pictures, tmp_path / "run", **{"eval.every": None}).train()
    path = tmp_path / "run" / "checkpoints" / "latest.pt"
    state = checkpoint.load(path)
    checkpoint.save(path, {**state, "class_names": [1, 2]})
    with pytest.raises(RunFolderError, match="its entry 'class_names' is a list, expected a list of texts"):
        checkpoint.load(path)
