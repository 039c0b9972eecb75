"""Every GAN on every data set it is trained on: two steps with DAT at tiny width, on real images in that set's size."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdat.data import DATASETS, ImageSet, load_split
from fastdat.data.mixture import MIXTURES
from fastdat.data.resize import resized
from fastdat.training import PRESETS, build_trainer, preset
from fastdat.training.display import Lines

PAIRS = [name for name, config in PRESETS.items() if config.dat.attacks]
COUNT = 12
TINY = {
    "ngf": 16,
    "ndf": 64,  # 4 channels in the first block at 48 and 64: a single one may be zero everywhere
    "batch_size": 4,
    "n_dis": 1,
    "steps": 2,
    "log_every": 1,
    "samples": 4,
    "compile": False,
    "device": "cpu",
    "tensorboard": False,
    "eval.every": None,
}


@pytest.fixture(scope="module")
def photographs(tiny_root: Path) -> ImageSet:
    """A few of Tiny-ImageNet's, 64 pixels: what is resized to the other sets' sizes as their own images are."""
    whole = load_split("tiny-imagenet", tiny_root, "test")
    return ImageSet("photographs", whole.images[:COUNT], whole.labels[:COUNT], whole.classes)


def images_of(dataset: str, resolution: int, photographs: ImageSet) -> ImageSet:
    """Photographs in the size, channels and classes of a data set."""
    spec = DATASETS[dataset]
    pixels = photographs.images.permute(0, 2, 3, 1).numpy()
    if spec.channels == 1:
        pixels = pixels.mean(-1, keepdims=True).astype(np.uint8)
    images = np.stack([resized(image, resolution).transpose(2, 0, 1) for image in pixels])
    labels = torch.arange(COUNT) % max(spec.classes, 1)
    return ImageSet(
        f"{dataset} train", torch.from_numpy(images), labels, tuple(map(str, range(spec.classes)))
    )


@pytest.mark.parametrize("name", PAIRS)
def test_two_steps(name: str, photographs: ImageSet, tmp_path: Path) -> None:
    config = preset(name).replace(TINY)
    data = None if config.dataset in MIXTURES else images_of(config.dataset, config.resolution, photographs)
    trainer = build_trainer(config, data, tmp_path / "run", display=Lines(io.StringIO()))
    before = [p.detach().clone() for p in (*trainer.netG.parameters(), *trainer.netD.parameters())]
    trainer.train()
    after = [*trainer.netG.parameters(), *trainer.netD.parameters()]
    assert sum(torch.equal(a, b) for a, b in zip(after, before, strict=True)) <= 0.1 * len(before)
    stats = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in stats] == [1, 2]
    assert all(math.isfinite(value) for line in stats for value in line.values())
    assert all(line["delta_rms_real"] > 0 and line["delta_rms_fake"] > 0 for line in stats)
    with Image.open(tmp_path / "run" / "samples" / "step-000002.png") as grid:
        side = 2 * config.resolution + 3 * 2
        assert grid.size == ((400, 400) if data is None else (side, side))
        assert grid.mode == ("RGBA" if data is None else "L" if config.dataset == "mnist" else "RGB")


def test_every_net_meets_every_data_set() -> None:
    """The paper's four families on its five sets (Tables I and II), and more."""
    sets = ("cifar10", "cifar100", "stl10", "tiny-imagenet", "lsun-bedroom")
    pairs = {(config.model, config.dataset) for config in PRESETS.values()}
    assert {(model, data) for model in ("sngan", "ssgan", "infomaxgan", "dcgan") for data in sets} <= pairs
    assert len(PAIRS) == len(PRESETS) / 2
