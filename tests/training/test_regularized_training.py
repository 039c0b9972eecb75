"""Runs with regularizers, other attacks, a loss of pairs, and settings that move along a cosine."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._pytree import tree_leaves

import fastdat
from fastdat.data import ImageSet
from fastdat.engine.spectral.normalise import spectral_weights
from fastdat.nets.augmentation import DRAWS, augmented, parse_policy
from fastdat.training import ConfigError, TrainConfig, Trainer, noise
from fastdat.training.noise import Noise
from fastdat.training.steps import Reals, Steps
from fastdat.training.tags import tagged
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    OWN_NETS,
    assert_same,
    change_reals,
    latest,
    read_log,
    read_stats,
    results,
    resumable,
    tiny,
    train_until,
    trainer_of,
)

MOVING = {"lr": 1e-4, "beta2": 0.9, "regularizers": 0.25, "ema_halflife": True}
#: What draws, what takes turns, and what keeps tensors from step to step.
TERMS = [{"name": "gp"}, {"name": "r1", "gamma": 0.5, "every": 3}, {"name": "lecam", "start": 3}]
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "terms": ("mlp-dat-gaussians", {"regularizers": TERMS}),
    "pairs": ("mlp-dat-gaussians", {"regularizers": TERMS, "loss": "rpgan", "cosine": MOVING}),
    "asgan": (
        "mlp-gaussians",
        {"attack": {"name": "asgan", "eps": 0.125}, "regularizers": [{"name": "alp"}]},
    ),
    "robgan": ("mlp-gaussians", {"attack": {"name": "robgan", "steps": 3}, "loss": "wgan-sigmoid"}),
}


def run_of(name: str, outdir: Path, **changes: Any) -> Trainer:
    preset, settings = RUNS[name]
    return trainer_of(resumable(preset, **settings, **{"flip": False} | changes), None, outdir)


@pytest.mark.parametrize("name", RUNS)
def test_resuming_is_exact(name: str, tmp_path: Path) -> None:
    """To the last bit: random numbers, turns, moving weights, and the anchors of LeCam."""
    run_of(name, tmp_path / "whole").train()
    train_until(run_of(name, tmp_path / "parts"), 11)  # in the sixth step of G
    second = run_of(name, tmp_path / "parts")
    assert second.done == 4
    second.train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))
    lines = read_stats(tmp_path / "whole")
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_a_rollback_restores_what_terms_keep_and_changes_what_they_draw(tmp_path: Path) -> None:
    def broken(step: int, reals: Tensor) -> Tensor:
        if step == 10 and trainer.state.attempt == 0:
            return reals * math.nan
        return reals

    run_of("terms", tmp_path / "whole", log_every=1).train()
    trainer = run_of("terms", tmp_path / "run", log_every=1, on_nan="rollback")
    change_reals(trainer, broken)
    trainer.train()
    assert "back to step 4, retry 1 of 3 with other noise" in read_log(tmp_path / "run")
    a, b = results(tmp_path / "whole"), results(tmp_path / "run")
    assert a["stats"][:4] == b["stats"][:4]
    assert a["stats"][4:] != b["stats"][4:]
    (anchors,) = [state for state in b["state"]["regularizers"] if state]
    assert anchors["steps"] == 16
    assert anchors["real"].isfinite()
    assert not torch.equal(anchors["real"], a["state"]["regularizers"][2]["real"])


def test_the_anchors_follow_the_logits(tmp_path: Path) -> None:
    config = tiny(
        "mlp-dat-gaussians", n_dis=1, steps=5, log_every=1, regularizers=[{"name": "lecam", "decay": 0.75}]
    )
    trainer = trainer_of(config, None, tmp_path)
    trainer.train()
    expected = {}
    for side in ("real", "fake"):
        means = [line[f"clean_logits_{side}"] for line in read_stats(tmp_path)]
        expected[side] = means[0]
        for mean in means:
            expected[side] = 0.75 * expected[side] + 0.25 * mean
    (state,) = latest(tmp_path)["regularizers"]
    assert {side: state[side].item() for side in expected} == pytest.approx(expected, rel=1e-4)
    assert state["steps"] == 5


def test_anchors_of_other_regularizers_are_refused(tmp_path: Path) -> None:
    trainer = run_of("terms", tmp_path)
    regularizers = trainer.iteration.steps.regularizers
    saved = regularizers.to_checkpoint()
    with pytest.raises(
        ConfigError, match=r"latest.pt belongs to other regularizers: it holds \[\{\}, \{\}\]"
    ):
        regularizers.restore(saved[:2], Path("latest.pt"))
    saved[2] = {
        "real": torch.tensor(0.5, dtype=torch.float64),
        "fake": torch.tensor(2.0),
        "steps": torch.tensor(7),
    }
    held = regularizers.terms[2].state()["real"]
    regularizers.restore(saved, Path("latest.pt"))
    assert held == 0.5, "in place: a compiled step reads this tensor"


def test_each_d_step_draws_anew(tmp_path: Path) -> None:
    """From a stream of its own, other numbers after a rollback, and none without regularizers."""
    drawn = Noise(8, seed=3, device=torch.device("cpu"))

    def first(step: int) -> float:
        return torch.rand((), generator=drawn.generator(noise.REGULARIZERS, step)).item()

    before = [first(0), first(1), first(0)]
    drawn.attempt = 1
    assert before[0] == before[2]
    assert len({*before, first(0), drawn.uniform(noise.REGULARIZERS, 0, 1, 1).item()}) == 4
    for name, some in (("terms", True), ("robgan", False)):
        iteration = run_of(name, tmp_path / name).iteration
        first_draws, again, other = (
            tree_leaves([d.draws for d in iteration.fill(i).discriminator]) for i in (2, 2, 4)
        )
        assert_same(first_draws, again)
        every = [x.numpy().tobytes() for x in (*first_draws, *other)]
        assert len(set(every)) == len(every)
        assert bool(every) == some


def test_a_term_is_averaged_over_its_turns(tmp_path: Path) -> None:
    """D steps 0 to 5 and 6 to 11, of which 0, 4 and 8 have the term."""
    config = tiny(
        "mlp-gaussians", n_dis=3, log_every=2, regularizers=[{"name": "r1", "every": 4}, {"name": "r2"}]
    )
    trainer = trainer_of(config, None, tmp_path)
    steps: list[dict[str, float]] = []
    add = trainer.state.meter_d.add

    def note(values: dict[str, Tensor]) -> None:
        steps.append({name: value.item() for name, value in values.items()})
        add(values)

    trainer.state.meter_d.add = note  # type: ignore[method-assign, assignment]
    trainer.train()
    assert [i for i, values in enumerate(steps) if "term_r1" in values] == [0, 4, 8]
    for line, of in zip(read_stats(tmp_path), (steps[:6], steps[6:]), strict=True):
        for name in ("loss_d", "term_r1", "term_r1_grad_norm", "term_r2", "term_r2_grad_norm"):
            values = [values[name] for values in of if name in values]
            assert line[name] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_other_attacks_move_samples(tmp_path: Path) -> None:
    for name, sides, size in (("asgan", ("real", "fake"), 0.125), ("robgan", ("real",), 3 / 128)):
        run_of(name, tmp_path / name).train()
        for line in read_stats(tmp_path / name):
            assert [side for side in ("real", "fake") if f"delta_rms_{side}" in line] == [*sides]
            for side in sides:
                assert 0.5 * size < line[f"delta_rms_{side}"] <= size * 1.0001


@pytest.mark.parametrize("name", ["terms", "pairs"])
def test_a_microbatch_changes_nothing(name: str, tmp_path: Path) -> None:
    """Neither gradients nor anchors: of one D step, since Adam makes whole steps of roundings of a gradient of zero."""
    found = []
    for size in (None, 2):
        trainer = run_of(name, tmp_path / str(size), microbatch=size)
        (z, _), (d, *_), _ = trainer.iteration.fill(3)
        assert d.turn % 2 == 0
        xf = trainer.netG(z[0]).detach()
        loss, info = trainer.iteration.steps.discriminator(d.reals, xf, step=6, draws=d.draws)
        (anchors,) = [state for state in trainer.iteration.steps.regularizers.to_checkpoint() if state]
        found.append(
            [loss, *(p.grad for p in trainer.netD.parameters()), *info.terms.values(), *anchors.values()]
        )
    assert len(found[0]) == 1 + 10 + 4 + 3
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-7)


def test_what_moves_reaches_optimizers_terms_and_the_average(tmp_path: Path) -> None:
    trainer = run_of("pairs", tmp_path, steps=4)
    halflife = math.log(0.5) / math.log(0.9)
    seen = []
    run = trainer.iteration.run

    def note(step: int) -> None:
        run(step)
        assert trainer.ema is not None
        group = trainer.optD.param_groups[0]
        gamma: Any = trainer.iteration.steps.regularizers.terms[1].weight
        seen.append((group["lr"], group["betas"][1], 2 * gamma.item(), trainer.ema.decay))

    trainer.iteration.run = note  # type: ignore[method-assign]
    trainer.train()
    for step, found in enumerate(seen):
        way = (1 - math.cos(math.pi * step / 4)) / 2
        decay = 0.5 ** (1 / (way * halflife)) if step else 0.0
        expected = (1e-3 - 9e-4 * way, 0.999 - 0.099 * way, 0.5 - 0.375 * way, decay)
        assert found == pytest.approx(expected)


# --- a loss of pairs -------------------------------------------------------------------------------------------------


class Pairs(nn.Module):
    """Logits beside another output, with labels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(3 * 8 * 8, 5)), nn.Tanh())
        self.head = nn.Linear(5, 1)
        self.of_label = nn.Embedding(4, 5)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x) + self.of_label(labels)
        return self.head(h), h


