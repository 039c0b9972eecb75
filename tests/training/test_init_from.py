"""A run that starts from the weights of another one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from fastdat.data import ImageSet
from fastdat.training import ConfigError, RunFolderError
from tests.training.runs import (
    assert_same,
    latest,
    read_log,
    results,
    resumable,
    tiny,
    train_until,
    trainer_of,
)


@pytest.fixture
def first(few_images: ImageSet, tmp_path: Path) -> Path:
    """The folder of a run with a running average."""
    trainer_of(tiny(ema=0.5, seed=3), few_images, tmp_path / "first").train()
    return tmp_path / "first"


@pytest.mark.parametrize("of", ["folder", "file"])
def test_weights_are_taken_over_and_nothing_else(
    of: str, first: Path, few_images: ImageSet, tmp_path: Path
) -> None:
    init_from = first if of == "folder" else first / "checkpoints" / "step-000004.pt"
    trainer = trainer_of(tiny(ema=0.9, init_from=str(init_from)), few_images, tmp_path / "second")
    saved = latest(first)
    assert trainer.done == 0
    assert trainer.ema is not None
    assert_same(dict(trainer.netG.state_dict()), saved["netG"])
    assert_same(dict(trainer.netD.state_dict()), saved["netD"])
    assert_same(dict(trainer.ema.net.state_dict()), saved["ema"])
    assert not trainer.optG.state
    trainer.train()
    log = read_log(tmp_path / "second")
    assert f"began with the weights of {first}/checkpoints/" in log
    assert ".pt, step 4 of its run" in log


def test_an_average_that_the_other_run_had_not_starts_as_its_generator(
    few_images: ImageSet, tmp_path: Path
) -> None:
    trainer_of(tiny(seed=3), few_images, tmp_path / "first").train()
    trainer = trainer_of(tiny(ema=0.9, init_from=str(tmp_path / "first")), few_images, tmp_path / "second")
    assert trainer.ema is not None
    assert_same(dict(trainer.ema.net.state_dict()), latest(tmp_path / "first")["netG"])


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_own_weights(
    first: Path, few_images: ImageSet, tmp_path: Path
) -> None:
    config = resumable(init_from=str(first), ema=0.5)
    trainer_of(config, few_images, tmp_path / "whole").train()
    stopped = trainer_of(config, few_images, tmp_path / "stopped")
    train_until(stopped, 7)
    trainer_of(config, few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "stopped"))


def test_a_run_without_a_checkpoint_begins_with_them_again(
    first: Path, few_images: ImageSet, tmp_path: Path
) -> None:
    config = tiny(init_from=str(first))
    stopped = trainer_of(config, few_images, tmp_path / "stopped")
    train_until(stopped, 3)
    again = trainer_of(config, few_images, tmp_path / "stopped")
    assert_same(dict(again.netD.state_dict()), latest(first)["netD"])


def test_the_other_run_may_move_once_the_new_one_has_a_checkpoint(
    first: Path, few_images: ImageSet, tmp_path: Path
) -> None:
    config = tiny(init_from=str(first))
    trainer_of(config.replace({"steps": 2, "lr_decay": "none"}), few_images, tmp_path / "second").train()
    first.rename(tmp_path / "moved")
    now = config.replace({"init_from": str(tmp_path / "moved"), "lr_decay": "none"})
    resumed = trainer_of(now, few_images, tmp_path / "second")
    assert resumed.done == 2
    resumed.train()
    assert f"init_from {first} then, {tmp_path}/moved now" in read_log(tmp_path / "second")
    with pytest.raises(ConfigError, match=r"init_from .*moved then, None now"):
        trainer_of(now.replace({"init_from": None}), few_images, tmp_path / "second")


def test_other_classes_are_said(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny("csngan-cifar10", steps=2), few_images, tmp_path / "first").train()
    renamed = dataclasses.replace(few_images, classes=("plane", *few_images.classes[1:]))
    config = tiny("csngan-cifar10", steps=2, init_from=str(tmp_path / "first"))
    trainer_of(config, renamed, tmp_path / "second").train()
    said = "labels now mean other classes: 10 classes then, 10 now; new: plane; gone: airplane"
    assert said in read_log(tmp_path / "second")
    trainer_of(config, few_images, tmp_path / "third").train()
    assert "other classes" not in read_log(tmp_path / "third")


def test_what_is_refused(first: Path, few_images: ImageSet, tmp_path: Path) -> None:
    def refused(**changes: object) -> str:
        with pytest.raises((ConfigError, RunFolderError)) as error:
            trainer_of(tiny(**changes), few_images, tmp_path / "second")
        return str(error.value)

    message = refused(init_from=str(first), ngf=8)
    assert "has the weights of other nets than these. Give the same model" in message
    assert "as many channels and classes, as its run had." in message
    assert len(message.splitlines()) <= 4
    assert f"there is no checkpoint {tmp_path}/no.pt" in refused(init_from=str(tmp_path / "no.pt"))
    torch.save({}, tmp_path / "other.pt")
    assert "was not written by fastdat" in refused(init_from=str(tmp_path / "other.pt"))
    trainer_of(tiny(), few_images, tmp_path / "begun").train()
    with pytest.raises(ConfigError, match=r"init_from None then, .*first now"):
        trainer_of(tiny(init_from=str(first)), few_images, tmp_path / "begun")
