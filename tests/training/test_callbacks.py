"""Users' own metrics: where their numbers go, that training stays the same with them, and what is refused."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastdat.data import ImageSet
from fastdat.report import write_report
from fastdat.training import ConfigError, Trainer, noise
from fastdat.training.tags import RESERVED
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    assert_same,
    latest,
    read_log,
    read_stats,
    results,
    resumable,
    tiny,
    train_until,
    trainer_of,
    without_times,
)


def spread(trainer: Trainer) -> dict[str, Any]:
    """A metric of samples, in the kinds of numbers that users have at hand."""
    fakes = trainer.samples(6, seed=3)
    return {"spread": fakes.std(0).mean(), "step of G": np.float32(trainer.done), "count": len(fakes)}


def rude(trainer: Trainer) -> None:
    """Changes all that a callback should leave alone."""
    assert not torch.is_grad_enabled()
    torch.manual_seed(torch.randint(1000, ()).item())
    trainer.netG(torch.randn(4, 8))
    trainer.netD(trainer.samples(4))
    for net in (trainer.netG, trainer.netD):
        net.train(not net.training)
    torch.set_grad_enabled(False)


def test_the_numbers_reach_every_place(few_images: ImageSet, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    trainer_of(tiny(logger="tensorboard"), few_images, run, callbacks=[spread, lambda trainer: None]).train()
    lines = read_stats(run)
    assert [line["step of G"] for line in lines] == [2, 4]
    assert [line["count"] for line in lines] == [6, 6]
    assert lines[0]["spread"] != lines[1]["spread"]
    assert f"spread {lines[1]['spread']:.4g}  step of G 4  count 6  ETA" in read_log(run)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("own/step of G")] == [2, 4]
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    further = page.index("Further statistics")
    assert all(page.index(f">{name}<", further) for name in ("spread", "step of G", "count"))


def test_training_names_all_its_own_numbers(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(), few_images, tmp_path / "run").train()
    assert set(read_stats(tmp_path / "run")[0]) == RESERVED


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_is_the_same_to_the_last_bit(few_images: ImageSet, tmp_path: Path, ema: float) -> None:
    """With running statistics in G, power iterations in D and dropout, which draws from torch's global generator."""
    config = tiny(log_every=1, ema=ema)

    def run(name: str, **callbacks: Any) -> list[dict[str, float]]:
        trainer, _ = own_trainer(few_images, tmp_path / name, config, **callbacks)
        trainer.netD.insert(1, torch.nn.Dropout(0.5))
        trainer.train()
        return without_times(read_stats(tmp_path / name))

    alone = run("alone")
    assert alone == [
        {key: value for key, value in line.items() if key in RESERVED}
        for line in run("observed", callbacks=[rude, spread])
    ]
    kept = ("netG", "netD", "ema", "optG", "optD", "rng")
    assert_same(*({key: latest(tmp_path / name)[key] for key in kept} for name in ("alone", "observed")))
    assert torch.is_grad_enabled()


def test_the_speed_leaves_callbacks_out(few_images: ImageSet, tmp_path: Path) -> None:
    def slow(trainer: Trainer) -> None:
        time.sleep(2.0 if trainer.done == 1 else 0.0)

    config = tiny(log_every=1, steps=2, sample_every=100)
    own_trainer(few_images, tmp_path / "run", config, callbacks=[slow])[0].train()
    assert read_stats(tmp_path / "run")[1]["it_per_s"] > 0.5


def test_each_use_of_noise_has_a_stream_of_its_own() -> None:
    streams = [value for name, value in vars(noise).items() if name.isupper()]
    assert len(set(streams)) == len(streams) >= 6


def test_samples_are_those_of_the_average(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(ema=0.9))
    trainer.train()
    assert trainer.ema is not None
    before = torch.get_rng_state()
    samples = trainer.samples(6, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert samples.shape == (6, 3, 32, 32)
    assert not samples.requires_grad
    assert torch.equal(samples, trainer.samples(6, seed=2))
    assert not torch.equal(samples, trainer.samples(6))
    average = {key: value.clone() for key, value in trainer.ema.net.state_dict().items()}
    trainer.netG.load_state_dict(average)
    trainer.ema = None
    of_G, _ = own_trainer(few_images, tmp_path / "other", tiny())
    of_G.netG.load_state_dict(average)
    torch.testing.assert_close(samples, of_G.samples(6, seed=2))
    with pytest.raises(ConfigError, match="n must be an integer >= 1; got 0"):
        trainer.samples(0)


@pytest.mark.slow
def test_no_more_is_compiled(few_images: ImageSet, tmp_path: Path, compile_counters: Any) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(log_every=1, compile=True), callbacks=[rude])
    trainer.train()
    assert compile_counters["stats"]["unique_graphs"] == 3