class PairsG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3 * 8 * 8)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return torch.tanh(self.linear(z) + labels[:, None] / 3).unflatten(1, (3, 8, 8))


@pytest.mark.parametrize("augment", ["none", "diffaug"])
def test_g_compares_its_fakes_with_reals(augment: str) -> None:
    """Its gradient is that of softplus(D(x_r) - D(x_f)) by hand, with their own labels and augmentations; D gets none,
    and its spectral norm moves once."""
    torch.manual_seed(0)
    G, D = PairsG(), fastdat.fuse_spectral_norm(Pairs())
    optimizers = [torch.optim.SGD(net.parameters(), 0.0) for net in (G, D)]
    config = TrainConfig(loss="rpgan", augment=augment, compile=False)
    steps = Steps(G, D, *optimizers, config)
    z, xr = torch.randn(7, 6), torch.rand(7, 3, 8, 8) * 2 - 1
    labels, of_reals = (torch.arange(7) % 4,), (torch.arange(7) % 3,)
    draws, of_real = ((torch.rand(7, DRAWS),) if augment != "none" else () for _ in range(2))
    once = copy.deepcopy(D)
    loss = steps.generator(z, labels, draws, Reals(xr, of_reals, of_real))
    found = [p.grad for p in G.parameters()]
    assert all(p.grad is None for p in D.parameters())

    def T(x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        return augmented(x, *draws, parse_policy(augment)) if draws else x

    once(xr, *of_reals)  # one power iteration
    for (name, ours), theirs in zip(D.named_buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    D.eval()
    real, fake = D(T(xr, of_real), *of_reals)[0], D(T(G(z, *labels), draws), *labels)[0]
    expected = nn.functional.softplus(real - fake).mean()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(found, list(torch.autograd.grad(expected, list(G.parameters()))))
    assert spectral_weights(dict(D.named_modules()))


def test_g_compares_with_the_last_reals_of_d(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = trainer_of(tiny("csngan-dat-cifar10", loss="rpgan", augment="color"), few_images, tmp_path)
    given: list[Reals] = []
    generator = trainer.iteration.steps.generator

    def note(z: Tensor, labels: Any, draws: Any, reals: Reals) -> Tensor:
        given.append(reals)
        return generator(z, labels, draws, reals)

    trainer.iteration.steps.generator = note  # type: ignore[method-assign, assignment]
    trainer.train()
    for step in range(4):
        *_, last = trainer.iteration.fill(step).discriminator
        assert_same(
            [given[step].images, *given[step].labels, *given[step].draws],
            [last.reals, *last.labels_real, *last.draws_real],
        )
    assert all(math.isfinite(line["loss_g"]) for line in read_stats(tmp_path))


@pytest.mark.slow
def test_terms_and_schedules_compile_to_one_graph_a_turn(
    tmp_path: Path, compile_counters: dict[str, Counter[str]]
) -> None:
    """Moving weights make no new graphs: D with and without the lazy term, G with and without gradients."""
    settings = {"regularizers": [{"name": "r1", "every": 2}], "cosine.regularizers": 0.1, "loss": "rpgan"}
    stats = []
    for compile in (False, True):
        config = tiny("mlp-dat-gaussians", compile=compile, log_every=1, n_dis=1, **settings)
        trainer_of(config, None, tmp_path / str(compile)).train()
        stats.append(read_stats(tmp_path / str(compile)))
    assert not compile_counters["graph_break"]
    assert compile_counters["stats"]["unique_graphs"] == 4
    assert ["term_r1" in line for line in stats[1]] == [True, False, True, False]
    for eager, compiled in zip(*stats, strict=True):
        for name in ("loss_d", "loss_g", *(["term_r1"] if "term_r1" in eager else [])):
            assert eager[name] == pytest.approx(compiled[name], rel=1e-3)


# --- with nets of one's own, and where the numbers go ----------------------------------------------------------------


def test_own_nets(few_images: ImageSet, tmp_path: Path) -> None:
    """A path in D, and R3GAN's loss."""
    config = TrainConfig().replace(
        OWN_NETS | {"loss": "rpgan", "regularizers": [{"name": "rfm", "path": "1"}, {"name": "r2"}]}
    )
    trainer, _ = own_trainer(few_images, tmp_path / "run", config)
    trainer.train()
    line = read_stats(tmp_path / "run")[-1]
    assert line["term_rfm"] > 0
    assert line["term_r2"] > 0


def test_a_path_in_d_is_found_behind_an_augmentation(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny("dcgan-rfm-cifar10", augment="color", ndf=4), few_images, tmp_path).train()
    assert all(line["term_rfm"] > 0 for line in read_stats(tmp_path))


def test_a_wrong_path_in_d_is_named(few_images: ImageSet, tmp_path: Path) -> None:
    config = TrainConfig().replace(OWN_NETS | {"regularizers": [{"name": "rfm", "path": "9"}]})
    with pytest.raises(
        ConfigError, match=r"rfm looks at '9' in D, which has no such .* There are: 0, 1, 2, 3, 4$"
    ):
        own_trainer(few_images, tmp_path / "run", config)
    named = tiny("dcgan-rfm-cifar10", augment="color", **{"regularizers.rfm.path": "convs.7"})
    with pytest.raises(
        ConfigError, match=r"rfm looks at 'convs.7' in D.* Did you mean convs.3.*There are: convs, "
    ):
        trainer_of(named, few_images, tmp_path / "named")


def test_points_cannot_be_augmented(tmp_path: Path) -> None:
    config = tiny("mlp-gaussians", regularizers=[{"name": "bcr"}])
    with pytest.raises(
        ConfigError, match="the regularizer bcr would change images, and gaussians has points"
    ):
        trainer_of(config, None, tmp_path)


def test_names_of_terms_belong_to_training(tmp_path: Path) -> None:
    trainer = trainer_of(
        tiny("mlp-gaussians", n_dis=1), None, tmp_path, callbacks=[lambda _: {"term_r1": 1.0}]
    )
    with pytest.raises(
        ConfigError, match="a callback may not return 'term_r1', a number that training records"
    ):
        trainer.train()
    assert tagged({"step": 1, "term_r1": 2.0, "term_r1_grad_norm": 3.0, "mine": 4.0}) == {
        "regularizers/r1": 2.0,
        "regularizers/r1_grad_norm": 3.0,
        "own/mine": 4.0,
    }
