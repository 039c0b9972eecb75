"""The loop, on real images and tiny nets: what it computes, what it writes, and how it stops."""

import copy
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fastdat.reference
from fastdat.data import ImageSet, TrainSampler
from fastdat.training import (
    ConfigError,
    NonFiniteError,
    TrainConfig,
    Trainer,
    build_nets,
    build_trainer,
    load_data,
    preset,
)
from fastdat.training.build import choose_device
from fastdat.training.display import Lines
from fastdat.training.noise import D_STEP, G_STEP, Noise

TINY = {
    "ngf": 4,
    "ndf": 4,
    "nz": 8,
    "batch_size": 4,
    "n_dis": 2,
    "steps": 4,
    "log_every": 2,
    "sample_every": 3,
    "samples": 4,
    "compile": False,
    "device": "cpu",
    "tensorboard": False,
    "eval.every": None,
}


def tiny(name: str = "sngan-dat-cifar10", **changes: Any) -> TrainConfig:
    return preset(name).replace(TINY | changes)


def run(config: TrainConfig, data: ImageSet, outdir: Path) -> list[dict[str, float]]:
    """Train and return the lines of stats.jsonl."""
    build_trainer(config, data, outdir, display=Lines(io.StringIO())).train()
    return read_stats(outdir)


def read_stats(outdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (outdir / "stats.jsonl").read_text().splitlines()]


def without_times(stats: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "it_per_s")} for line in stats
    ]


# --- what it writes ----------------------------------------------------------------------------------------------


def test_run_folder_of_a_dat_run(few_images: ImageSet, tmp_path: Path) -> None:
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
    assert TrainConfig.from_dict(yaml.safe_load((folder / "config.yaml").read_text())) == config
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
    log = (folder / "log.txt").read_text()
    assert "torch 2." in log
    assert "cifar10 train[:100], 100 images" in log
    assert "step 4/4  loss D" in log
    assert "done: 4 steps" in log


def test_baseline_has_no_attack(few_images: ImageSet, tmp_path: Path) -> None:
    stats = run(tiny("sngan-cifar10"), few_images, tmp_path / "run")
    assert set(stats[0]) == {
        "step", "seconds", "it_per_s", "lr", "loss_d", "loss_g", "logits_real", "logits_fake"
    }  # fmt: skip


def test_one_side_attacked(few_images: ImageSet, tmp_path: Path) -> None:
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


# --- what it computes --------------------------------------------------------------------------------------------


def sgd(G: nn.Module, D: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.SGD(G.parameters(), lr=0.1), torch.optim.SGD(D.parameters(), lr=1e-3)


def test_the_loop_is_the_one_written_out(few_images: ImageSet, tmp_path: Path) -> None:
    """Two iterations by hand, with the reference step, give the same weights.

    With SGD, since Adam (beta1 = 0) turns the rounding of a gradient near zero into a whole step.
    """
    config = tiny(steps=2, ngf=8, ndf=16, **{"dat.eps": 20.0})
    nets = build_nets(config)
    optG, optD = sgd(*nets)
    sampler = TrainSampler(few_images, 4, seed=0)
    noise = Noise(8, seed=0, device=torch.device("cpu"))
    Trainer(*nets, optG, optD, sampler, config, tmp_path / "run", display=Lines(io.StringIO())).train()

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


def test_optimizers_are_the_papers(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = build_trainer(tiny(), few_images, tmp_path / "run", display=Lines(io.StringIO()))
    for optimizer, net in ((trainer.optG, trainer.netG), (trainer.optD, trainer.netD)):
        (group,) = optimizer.param_groups
        assert isinstance(optimizer, torch.optim.Adam)
        assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.0, 0.9), 0)
        assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters()}


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
    trainer = build_trainer(tiny(), few_images, tmp_path / "run", display=Lines(io.StringIO()))
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


# --- the user's own nets -----------------------------------------------------------------------------------------


class Reals:
    """Answers by step and remembers which steps were asked for."""

    def __init__(self, data: ImageSet) -> None:
        self.sampler = TrainSampler(data, 4)
        self.asked: list[int] = []

    def batch(self, step: int) -> Tensor:
        self.asked.append(step)
        return self.sampler.batch(step)


def own_trainer(data: ImageSet, outdir: Path, config: TrainConfig) -> tuple[Trainer, Reals]:
    """Two small nets with what makes real ones hard: running statistics in G, power iterations in D."""
    torch.manual_seed(0)
    G = nn.Sequential(
        nn.Linear(8, 3 * 32 * 32), nn.BatchNorm1d(3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32))
    )
    D = nn.Sequential(
        nn.Flatten(), spectral_norm(nn.Linear(3 * 32 * 32, 8)), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)
    )
    optG, optD = (
        torch.optim.SGD(G.parameters(), lr=0.02),
        torch.optim.SGD(D.parameters(), lr=0.01, momentum=0.5),
    )
    reals = Reals(data)
    return Trainer(G, D, optG, optD, reals, config, outdir, display=Lines(io.StringIO())), reals


