"""A run is resumed only with settings, optimizers and images that allow it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from fastdat.data import ImageSet
from fastdat.report.page import write_report
from fastdat.report.runs import read_runs
from fastdat.report.table2 import column
from fastdat.training import ConfigError, RunFolderError, TrainConfig, Trainer, load_data
from fastdat.training.run_folder import RunFolder
from fastdat.training.train_config import MAKING
from fastdat.training.trained import load_trained
from tests.training.runs import (
    OWN_NETS,
    RESUMABLE,
    EndError,
    assert_same,
    latest,
    on_cpu,
    read_log,
    read_stats,
    results,
    resumable,
    silent,
    tiny,
    train_until,
    trainer_of,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e-3}, "holds a run with other settings: lr 0.0002 then, 0.001 now"),
        ({"dat.eps": 2.0, "seed": 1}, "dat.eps 1.0 then, 2.0 now"),
        ({"ema": 0.0}, "ema 0.9 then, 0.0 now"),
        ({"steps": 3}, "is already 4 steps long; got steps=3"),
    ],
    ids=str,
)
def test_other_settings_are_refused(
    changes: dict[str, Any], message: str, few_images: ImageSet, tmp_path: Path
) -> None:
    trainer_of(resumable(steps=4), few_images, tmp_path).train()
    before = results(tmp_path)
    with pytest.raises(ConfigError, match=message):
        trainer_of(resumable(steps=4).replace(changes), few_images, tmp_path)
    assert_same(before, results(tmp_path))


def test_a_run_without_a_checkpoint_takes_other_settings(few_images: ImageSet, tmp_path: Path) -> None:
    """A wrong setting may be why it ended, and there is nothing to lose."""
    first = trainer_of(resumable(lr=1e-3), few_images, tmp_path)
    train_until(first, 2)
    trainer_of(resumable(), few_images, tmp_path).train()
    assert "resumed after 0 steps" in read_log(tmp_path)
    assert "lr 0.001 then, 0.0002 now" in read_log(tmp_path)
    assert TrainConfig.from_dict(yaml.safe_load((tmp_path / "config.yaml").read_text())) == on_cpu(
        resumable()
    )


def test_other_images_are_refused(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(resumable(steps=4), few_images, tmp_path).train()
    others = dataclasses.replace(few_images, images=few_images.images.flip(-1))
    with pytest.raises(ConfigError, match=r"holds a run on other images: their fingerprint was \w{16} then"):
        trainer_of(resumable(steps=4), others, tmp_path)
    trainer_of(resumable(steps=4), few_images, tmp_path).train()


@pytest.mark.parametrize(("steps", "rates"), [(8, "from 0.5 to 0.75"), (3, "from 0.5 to 0.3333")])
def test_other_steps_change_rates_that_decay_only_when_asked(
    steps: int, rates: str, few_images: ImageSet, tmp_path: Path
) -> None:
    first = trainer_of(resumable(steps=4), few_images, tmp_path)
    train_until(first, 5)
    with pytest.raises(ConfigError) as refused:
        trainer_of(resumable(steps=steps), few_images, tmp_path)
    message = str(refused.value)
    assert (
        f"to zero over 4 steps; got steps={steps}. After step 2 they would change {rates} of the initial"
        in message
    )
    assert "Give --extend (extend=True in Python) to go on so, or steps=4 to keep the schedule" in message
    trainer = trainer_of(resumable(steps=steps, log_every=1), few_images, tmp_path, extend=True)
    trainer.train()
    assert read_stats(tmp_path)[0]["lr"] == pytest.approx(2e-4 * (1 - 2 / steps))
    assert f"no longer {rates.split()[1]}" in read_log(tmp_path)


def test_other_steps_without_decay_need_no_permission(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(resumable(steps=2, lr_decay="none"), few_images, tmp_path).train()
    trainer_of(resumable(steps=4, lr_decay="none"), few_images, tmp_path).train()
    assert "steps 2 then, 4 now" in read_log(tmp_path)


def own_trainer(data: ImageSet, outdir: Path, make: Any = None, **settings: Any) -> Trainer:
    """A run of nets and optimizers that the caller makes."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Unflatten(1, (3, 32, 32)))
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    make = make or (lambda p: torch.optim.SGD(p, lr=0.1))
    chosen = {key: RESUMABLE[key] for key in OWN_NETS} | settings
    optimizers = make(G.parameters()), make(D.parameters())
    return Trainer(G, D, *optimizers, data, outdir=outdir, display=silent(), **chosen)


