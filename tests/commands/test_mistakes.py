"""Wrong invocations of the command line: each is answered by one message that says what to do, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdat.data import ImageSet, pack
from tests.commands.command_line import invoke
from tests.training.checkpoint_states import flip
from tests.training.runs import resumable, scored, trainer_of
from tests.training.test_checkpoint import Command


@dataclass(frozen=True)
class Place:
    """What mistakes are made with.

    Args:
        path: an empty folder.
        cifar10: the publisher's files of CIFAR-10.
        run: a finished run of 4 steps, of 8 under linear decay.
        store: a packed store of 12 images of 32 pixels.
    """

    path: Path
    cifar10: Path
    run: Path
    store: Path


@pytest.fixture
def place(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> Place:
    run = tmp_path / "run"
    trainer_of(resumable(steps=4, eval=scored(cifar10_root).eval), few_images, run).train()
    source = tmp_path / "images"
    source.mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(source / f"{i}.png")
    pack("folder", source, tmp_path / "store", resolution=32, splits=("train",), workers=0)
    (tmp_path / "empty").mkdir()
    return Place(tmp_path / "empty", cifar10_root, run, tmp_path / "store")


CONFIGURATION = ["train", "--preset", "sngan-dat-cifar10"]
#: Arguments that need no files, and what the message says.
OF_SETTINGS: list[tuple[list[str], str]] = [
    (
        ["train", "--preset", "sgan-cifar10"],
        "unknown preset 'sgan-cifar10'. Did you mean ssgan-cifar10 or sngan-cifar10",
    ),
    (
        [*CONFIGURATION, "--set", "learning_rate=1"],
        "unknown setting learning_rate. There are: model, dataset",
    ),
    ([*CONFIGURATION, "--set", "batchsize=8"], "unknown setting batchsize. Did you mean batch_size"),
    ([*CONFIGURATION, "--set", "eps=0.5"], "unknown setting eps. Did you mean dat.eps?"),
    ([*CONFIGURATION, "--set", "dat.epsilon=0.5"], "unknown setting dat.epsilon. Did you mean dat.eps"),
    ([*CONFIGURATION, "--set", "checkpoint_every=5"], "Did you mean checkpoints.every"),
    (
        [*CONFIGURATION, "--set", "eval.every=0"],
        "eval.every must be an integer >= 1 or None (null in YAML and --set), where None means no scores while "
        "training; got 0",
    ),
    ([*CONFIGURATION, "--set", "lr"], "expected key=value, for example lr=1e-4"),
    ([*CONFIGURATION, "--set", "lr=-1"], "lr must be a finite number > 0; got -1"),
    ([*CONFIGURATION, "--set", "lr=fast"], "lr must be a finite number > 0; got 'fast'"),
    (
        [*CONFIGURATION, "--set", "betas=0.5"],
        "betas must be [a, b], each a finite number >= 0 and < 1; got 0.5",
    ),
    (
        [*CONFIGURATION, "--set", "dat.bounds=[1,-1]"],
        "dat.bounds must be [a, b], each a finite number, with a < b",
    ),
    (
        [*CONFIGURATION, "--set", "loss=hing"],
        "loss must be one of hinge, gan, lsgan, wgan, lsgan-sigmoid, wgan-sigmoid, rpgan; got 'hing'",
    ),
    ([*CONFIGURATION, "--set", "dat=1"], "dat must be"),
    ([*CONFIGURATION, "--set", "checkpoints.keep=-1"], "checkpoints.keep must be an integer >= 0; got -1"),
    ([*CONFIGURATION, "--seed", str(2**70)], f"seed must be an integer >= 0 and < {2**63}; got {2**70}"),
    ([*CONFIGURATION, "--seed", "-1"], f"seed must be an integer >= 0 and < {2**63}; got -1"),
    ([*CONFIGURATION, "--steps", "0"], "steps must be an integer >= 1; got 0"),
    ([*CONFIGURATION, "--steps", "many"], "a valid integer"),
    ([*CONFIGURATION, "--device", "tpu"], "device must be one of auto, cpu, cuda; got 'tpu'"),
    ([*CONFIGURATION, "--batch-size", "1"], "batch_size must be an integer >= 2; got 1"),
    ([*CONFIGURATION, "--outdir", "x"], "where is cifar10? Give --data"),
    ([*CONFIGURATION, "--data", "x"], "this option is required"),
    (["train"], "give one of them, or both; fastdat presets lists the presets"),
    (
        ["train", "--config", "no.yaml"],
        "there is no file no.yaml. Give a YAML file of settings, or a run folder",
    ),
    (["train", "--config", "pyproject.toml", "--dry-run"], "pyproject.toml is not YAML"),
    (["trian"], "No such command 'trian'"),
    (["data", "download", "cifar", "x"], "no download is known for 'cifar'; there are: cifar10"),
    (["data", "info", "cifar"], "cifar10"),
    (["reproduce", "fig3", "--full", "--iterations", "5"], "leave --iterations out"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), OF_SETTINGS, ids=[" ".join(arguments)[:60] for arguments, _ in OF_SETTINGS]
)
def test_wrong_settings(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def train(place: Place, *more: object, data: Path | None = None, outdir: Path | None = None) -> list[object]:
    options = ["--ngf", 4, "--ndf", 4, "--batch-size", 4, "--device", "cpu", "--no-compile", "--set", "nz=8"]
    where = ["--data", data or place.cifar10, "--outdir", outdir or place.path / "new"]
    return [*CONFIGURATION, *where, *options, "--set", "eval.every=null", *more]


def resumed(place: Place, *more: object) -> list[object]:
    """The command of the run in ``place``."""
    settings = {"n_dis": 2, "ema": 0.9, "flip": "true", "logger": "none"}
    chosen = [f"--set={key}={value}" for key, value in settings.items()]
    return train(place, *chosen, *more, outdir=place.run)


def folder(place: Place, *more: object, data: Path | None = None) -> list[object]:
    arguments = train(place, *more, data=data or place.store)
    arguments[2] = "sngan-folder"
    return arguments


def changed_index(place: Place, change: Callable[[dict[str, Any]], None]) -> Path:
    """The store with another store.json, which is no longer what packing wrote."""
    index = json.loads((place.store / "store.json").read_text())
    change(index)
    (place.store / "store.json").write_text(json.dumps(index))
    return place.store


def other_file(place: Place) -> Path:
    (place.path / "notes.txt").write_text("mine")
    return place.path


def yaml_file(place: Place, text: str) -> Path:
    (place.path / "mine.yaml").write_text(text)
    return place.path / "mine.yaml"


def malicious(place: Place) -> Path:
    torch.save({"netG": Command(f"touch {place.path / 'executed'}")}, place.path / "a.pt")
    return place.path / "a.pt"


def of_another_run(place: Place) -> Path:
    text = (place.run / "config.yaml").read_text()
    (place.run / "config.yaml").write_text(text.replace("ngf: 4", "ngf: 8"))
    return place.run


def damaged_latest(place: Place) -> Path:
    flip(place.run / "checkpoints" / "latest.pt", 9000)
    return place.run


def damaged_run(place: Place) -> Path:
    """All checkpoints are: training would go on from one that is not."""
    for file in list((place.run / "checkpoints").glob("*.pt")):
        flip(file, 9000)
    return place.run


#: What is typed beside which files, and what the message says.
OF_FILES: dict[str, tuple[Callable[[Place], list[object]], str]] = {
    "no data": (lambda p: train(p, data=p.path / "no"), "fastdat data download cifar10"),
    "foreign folder": (lambda p: train(p, outdir=other_file(p)), "is not empty and holds no run"),
    "outdir is a file": (
        lambda p: train(p, outdir=other_file(p) / "notes.txt"),
        "cannot use",
    ),
    "other seed": (lambda p: resumed(p, "--seed", 1, "--steps", 4), "other settings: seed 0 then, 1 now"),
    "more steps under decay": (
        lambda p: resumed(p, "--steps", 8),
        "After step 4 they would change from 0 to 0.5 of the initial ones. Give --extend",
    ),
    "fewer steps than done": (lambda p: resumed(p, "--steps", 3), "is already 4 steps long; got steps=3"),
    "no run to go on with": (lambda p: train(p, "--from", "newest"), "leave --from out to begin one"),
    "no such step": (
        lambda p: resumed(p, "--steps", 4, "--from", "step-000009"),
        "there is no checkpoint step-000009. Undamaged in",
    ),
    "damaged checkpoint": (
        lambda p: resumed(replace_run(p, damaged_run(p)), "--steps", 4),
        "latest.pt is damaged: its bytes are not those that were written",
    ),
    "resolution of the store": (lambda p: folder(p), "--set resolution=32"),
    "another data set": (lambda p: train(p, data=p.store), "cifar10"),
    "store.json without keys": (
        lambda p: folder(p, data=changed_index(p, lambda index: index.clear())),
        "Remove",
    ),
    "changed store.json": (
        lambda p: folder(p, data=changed_index(p, lambda index: index.update(resolution=64))),
        "Remove",
    ),
    "npy header": (
        lambda p: folder(p, "--set", "resolution=32", data=flip(p.store / "train.images.npy", 60).parent),
        "train.images.npy",
    ),
    "changed image": (
        lambda p: folder(p, "--set", "resolution=32", data=flip(p.store / "train.images.npy", 9999).parent),
        "images 0 to 11",
    ),
    "batch larger than the set": (
        lambda p: folder(p, "--set", "resolution=32", "--batch-size", 64),
        "Choose from 1 to 12",
    ),
    "eval of no run": (lambda p: ["eval", p.path], "is no run folder: it has no config.yaml"),
    "eval of no checkpoint": (
        lambda p: ["eval", p.run, "--checkpoint", p.path / "x.pt"],
        "x.pt. Undamaged in",
    ),
    "eval by an unknown score": (lambda p: ["eval", p.run, "--metrics", "sfid"], "each one of fid, kid, is"),
    "eval of nowhere": (lambda p: ["eval", p.run, "--data", p.path / "nowhere"], "does not exist"),
    "eval of two runs": (lambda p: ["eval", of_another_run(p)], "ngf 4 then, 8 now in config.yaml"),
    "eval of malice": (
        lambda p: ["eval", p.run, "--checkpoint", malicious(p)],
        "refers to posix.system, and a checkpoint holds only tensors, numbers and text. Nothing was executed.",
    ),
    "eval of damage": (lambda p: ["eval", damaged_latest(p)], "Undamaged in"),
    "too many samples": (
        lambda p: ["sample", p.run, "-n", 10**12, "--folder", p.path / "f"],
        "1,000,000,000,000 samples are more than can be drawn at once; the most are 1,000,000",
    ),
    "too large a grid": (lambda p: ["sample", p.run, "-n", 10**12, "--grid", "g.png"], "with --folder"),
    "no samples": (lambda p: ["sample", p.run, "-n", 0, "--grid", "g.png"], "greater than or equal to 1"),
    "a number in words": (lambda p: ["sample", p.run, "-n", "1e12", "--grid", "g.png"], "a valid integer"),
    "sample to nowhere": (lambda p: ["sample", p.run], "exactly one of --grid, --folder and --animation"),
    "sample of a class": (
        lambda p: ["sample", p.run, "--class", 3, "--grid", "g.png"],
        "has no classes; got class 3",
    ),
    "sample of another suffix": (
        lambda p: ["sample", p.run, "--animation", "walk.mp4"],
        "ends with .gif, .webp, .png",
    ),
    "export to nothing": (lambda p: ["export", p.run], "give at least one of them, with the file to write"),
    "export of damage": (lambda p: ["export", damaged_run(p), "--pt2", "g.pt2"], "It was not used."),
    "eval of a file": (
        lambda p: ["eval", p.run / "checkpoints" / "latest.pt"],
        "give the run folder, and name the checkpoint with --checkpoint",
    ),
    "config without settings": (
        lambda p: train(p, "--config", other_file(p) / "notes.txt"),
        "must hold settings as lines of key: value",
    ),
    "config with a typo": (
        lambda p: train(p, "--config", yaml_file(p, "lrr: 1e-4")),
        "mine.yaml: unknown setting lrr. Did you mean lr",
    ),
    "config with a bad value": (
        lambda p: train(p, "--config", yaml_file(p, "lr: fast")),
        "mine.yaml: lr must be a finite number > 0; got 'fast'",
    ),
    "start from nothing": (
        lambda p: train(p, "--init-from", p.path / "no.pt", outdir=p.path.parent / "run2"),
        "there is no checkpoint",
    ),
    "start from other nets": (
        lambda p: train(p, "--init-from", p.run, "--set", "nz=9", outdir=p.path.parent / "run2"),
        "has the weights of other nets than these",
    ),
    "sample of damage": (lambda p: ["sample", damaged_run(p), "--grid", "g.png"], "It was not used."),
    "report of no run": (lambda p: ["report", p.path], "is no run folder"),
    "report twice": (lambda p: ["report", p.run, p.run], "is given twice"),
    "report elsewhere": (lambda p: ["report", p.run, "--out", "report.pdf"], "a name that ends in .html"),
    "check of no store": (lambda p: ["data", "check", p.path], "is no packed data set"),
    "check of damage": (
        lambda p: ["data", "check", flip(p.store / "train.images.npy", 9999).parent],
        "is damaged",
    ),
    "pack onto something": (
        lambda p: ["data", "pack", "folder", p.store.parent / "images", other_file(p), "--resolution", 32],
        "exists and is no packed data set",
    ),
}


def replace_run(place: Place, run: Path) -> Place:
    return Place(place.path, place.cifar10, run, place.store)


@pytest.mark.parametrize("name", OF_FILES)
def test_wrong_files(name: str, place: Place) -> None:
    arguments, message = OF_FILES[name]
    typed = arguments(place)
    before = contents(place.path.parent)
    assert message in refused(*typed)
    assert contents(place.path.parent) == before, "what is refused changes nothing"


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but locks, which stay empty."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def refused(*arguments: object) -> str:
    """The message of an invocation that fails with exit code 2."""
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return " ".join(err.replace("│", " ").split())


def test_there_are_enough_of_them() -> None:
    assert len(OF_SETTINGS) + len(OF_FILES) >= 60