def test_a_number_that_is_not_finite_is_left_out(few_images: ImageSet, tmp_path: Path) -> None:
    def some(trainer: Trainer) -> dict[str, float]:
        return {"good": 1.5, "bad": math.nan if trainer.done < 3 else math.inf}

    trainer_of(tiny(log_every=1), few_images, tmp_path / "run", callbacks=[some]).train()
    lines = read_stats(tmp_path / "run")
    assert [line["good"] for line in lines] == [1.5] * 4
    assert not any("bad" in line for line in lines)
    log = read_log(tmp_path / "run")
    assert "bad is nan after step 1; stats.jsonl leaves out" in log
    assert log.count("bad is") == 1


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (1.5, "a callback is .* returns a dict name -> number, or None; got a float"),
        ({"fid": "12.3"}, "'fid' is '12.3', a str"),
        ({"fid": None}, "'fid' is None, a NoneType"),
        ({"fid": torch.ones(2)}, r"'fid' is a tensor of shape \(2,\)"),
        ({"loss_d": 1.0}, "may not return 'loss_d', a number that training records"),
        ({"step": 1.0}, "may not return 'step'"),
        ({3: 1.0}, "got the name 3, which is no text"),
        ({"twice": 1.0}, "two callbacks return a number called 'twice'"),
    ],
)
def test_what_a_callback_may_not_return(
    few_images: ImageSet, tmp_path: Path, returned: Any, message: str
) -> None:
    config = tiny(log_every=1, steps=2)
    callbacks = [lambda trainer: {"twice": 2.0}, lambda trainer: returned]
    trainer, _ = own_trainer(few_images, tmp_path / "run", config, callbacks=callbacks)
    with pytest.raises(ConfigError, match=message):
        trainer.train()


@pytest.mark.parametrize("callbacks", [spread, "spread", [spread, 3]], ids=["function", "text", "number"])
def test_callbacks_are_a_list_of_functions(few_images: ImageSet, tmp_path: Path, callbacks: Any) -> None:
    with pytest.raises(ConfigError, match="callbacks must be a list of functions"):
        trainer_of(tiny(), few_images, tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_after_a_callback_failed(few_images: ImageSet, tmp_path: Path) -> None:
    """The step is kept with all that was due in it, and the resumed run is the one without a failure."""

    def failing(trainer: Trainer) -> None:
        if trainer.done == 3:
            raise RuntimeError("out of luck")

    config = resumable(sample_every=3, **{"checkpoints.every": 100})
    trainer_of(config, few_images, tmp_path / "whole").train()
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        trainer_of(config, few_images, tmp_path / "run", callbacks=[failing]).train()
    where = "The callback test_a_run_goes_on_after_a_callback_failed.<locals>.failing failed after step 3."
    assert caught.value.__notes__ == [
        where,
        "latest.pt holds this step: correct the callback and resume the run.",
    ]
    assert "RuntimeError: out of luck\n" in read_log(tmp_path / "run")
    assert where in read_log(tmp_path / "run")
    assert latest(tmp_path / "run")["step"] == 3
    trainer_of(config, few_images, tmp_path / "run").train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "run"))


def test_a_callback_that_saves(few_images: ImageSet, tmp_path: Path) -> None:
    """What it has drawn before belongs to no checkpoint. D draws too, for its dropout."""
    config = tiny(log_every=1, **{"checkpoints.every": 100})

    def saving(trainer: Trainer) -> None:
        torch.rand(3)
        trainer.samples(4)  # which has random numbers of its own
        if trainer.done == 2:
            trainer.save()

    def trainer_in(name: str) -> Trainer:
        trainer, _ = own_trainer(few_images, tmp_path / name, config, callbacks=[saving], dropout=True)
        return trainer

    trainer_in("whole").train()
    train_until(trainer_in("run"), 7)
    assert latest(tmp_path / "run")["step"] == 2
    trainer_in("run").train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "run"))