def test_a_run_of_own_nets_records_no_model(few_images: ImageSet, tmp_path: Path) -> None:
    own_trainer(few_images, tmp_path).train()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert not config.keys() & {"model", "dataset", "data", "resolution", "ngf", "ndf", "lr", "betas"}
    assert column(read_runs([tmp_path])[0]) is None
    write_report([tmp_path], tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text()
    assert "nets of its own" in report
    assert "data of its own" in report
    with pytest.raises(RunFolderError, match="trained nets of your own, which only you can build"):
        load_trained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"resolution, lr would have no effect: nets, optimizers and reals are given"
    ):
        own_trainer(few_images, tmp_path / "other", resolution=16, lr=1e-3)
    with pytest.raises(ConfigError, match=r"^model would have no effect"):
        own_trainer(few_images, tmp_path / "other", model="sngan")
    with pytest.raises(ConfigError, match=r"no dataset is set. There are: cifar10, "):
        load_data(TrainConfig(model="sngan"))


def test_own_nets_with_a_preset_record_no_model(few_images: ImageSet, tmp_path: Path) -> None:
    """It made nothing of this run, whose rates are other ones."""
    own_trainer(few_images, tmp_path, config=tiny(lr=0.003, **OWN_NETS)).train()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert not config.keys() & set(MAKING)
    assert config["dat"]["real"] is True, "the rest is the preset's"
    assert not latest(tmp_path)["config"].keys() & set(MAKING)
    expected = 'reals are given: model="sngan", dataset="cifar10", ngf=4, ndf=4, lr=0.003 made none of them'
    assert expected in read_log(tmp_path)
    own_trainer(few_images, tmp_path, config=tiny(lr=0.003, **OWN_NETS))  # resumes it


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.5), "another optG: lr 0.1 then, 0.5 now"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "another optG: momentum 0 then, 0.9 now"),
        (lambda p: torch.optim.Adam(p, lr=0.1), "another optG: SGD then, Adam now"),
        (
            lambda p: torch.optim.SGD([{"params": [q]} for q in p], lr=0.1),
            "another optG: 1 groups of parameters then, 2 now",
        ),
    ],
)
def test_other_optimizers_are_refused(make: Any, message: str, few_images: ImageSet, tmp_path: Path) -> None:
    own_trainer(few_images, tmp_path, steps=2).train()
    with pytest.raises(ConfigError, match=message):
        own_trainer(few_images, tmp_path, make, steps=2)
    # A rate that is a tensor is the same up to float32.
    own_trainer(few_images, tmp_path, lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1)), steps=2).train()


@pytest.mark.parametrize(
    "moves", [{}, {"lr_decay": "none", "cosine.lr": 0.001, "cosine.beta2": 0.9}], ids=str
)
def test_the_same_objects_resume_a_run_in_the_same_process(
    moves: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: after a stop, after the end and after resuming, the optimizers have their own rates."""

    def fails(*_: object, **__: object) -> None:
        raise EndError

    torch.manual_seed(0)
    netG = nn.Sequential(nn.Linear(8, 108), nn.Unflatten(1, (3, 6, 6)))
    netD = nn.Sequential(nn.Flatten(), nn.Linear(108, 1))
    rates = {netG: 0.02, netD: 0.01}
    optG, optD = (torch.optim.Adam(net.parameters(), lr, betas=(0.5, 0.99)) for net, lr in rates.items())
    reals = [torch.rand(4, 3, 6, 6) * 2 - 1]
    settings = OWN_NETS | {"steps": 4, "n_dis": 1, "checkpoints.every": 1} | moves

    def again() -> Trainer:
        return Trainer(netG, netD, optG, optD, reals, outdir=tmp_path, display=silent(), **settings)

    train_until(again(), 2)
    assert [(g["lr"], *g["betas"]) for o in (optG, optD) for g in o.param_groups] == [
        (0.02, 0.5, 0.99),
        (0.01, 0.5, 0.99),
    ]
    again().train()
    assert "resumed after 2 steps" in read_log(tmp_path)
    assert [o.param_groups[0]["lr"] for o in (optG, optD)] == [0.02, 0.01]
    assert latest(tmp_path)["optG"]["param_groups"][0]["lr"] < 0.02, "the last step's"
    again()  # only a look at the finished run
    assert [(o.param_groups[0]["lr"], o.param_groups[0]["betas"]) for o in (optG, optD)] == [
        (0.02, (0.5, 0.99)),
        (0.01, (0.5, 0.99)),
    ]
    monkeypatch.setattr(RunFolder, "rewind", fails)
    with pytest.raises(EndError):
        again()
    assert [o.param_groups[0]["lr"] for o in (optG, optD)] == [0.02, 0.01]
