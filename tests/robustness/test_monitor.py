"""Robustness measured while a run trains: what is measured, when, where it goes, and that training stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.report import curve_section, write_report
from fastdat.robustness import (
    Monitor,
    MonitorConfig,
    latent_adversarial_share,
    layer_norms,
    lipschitz,
    measure,
    midpoint,
    pgd_steps_to_flip,
)
from fastdat.training import ConfigError, Trainer
from fastdat.util.monitor_names import MONITORED
from tests.robustness.linear_nets import SHAPE, LinearD, LinearG
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

SMALL: dict[str, Any] = {"samples": 6, "steps": 2, "restarts": 2, "cap": 3}
FROM_CONFIG = {f"monitor.{key}": value for key, value in SMALL.items()}


def measured_lines(run: Path) -> list[float]:
    """The steps whose lines hold measurements."""
    return [line["step"] for line in read_stats(run) if "lipschitz_real_mean" in line]


def test_the_numbers_are_those_of_the_functions() -> None:
    G, D = LinearG(), LinearD()
    z = torch.randn(9, 4, dtype=torch.float64)
    xf = G(z).detach()
    xr = 1.5 * xf + D.direction.reshape(SHAPE) * 0.3  # D finds most of them more real than the fakes
    config = MonitorConfig(**SMALL | {"cap": 200, "step_size": 0.01}, radius=0.2, norm="linf", seed=3)
    found = measure(G, D, (z,), (xr,), config, batch_size=4, bounds=None).numbers()
    threshold = midpoint(D, xr, xf)

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    share = latent_adversarial_share(
        G, D, z, threshold=threshold, radius=0.2, norm="linf", restarts=2, steps=2, generator=draws()
    )
    flips = {
        side: pgd_steps_to_flip(D, x, side, threshold=threshold, step_size=0.01, cap=200, bounds=None)  # type: ignore[arg-type]
        for side, x in (("real", xr), ("fake", xf))
    }
    steep, layers = lipschitz(D, xr, xf, generator=draws()), layer_norms(D)
    expected = {
        "verdict_threshold": threshold,
        "latent_share": share.share,
        "latent_eligible": share.eligible_share,
        **{f"pgd_steps_{side}": of_side.mean_steps for side, of_side in flips.items()},
        **{f"pgd_flipped_{side}": of_side.success_rate for side, of_side in flips.items()},
        **{
            f"lipschitz_{place}_{what}": getattr(getattr(steep, place), what)
            for what in ("mean", "q95", "max")
            for place in ("real", "fake", "between")
        },
        "sigma_max": max(layers.values()),
        "sigma_mean": float(torch.tensor(list(layers.values()), dtype=torch.float64).log().mean().exp()),
        "penalty_case_real": float((D(xr) >= D(xf).mean()).double().mean()),
        "penalty_case_fake": float((D(xf) <= D(xr).mean()).double().mean()),
    }
    assert found == pytest.approx(expected, rel=1e-9)
    assert tuple(found) == MONITORED
    assert 0 < found["latent_eligible"] < 1
    assert found["pgd_steps_real"] != found["pgd_steps_fake"]


def test_only_what_is_asked_for() -> None:
    G, D = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    z, xr = torch.randn(5, 2), torch.randn(5, 3)
    for part, beginning in (
        ("latent", "latent"),
        ("pgd", "pgd"),
        ("lipschitz", ("lipschitz", "sigma", "penalty_case")),
    ):
        off = {"latent": False, "pgd": False, "lipschitz": False} | {part: True}
        found = measure(G, D, (z,), (xr,), MonitorConfig(**SMALL | off), bounds=None).numbers()
        assert found.keys() - {"verdict_threshold"} <= {
            name for name in MONITORED if name.startswith(beginning)
        }
        assert len(found) > 1


def test_from_the_configuration_to_every_place(few_images: ImageSet, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    config = tiny(logger="tensorboard", log_every=1, **FROM_CONFIG, **{"monitor.every": 2})
    trainer_of(config, few_images, run).train()
    assert measured_lines(run) == [2, 4]
    line = read_stats(run)[1]
    assert set(MONITORED) & set(line) >= {"lipschitz_fake_q95", "sigma_max", "verdict_threshold"}
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("robustness/sigma_max")] == [2, 4]
    assert "sigma_max" not in read_log(run), "a line on the screen has no room for all of them"
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.index("Robustness of D") < page.index("PGD until the verdict flips") < page.index(">Speed<")
    charted = {key for group in curve_section._GROUPS.values() for chart in group for key in chart.keys}
    assert charted >= set(MONITORED)


@pytest.mark.parametrize(
    ("every", "log_every", "steps", "expected"),
    [(4, 3, 12, [6, 9, 12]), (2, 1, 4, [2, 4]), (100, 2, 5, [5]), (1, 2, 4, [2, 4]), (5, 2, 12, [6, 10, 12])],
)
def test_when_it_measures(
    few_images: ImageSet, tmp_path: Path, every: int, log_every: int, steps: int, expected: list[int]
) -> None:
    """At the first line of stats.jsonl from each multiple of ``every`` on, and at the last line."""
    config = tiny(log_every=log_every, steps=steps, sample_every=100, **{"checkpoints.every": 100})
    monitor = Monitor(every=every, latent=False, pgd=False, samples=4)
    own_trainer(few_images, tmp_path / "run", config, callbacks=[monitor])[0].train()
    assert measured_lines(tmp_path / "run") == expected


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_is_the_same_to_the_last_bit(few_images: ImageSet, tmp_path: Path, ema: float) -> None:
    """With running statistics in G, power iterations in D and dropout, which draws from torch's global generator."""

    def run(name: str, **settings: Any) -> list[dict[str, float]]:
        trainer, _ = own_trainer(few_images, tmp_path / name, tiny(log_every=1, ema=ema, **settings))
        trainer.netD.insert(1, torch.nn.Dropout(0.5))
        trainer.train()
        lines = without_times(read_stats(tmp_path / name))
        return [{key: value for key, value in line.items() if key not in MONITORED} for line in lines]

    assert run("alone") == run("monitored", **FROM_CONFIG, **{"monitor.every": 1})
    assert measured_lines(tmp_path / "monitored") == [1, 2, 3, 4]
    kept = ("netG", "netD", "ema", "optG", "optD", "rng")
    assert_same(*({key: latest(tmp_path / name)[key] for key in kept} for name in ("alone", "monitored")))


