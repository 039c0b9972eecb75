"""Training on several ranks: N ranks with b samples each give the run of one rank with N * b."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdat.regularizers.term_registry import TERMS
from fastdat.training import TrainConfig, Trainer, preset
from fastdat.training.display import Nothing
from fastdat.training.models import build_nets
from fastdat.training.train_config import MAKING
from fastdat.util.ranks import Ranks
from tests.ranks import run
from tests.training.runs import latest, read_stats, without_times

STEPS = 20
BATCH = 12
SETTINGS: dict[str, Any] = {
    "ngf": 8,
    "ndf": 8,
    "nz": 8,
    "batch_size": BATCH,
    "n_dis": 2,
    "steps": STEPS,
    "lr": 1e-3,
    "log_every": 10,
    "sample_every": STEPS,
    "samples": 4,
    "ema": 0.9,
    "compile": False,
    "device": "cpu",
    "precision": "fp32",
    "logger": "none",
    "eval.every": None,
    "checkpoints.every": STEPS,
}


IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "sngan": ("sngan-dat-cifar10", {}),
    "sngan second order": ("sngan-dat-cifar10", {"dat.second_order": True}),
    "ssgan": ("ssgan-dat-cifar10", {}),
    "ssgan second order": ("ssgan-dat-cifar10", {"dat.second_order": True}),
    "infomaxgan": ("infomaxgan-dat-cifar10", {}),
    "infomaxgan second order": ("infomaxgan-dat-cifar10", {"dat.second_order": True}),
    "dcgan": ("dcgan-dat-cifar10", {}),
    "dcgan second order": ("dcgan-dat-cifar10", {"dat.second_order": True}),
    "conditional": ("csngan-dat-cifar10", {"flip": False}),
    "r3gan": ("r3gan-dat-cifar10", {"cosine": {}}),
    "baseline": ("sngan-cifar10", {}),
    "augmented": ("sngan-dat-cifar10", {"augment": "color,translation"}),
    "consistency": ("sngan-dat-cifar10", {"regularizers": [{"name": "cr"}, {"name": "bcr"}]}),
    "features": ("sngan-dat-cifar10", {"regularizers": [{"name": "rfm", "path": "blocks.1"}]}),
}
"""On images: every family, in both orders."""
POINTS: dict[str, dict[str, Any]] = {
    "in parts": {"microbatch": 1},
    "second order in parts": {"microbatch": 3, "dat.second_order": True},
    "divisor of the batch": {"dat.eps_batch": None, "dat.steps": 2},
    "eq10 by sample": {"dat.seed": "eq10", "dat.reduction": "sample", "loss": "lsgan"},
    "G attacked": {"dat_generator": "second_order"},
    "asgan": {"attack": {"name": "asgan", "eps": 0.125}},
    "robgan": {"attack": {"name": "robgan", "steps": 2}},
    "penalties": {
        "regularizers": [{"name": "gp", "every": 2}, {"name": "r1", "every": 3}, {"name": "dragan"}]
    },
    "penalties in parts": {
        "microbatch": 2,
        "regularizers": [{"name": "lp"}, {"name": "r2"}, {"name": "0gp"}],
    },
    "whole batch": {"regularizers": [{"name": "lecam"}, {"name": "diggan"}, {"name": "maxgp"}]},
    "whole batch in parts": {
        "microbatch": 1,
        "regularizers": [{"name": "lecam"}, {"name": "diggan"}, {"name": "maxgp"}],
    },
    "differences": {"regularizers": [{"name": "alp"}, {"name": "ar", "of": "output"}]},
    "approximations": {"regularizers": [{"name": "ar1"}, {"name": "ar2"}]},
    "pairs": {
        "loss": "rpgan",
        "regularizers": [{"name": "gradient_penalty", "at": "real", "norm": "two-sided"}],
    },
}
"""On points in a plane: settings of the attack, micro-batches, every regularizer."""


class InDouble(nn.Module):
    """A net in double precision on inputs of any precision, so that rounding is far below what is compared."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        made: Tensor = self.net(z.double(), *labels)
        return made


