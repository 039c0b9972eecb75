"""The loop on real images and tiny nets: what it writes and what it computes."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import fastdat.reference
from fastdat.data import ImageSet, TrainSampler
from fastdat.training import ConfigError, TrainConfig, Trainer, build_nets
from fastdat.training.noise import D_STEP, G_STEP, Noise
from tests.training.own_nets import own_trainer
from tests.training.runs import on_cpu, read_log, read_stats, silent, tiny, trainer_of, without_times


def run(config: TrainConfig, data: ImageSet, outdir: Path) -> list[dict[str, float]]:
    """Train and return the lines of stats.jsonl."""
    trainer_of(config, data, outdir).train()
    return read_stats(outdir)


def test_the_run_folder_of_a_dat_run(few_images: ImageSet, tmp_path: Path) -> None:
    config = tiny()
    stats = run(config, few_images, tmp_path / "run")
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "log.txt",
        "reals.png",
        "samples",
        "stats.jsonl",
    ]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        f"step-{step:06d}.png" for step in (0, 3, 4)
    ]
    with Image.open(folder / "samples" / "step-000004.png") as grid:
        assert grid.size == (70, 70)
    assert TrainConfig.from_dict(yaml.safe_load((folder / "config.yaml").read_text())) == on_cpu(config)
    assert [line["step"] for line in stats] == [2, 4]
    for line in stats:
        assert set(line) == {
            "step", "seconds", "it_per_s", "lr", "loss_d", "loss_g", "logits_real", "logits_fake",
            "clean_logits_real", "clean_logits_fake", "penalty_fraction",
            "delta_rms_real", "delta_rms_fake", "grad_norm_real", "grad_norm_fake",
            "clipped_real", "clipped_fake",
        }  # fmt: skip
        assert line["delta_rms_real"] > 0
        assert 0 <= line["penalty_fraction"] <= 1
        assert line["it_per_s"] > 0
    assert [line["lr"] for line in stats] == pytest.approx([2e-4 * 3 / 4, 2e-4 / 4], rel=1e-5)
    log = read_log(folder)
    assert "torch 2." in log
    assert "cifar10 train[:100], 100 images" in log
    assert "step 4/4  loss D" in log
    assert "done: 4 steps" in log


def test_a_baseline_measures_no_attack(few_images: ImageSet, tmp_path: Path) -> None:
    stats = run(tiny("sngan-cifar10"), few_images, tmp_path / "run")
    assert set(stats[0]) == {
        "step", "seconds", "it_per_s", "lr", "loss_d", "loss_g", "logits_real", "logits_fake"
    }  # fmt: skip


def test_an_attack_on_one_side_is_measured_there(few_images: ImageSet, tmp_path: Path) -> None:
    stats = run(tiny(**{"dat.real": False}), few_images, tmp_path / "run")
    assert "delta_rms_fake" in stats[0]
    assert "delta_rms_real" not in stats[0]


def test_reals_are_the_first_batch(few_images: ImageSet, tmp_path: Path) -> None:
    run(tiny(steps=1, samples=1), few_images, tmp_path / "run")
    sampler = TrainSampler(few_images, 4, seed=0)
    with Image.open(tmp_path / "run" / "reals.png") as grid:
        tile = torch.frombuffer(bytearray(grid.crop((2, 2, 34, 34)).tobytes()), dtype=torch.uint8)
    pixels = tile.view(32, 32, 3).permute(2, 0, 1)
    assert torch.equal(pixels, ((sampler.batch(0)[0] + 1) * 127.5).round().to(torch.uint8))


def sgd(G: nn.Module, D: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.SGD(G.parameters(), lr=0.1), torch.optim.SGD(D.parameters(), lr=1e-3)


def test_the_loop_equals_two_iterations_written_out(few_images: ImageSet, tmp_path: Path) -> None:
    """With the reference step, and the same weights in the end.

    SGD, since Adam with beta1 = 0 turns the rounding error of a gradient near zero into a whole step.
    """
    config = tiny(steps=2, ngf=8, ndf=16, **{"dat.eps": 20.0})
    nets = build_nets(config)
    optG, optD = sgd(*nets)
    sampler = TrainSampler(few_images, 4, seed=0)
    noise = Noise(8, seed=0, device=torch.device("cpu"))
    Trainer(*nets, optG, optD, sampler, config, tmp_path / "run", display=silent()).train()

    G, D = build_nets(config)
    optG, optD = sgd(G, D)
    for step in range(2):
        optG.param_groups[0]["lr"], optD.param_groups[0]["lr"] = 0.1 * (1 - step / 2), 1e-3 * (1 - step / 2)
        for i in (2 * step, 2 * step + 1):
            fakes = G(noise.draw(D_STEP, i, 4)).detach()
            loss = fastdat.reference.dat_step(D, sampler.batch(i), fakes, config.dat, "hinge")
            optD.zero_grad()
            loss.backward()
            optD.step()
        optG.zero_grad()
        (-D(G(noise.draw(G_STEP, step, 4))).mean()).backward()
        optG.step()

    start = build_nets(config)
    for mine, theirs, before in zip(nets, (G, D), start, strict=True):
        expected = theirs.state_dict()
        for name, value in mine.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
        moved = [(p - q).abs().max() for p, q in zip(mine.parameters(), before.parameters(), strict=True)]
        assert max(moved) > 1e-3, "far more than the tolerance above"


def test_a_run_is_a_function_of_its_configuration(few_images: ImageSet, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = run(tiny(flip=True), few_images, tmp_path / "1")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = run(tiny(flip=True), few_images, tmp_path / "2")
    assert torch.equal(state, torch.get_rng_state()), "the global generator is not touched"
    assert without_times(one) == without_times(two)
    for name in ("reals.png", "samples/step-000004.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    other = run(tiny(flip=True, seed=1), few_images, tmp_path / "3")
    assert without_times(one) != without_times(other)


def test_sampling_and_logging_do_not_change_the_run(few_images: ImageSet, tmp_path: Path) -> None:
    often = run(tiny(log_every=1, sample_every=1), few_images, tmp_path / "often")
    rarely = run(tiny(log_every=1, sample_every=100), few_images, tmp_path / "rarely")
    assert without_times(often) == without_times(rarely)


def test_nets_stay_in_training_mode_and_d_keeps_its_gradients(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(), few_images, tmp_path / "run")
    trainer.train()
    for net in (trainer.netG, trainer.netD):
        assert all(module.training for module in net.modules())
        assert all(p.requires_grad for p in net.parameters())
    u = trainer.netD.linear.parametrizations.weight[0]._u
    assert u.norm().item() == pytest.approx(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"precision": "bf16", "channels_last": True, "flip": True},
        {"microbatch": 2},
        {"loss": "gan", "lr_decay": "none"},
        {"dat.second_order": True, "dat.steps": 2},
        {"samples": 1, "log_every": 1, "n_dis": 1},
    ],
    ids=str,
)
def test_options_run(few_images: ImageSet, tmp_path: Path, changes: dict[str, Any]) -> None:
    stats = run(tiny(steps=2, **changes), few_images, tmp_path / "run")
    assert stats[-1]["step"] == 2
    assert all(math.isfinite(value) for line in stats for value in line.values())


def test_microbatches_do_not_change_the_run(few_images: ImageSet, tmp_path: Path) -> None:
    whole = run(tiny(), few_images, tmp_path / "whole")
    parts = run(tiny(microbatch=2), few_images, tmp_path / "parts")
    for a, b in zip(without_times(whole), without_times(parts), strict=True):
        assert a == pytest.approx(b, rel=2e-3)


def test_own_nets_optimizers_and_batches(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, reals = own_trainer(few_images, tmp_path / "run", tiny(log_every=1))
    before = copy.deepcopy(trainer.netG.state_dict())
    trainer.train()
    assert reals.asked == [0, 0, *range(8)], (
        "for the first look, for reals.png, then n_dis per step, in order"
    )
    stats = read_stats(tmp_path / "run")
    assert [line["lr"] for line in stats] == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert not torch.equal(before["0.weight"], trainer.netG.state_dict()["0.weight"])


@pytest.mark.slow
def test_compiled_run(
    few_images: ImageSet, tmp_path: Path, compile_counters: dict[str, Counter[str]]
) -> None:
    for compile in (False, True):
        trainer, _ = own_trainer(few_images, tmp_path / str(compile), tiny(log_every=1, compile=compile))
        trainer.train()
    eager, compiled = (without_times(read_stats(tmp_path / name)) for name in ("False", "True"))
    for a, b in zip(eager, compiled, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    assert not compile_counters["graph_break"]
    # One graph each for the D step, G's fakes and the G step; nothing was compiled twice in four steps.
    assert compile_counters["stats"]["unique_graphs"] == 3


def test_a_trainer_trains_once(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(), few_images, tmp_path / "run")
    trainer.train()
    with pytest.raises(
        ConfigError,
        match=r"this Trainer has trained already; make a new one on .* to resume from its checkpoint",
    ):
        trainer.train()