def test_a_loader_yields_the_same_batches(few_images: ImageSet, tmp_path: Path) -> None:
    """It cannot go back: the monitor takes a batch that training had, and asks for no other one."""

    def run(name: str, **settings: Any) -> tuple[Trainer, list[Tensor]]:
        yielded: list[Tensor] = []

        class Loader:
            def __iter__(self) -> Any:
                for i in range(0, 16, 4):
                    batch = few_images.images[i : i + 4].float() / 127.5 - 1
                    yielded.append(batch)
                    yield (batch,)

        config = tiny(log_every=1, sample_every=100, samples=4, **settings)
        trainer, _ = own_trainer(few_images, tmp_path / name, config)
        trainer.folder.close()
        loaded = Trainer(
            trainer.netG,
            trainer.netD,
            trainer.optG,
            trainer.optD,
            Loader(),
            config,
            tmp_path / f"{name}-loader",
        )
        loaded.train()
        return loaded, yielded

    _, alone = run("alone")
    trainer, monitored = run("monitored", **FROM_CONFIG, **{"monitor.every": 1})
    assert len(alone) == len(monitored)
    (reals,) = trainer.reals(6)
    assert len(reals) == 4, "one batch"
    assert any(torch.equal(reals, batch) for batch in monitored)
    assert torch.equal(reals, trainer.reals(6)[0])


@pytest.mark.slow
def test_a_run_may_be_resumed_with_another_monitor(few_images: ImageSet, tmp_path: Path) -> None:
    whole = resumable(**FROM_CONFIG, **{"monitor.every": 3})
    trainer_of(whole, few_images, tmp_path / "whole").train()
    stopped = trainer_of(whole, few_images, tmp_path / "part")
    train_until(stopped, 2 * 5)
    resumed = trainer_of(whole, few_images, tmp_path / "part")
    resumed.train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "part"))
    changed = trainer_of(whole.replace({"monitor.radius": 0.3}), few_images, tmp_path / "part")
    changed.folder.close()


def test_conditional_nets_and_points(few_images: ImageSet, tmp_path: Path) -> None:
    for name, data in (("csngan-dat-cifar10", few_images), ("mlp-dat-gaussians", None)):
        run = tmp_path / name
        trainer = trainer_of(tiny(name, **FROM_CONFIG, **{"monitor.every": 4}), data, run)
        assert len(trainer.reals(6)) == len(trainer.latents(6)) == (2 if data else 1)
        trainer.train()
        assert measured_lines(run) == [4]


def test_reals_and_latents_of_a_trainer(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, reals = own_trainer(few_images, tmp_path / "run", tiny())
    expected = torch.cat([reals.sampler.batch(step) for step in (0, 1)])[:6]
    assert torch.equal(trainer.reals(6)[0], expected)
    assert reals.asked == [0, 1]
    assert torch.equal(trainer.reals(6)[0], expected)
    assert reals.asked == [0, 1], "they are kept"
    with torch.no_grad():
        trainer.netG.eval()
        torch.testing.assert_close(trainer.netG(*trainer.latents(5, seed=2)), trainer.samples(5, seed=2))
    trainer.folder.close()
    with pytest.raises(ConfigError, match="n must be an integer >= 1; got 0"):
        trainer.reals(0)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"how often is it measured. Give every="):
        Monitor(latent=False)
    with pytest.raises(ConfigError, match=r"unknown setting monitor.evry. Did you mean monitor.every"):
        Monitor(evry=3)
    with pytest.raises(ConfigError, match=r"monitor.norm must be one of rms, linf, l2; got 'l1'"):
        tiny(**{"monitor.norm": "l1"})