def test_own_nets_optimizers_and_batches(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, reals = own_trainer(few_images, tmp_path / "run", tiny(log_every=1))
    before = copy.deepcopy(trainer.netG.state_dict())
    trainer.train()
    assert reals.asked == [0, *range(8)], "once for reals.png, then n_dis a step, in order"
    stats = read_stats(tmp_path / "run")
    assert [line["lr"] for line in stats] == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert not torch.equal(before["0.weight"], trainer.netG.state_dict()["0.weight"])


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
    # One graph each for the D step, G's fakes and G's own step; nothing was compiled twice in four steps.
    assert compile_counters["stats"]["unique_graphs"] == 3


class Auxiliary(nn.Module):
    """A small normalised D with a further loss, which reads a head that its logits do not."""

    auxiliary_weight_d = 0.5
    auxiliary_weight_g = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(3 * 32 * 32, 8)), nn.ReLU())
        self.head, self.other = (spectral_norm(nn.Linear(8, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        return (self.other(self.body(x)) - 1).square().mean()


def test_an_auxiliary_loss_is_compiled_too(
    few_images: ImageSet, tmp_path: Path, compile_counters: dict[str, Counter[str]]
) -> None:
    """In the one graph of each step, with one spectral normalisation for G's two calls of D."""
    stats = []
    for compile in (False, True):
        torch.manual_seed(0)
        G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
        D = fastdat.fuse_spectral_norm(Auxiliary())
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.02) for net in (G, D)]
        before = D.other.weight.detach().clone()
        config = tiny(log_every=1, compile=compile)
        sampler = TrainSampler(few_images, 4)
        Trainer(
            G, D, *optimizers, sampler, config, tmp_path / str(compile), display=Lines(io.StringIO())
        ).train()
        assert not torch.equal(before, D.other.weight), "the further loss trains its head"
        stats.append(without_times(read_stats(tmp_path / str(compile))))
    for a, b in zip(*stats, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    assert not compile_counters["graph_break"]
    assert compile_counters["stats"]["unique_graphs"] == 3


# --- how it stops ------------------------------------------------------------------------------------------------


def test_nan_stops_the_run_with_a_report(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, reals = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    batch = reals.batch
    reals.batch = lambda step: batch(step) * (math.nan if step == 9 else 1)  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="NaN or infinity between steps 5 and 6") as info:
        trainer.train()
    report = str(info.value)
    assert "loss_d = nan" in report
    assert "of 12 tensors are affected, first netG.0.weight" in report
    assert "Try a smaller lr" in report
    log = (tmp_path / "run" / "log.txt").read_text()
    assert all(line in log for line in report.splitlines())
    stats = read_stats(tmp_path / "run")
    assert [line["step"] for line in stats] == [2, 4], "the good part stays"


def test_nan_in_the_first_step_is_reported_there(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, reals = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    batch = reals.batch
    reals.batch = lambda step: batch(step) * math.nan  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="between steps 1 and 2"):
        trainer.train()


def test_a_weight_that_breaks_in_the_last_update_is_found(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(steps=1))
    trainer.netG[0].weight.register_hook(lambda grad: grad * math.inf)  # type: ignore[index, union-attr]
    with pytest.raises(NonFiniteError, match=r"1 of 12 tensors are affected, first netG\.0\.weight"):
        trainer.train()


def test_an_interrupted_run_leaves_whole_files(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, reals = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    batch = reals.batch

    def interrupted(step: int) -> Tensor:
        if step == 9:
            raise KeyboardInterrupt
        return batch(step)

    reals.batch = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4]
    assert "interrupted after 4 steps" in (tmp_path / "run" / "log.txt").read_text()


# --- building ----------------------------------------------------------------------------------------------------


def test_building_refuses(few_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            build_trainer(tiny(**changes), few_images, tmp_path / "run")
        assert not (tmp_path / "run").exists(), "nothing is made before the settings are known to be good"

    refused(
        "unknown model 'stylegan'; there are: sngan, ssgan, infomaxgan, dcgan, csngan, mlp", model="stylegan"
    )
    refused("SNGANGenerator exists at resolution 32, 48, 64, 128; got resolution=40", resolution=40)
    refused("has 100 images; got batch_size=101", batch_size=101)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused("device=cuda, but PyTorch sees no GPU here", device="cuda")
    assert choose_device("auto") == torch.device("cpu")


def test_data_refused(cifar10_root: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'imagenet'; there are: cifar10, cifar100, stl10"):
        load_data(tiny(dataset="imagenet", data=str(cifar10_root)))
    with pytest.raises(ConfigError, match=r"where is cifar10\? Give --data"):
        load_data(tiny())
    with pytest.raises(
        ConfigError,
        match="model sngan does not model images with 1 channel, which mnist has; use one of dcgan",
    ):
        load_data(tiny(dataset="mnist", data=str(cifar10_root)))
    with pytest.raises(ConfigError, match="model mlp does not model images with 3 channels"):
        load_data(tiny(model="mlp"))
    with pytest.raises(ConfigError, match="model csngan needs labels, which stl10 has not"):
        build_nets(tiny(model="csngan", dataset="stl10", resolution=48))


def test_weights_are_a_function_of_the_seed(tmp_path: Path) -> None:
    def first(seed: int) -> Tensor:
        return build_nets(tiny(seed=seed))[0].get_parameter("linear.weight")

    torch.manual_seed(5)
    a = first(0)
    torch.manual_seed(6)
    assert torch.equal(a, first(0))
    assert not torch.equal(a, first(1))


def test_a_loss_of_the_whole_batch_is_not_made_in_parts(few_images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="microbatch=2: the auxiliary loss of SSGANDiscriminator"):
        build_trainer(tiny("ssgan-dat-cifar10", microbatch=2), few_images, tmp_path / "run")
    assert not (tmp_path / "run").exists()
