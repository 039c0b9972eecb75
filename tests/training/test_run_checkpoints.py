"""A run ends in any way and is resumed: to the same end, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastdat.data import ImageSet
from fastdat.metrics import Extractor, ImageEvaluator, extractors
from fastdat.training import ConfigError, RunFolderError, Trainer, build_nets
from fastdat.training.networks import Networks
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    RESUMABLE,
    assert_same,
    latest,
    means,
    read_log,
    results,
    resumable,
    scored,
    silent,
    tiny,
    train_until,
    trainer_of,
)

COMMAND = """
import sys
sys.argv = ["fastdat", *{arguments!r}]
from fastdat.cli import main
main()
"""


@pytest.mark.parametrize(
    "model",
    [
        "sngan-dat",
        "sngan",
        "ssgan-dat",
        "infomaxgan-dat",
        "dcgan-dat",
        "csngan-dat",
    ],
)
def test_an_ended_run_is_resumed_exactly(model: str, few_images: ImageSet, tmp_path: Path) -> None:
    """8 steps without a stop, and 8 steps with an end in the sixth; the last checkpoint is of the fourth."""
    config = resumable(f"{model}-cifar10")
    trainer_of(config, few_images, tmp_path / "straight").train()
    first = trainer_of(config, few_images, tmp_path / "stopped")
    train_until(first, 11)
    assert first.done == 5
    torch.manual_seed(99)
    second = trainer_of(config, few_images, tmp_path / "stopped")
    assert second.done == 4
    second.train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))
    assert "resumed after 4 steps" in read_log(tmp_path / "stopped")


def test_a_run_on_points_is_resumed_exactly(tmp_path: Path) -> None:
    config = resumable("mlp-dat-gaussians", samples=50, flip=False)
    trainer_of(config, None, tmp_path / "straight").train()
    first = trainer_of(config, None, tmp_path / "stopped")
    train_until(first, 9)
    trainer_of(config, None, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


def command(data: Path, outdir: Path) -> list[str]:
    settings = {**RESUMABLE, "steps": 40, "checkpoints.every": 4, "logger": "tensorboard"}
    chosen = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    arguments = [
        "train",
        "--preset",
        "sngan-dat-cifar10",
        "--data",
        str(data),
        "--outdir",
        str(outdir),
        *chosen,
    ]
    return [sys.executable, "-c", COMMAND.format(arguments=arguments)]


@pytest.mark.slow
def test_kill_at_any_moment(cifar10_root: Path, tmp_path: Path) -> None:
    """Two kills at a random moment, then the same command again: the same run, bit for bit, as without a kill."""
    subprocess.run(command(cifar10_root, tmp_path / "straight"), check=True, capture_output=True)
    run, kills = tmp_path / "killed", 0
    for enough in (1, 12):
        with subprocess.Popen(
            command(cifar10_root, run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                stats = run / "stats.jsonl"
                if stats.exists() and len(stats.read_text().splitlines()) >= enough:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            process.communicate()
    assert kills >= 1
    end = subprocess.run(command(cifar10_root, run), check=True, capture_output=True, text=True)
    assert "done: 40 steps" in end.stdout
    assert_same(results(tmp_path / "straight"), results(run))
    assert not list(run.rglob("*.tmp"))


def test_a_finished_run_has_nothing_to_do(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(resumable(), few_images, tmp_path).train()
    before = results(tmp_path)
    trainer_of(resumable(), few_images, tmp_path).train()
    assert_same(before, results(tmp_path))
    assert "nothing to do: all 8 steps are done" in read_log(tmp_path)


def test_a_run_that_ended_before_its_first_checkpoint_starts_again(
    few_images: ImageSet, tmp_path: Path
) -> None:
    trainer_of(resumable(), few_images, tmp_path / "straight").train()
    first = trainer_of(resumable(), few_images, tmp_path / "stopped")
    train_until(first, 3)
    assert not (tmp_path / "stopped" / "checkpoints" / "latest.pt").exists()
    trainer_of(resumable(), few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


def test_more_steps_may_be_asked_for(few_images: ImageSet, tmp_path: Path) -> None:
    """Without decay, 4 steps and then 4 more are the same as 8."""
    trainer_of(resumable(lr_decay="none"), few_images, tmp_path / "straight").train()
    trainer_of(resumable(lr_decay="none", steps=4), few_images, tmp_path / "longer").train()
    trainer_of(resumable(lr_decay="none"), few_images, tmp_path / "longer").train()
    a, b = results(tmp_path / "straight"), results(tmp_path / "longer")
    assert_same(a["state"], b["state"])
    assert "steps 4 then, 8 now" in read_log(tmp_path / "longer")


def test_a_checkpoint_of_other_nets_is_refused(few_images: ImageSet, tmp_path: Path) -> None:
    """Of a user's own nets the settings say nothing."""
    own_trainer(few_images, tmp_path, tiny(steps=2))[0].train()
    trainer, _ = own_trainer(few_images, tmp_path / "other", tiny(steps=2))
    trainer.netG[0] = torch.nn.Linear(8, 5)  # type: ignore[index]
    optimizers = [torch.optim.SGD(net.parameters(), 0.02) for net in (trainer.netG, trainer.netD)]
    saved = latest(tmp_path)
    with pytest.raises(ConfigError, match="belongs to other nets than these"):
        Networks(trainer.netG, trainer.netD, *optimizers, None).restore(saved, tmp_path / "latest.pt")


def test_nets_with_random_layers_are_resumed_exactly_beside_an_evaluator(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """D's dropout draws from torch's global generator; so does making the extractor."""

    def careless(weights: str | None) -> Extractor:
        torch.nn.Linear(3, 3)
        return means(weights)

    extractors.FACTORIES["means"] = careless

    def make(outdir: Path) -> Trainer:
        config = scored(cifar10_root, **{"checkpoints.every": 2})
        netG, _ = build_nets(config)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            netD = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(3072, 1))
        opts = [torch.optim.SGD(net.parameters(), 0.1) for net in (netG, netD)]
        evaluator = ImageEvaluator(
            config.eval, {"train": few_images, "test": few_images}, torch.device("cpu")
        )
        return Trainer(netG, netD, *opts, few_images, config, outdir, evaluator=evaluator, display=silent())

    torch.manual_seed(3)
    make(tmp_path / "straight").train()
    torch.manual_seed(3)
    first = make(tmp_path / "ended")
    train_until(first, 3)
    torch.manual_seed(5)
    second = make(tmp_path / "ended")
    torch.rand(7)
    second.train()
    a, b = (latest(tmp_path / name) for name in ("straight", "ended"))
    assert all(torch.equal(a["netD"][key], b["netD"][key]) for key in a["netD"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("logger", ["none", "tensorboard"])
def test_a_full_disk_stops_the_run_and_keeps_its_checkpoint(
    logger: str, few_images: ImageSet, small_disk: Path
) -> None:
    config = resumable(sample_every=100, logger=logger)
    trainer = trainer_of(config, few_images, small_disk / "run")
    train_until(trainer, 9)
    before = results(small_disk / "run")
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(4 << 20))
    with pytest.raises(RunFolderError, match=r"No space left on device"):
        trainer_of(config, few_images, small_disk / "run").train()
    (small_disk / "ballast").unlink()
    assert_same(before["state"], results(small_disk / "run")["state"])
    trainer_of(config, few_images, small_disk / "run").train()
    assert results(small_disk / "run")["state"]["step"] == 8