class Reals:
    """This rank's part of batches whose rows have different means, so that no part is like the whole."""

    def __init__(self, ranks: Ranks, shape: tuple[int, ...], bound: float) -> None:
        self._ranks, self._shape, self._bound = ranks, shape, bound

    def batch(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(BATCH, *self._shape, dtype=torch.float64, generator=generator)
        shift = torch.linspace(-1, 1, BATCH).double().view(-1, *[1] * len(self._shape))
        return self._ranks.part((0.4 * x + shift).clamp(-self._bound, self._bound))

    def labels(self, step: int) -> Tensor:
        return self._ranks.part((torch.arange(BATCH) + step) % 10)


def trainer_in_double(name: str, changes: dict[str, Any], outdir: Path) -> Trainer:
    config = preset(name).replace(SETTINGS | changes)
    if config.model != "mlp":
        config = config.replace({"n_dis": 1})  # nets on images take their time
    classes = 10 if config.model == "csngan" else 0
    netG, netD = build_nets(config)
    G, D = InDouble(netG), netD.double()
    optimizers = [torch.optim.Adam(net.parameters(), config.lr, config.betas) for net in (G, D)]
    shape = (2,) if config.model == "mlp" else (3, 32, 32)
    reals = Reals(Ranks.now(), shape, 4 if config.model == "mlp" else 1)
    default = TrainConfig()
    own = config.replace({key: getattr(default, key) for key in MAKING})
    return Trainer(G, D, *optimizers, reals, own, outdir, classes=classes, display=Nothing())


def _train(cases: dict[str, tuple[str, dict[str, Any]]], folder: Path, rank: int, ranks: int) -> None:
    for case, (name, changes) in cases.items():
        trainer = trainer_in_double(name, changes, folder / case)
        trainer.train()
        # To the last bit, although no buffer is ever sent: u and v of spectral norm, running statistics.
        tensors = [*trainer.netG.state_dict().values(), *trainer.netD.state_dict().values()]
        for other in trainer.ranks.all_of(tensors):
            assert all(map(torch.equal, tensors, other)), case


def assert_close(one: Any, many: Any, where: str) -> None:
    """Equal to 1e-6, tensors and numbers alike."""
    if isinstance(one, dict):
        assert list(one) == list(many), where
        for key in one:
            assert_close(one[key], many[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(many), where
        for i, (a, b) in enumerate(zip(one, many, strict=True)):
            assert_close(a, b, f"{where}[{i}]")
    elif isinstance(one, Tensor):
        torch.testing.assert_close(many, one, rtol=1e-6, atol=1e-6, msg=lambda text: f"{where}: {text}")
    else:
        assert many == pytest.approx(one, rel=1e-6, abs=1e-6) if isinstance(one, float) else many == one, (
            where
        )


#: What a run measures of each part alone and then averages: a root of a mean of squares is no mean.
_OF_PARTS = {"delta_rms_real", "delta_rms_fake"}


def compare(cases: dict[str, tuple[str, dict[str, Any]]], ranks: int, folder: Path, **on_ranks: Any) -> None:
    """Train each case here, alone, and on ``ranks`` ranks, there with further settings."""
    _train(cases, folder / "one", 0, 1)
    there = {case: (name, changes | on_ranks) for case, (name, changes) in cases.items()}
    run(ranks, folder, partial(_train, there, folder / "many"))
    for case in cases:
        states = [latest(folder / kind / case) for kind in ("one", "many")]
        for key in ("step", "netG", "netD", "ema", "optG", "optD", "regularizers"):
            assert_close(*(state[key] for state in states), f"{case}: {key}")
        lines = [without_times(read_stats(folder / kind / case)) for kind in ("one", "many")]
        for one, many in zip(*lines, strict=True):
            for key in one.keys() - _OF_PARTS:  # six digits are written
                assert many[key] == pytest.approx(one[key], rel=2e-5, abs=1e-6), f"{case}: {key}"


@pytest.mark.slow
def test_families(tmp_path: Path) -> None:
    compare(IMAGES, 2, tmp_path)


@pytest.mark.slow
def test_settings_and_regularizers(tmp_path: Path) -> None:
    compare({case: ("mlp-dat-gaussians", changes) for case, changes in POINTS.items()}, 4, tmp_path)


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    """Batch norm in both nets: its exchanges are part of the compiled steps of D and G."""
    few = {"steps": 3, "log_every": 3, "checkpoints.every": 3, "sample_every": 3, "ngf": 4, "ndf": 4}
    compare({"dcgan": ("dcgan-dat-cifar10", few)}, 2, tmp_path, compile=True)


def test_every_regularizer_is_here() -> None:
    named = [
        changes.get("regularizers", []) for changes in [*POINTS.values(), *(c for _, c in IMAGES.values())]
    ]
    assert {term["name"] for terms in named for term in terms} == TERMS.keys() - {
        "san"
    }  # it needs a D of its own
