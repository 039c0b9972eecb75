"""``fastdat.load``: the nets of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fastdat
from fastdat.data import ImageSet
from fastdat.training import ConfigError, RunFolderError, Trainer
from tests.training.runs import OWN_NETS, silent, tiny, trainer_of


@pytest.fixture
def trainer(few_images: ImageSet, tmp_path: Path) -> Trainer:
    """A finished trainer with a running average; its run folder is tmp_path/run."""
    trainer = trainer_of(tiny("ssgan-dat-cifar10", ema=0.5), few_images, tmp_path / "run")
    trainer.train()
    return trainer


@pytest.mark.parametrize("of", ["run", "run/checkpoints/latest.pt"])
def test_the_nets_compute_what_the_trained_ones_do(of: str, trainer: Trainer, tmp_path: Path) -> None:
    G, D = fastdat.load(tmp_path / of)
    z, images = torch.randn(3, 8), torch.randn(2, 3, 32, 32)
    assert trainer.ema is not None
    assert not G.training
    assert not D.training
    assert torch.equal(G(z), trainer.ema.net.eval()(z))
    torch.testing.assert_close(D(images), trainer.netD.eval()(images), rtol=0, atol=2e-6)
    plain, _ = fastdat.load(tmp_path / of, ema=False)
    assert torch.equal(plain(z), trainer.netG.eval()(z))


def test_the_nets_can_be_trained_further(trainer: Trainer, tmp_path: Path) -> None:
    G, D = fastdat.load(str(tmp_path / "run"))
    xf = G.train()(torch.randn(4, 8))
    fastdat.dat_step(D.train(), torch.rand(4, 3, 32, 32), xf.detach(), compile=False).backward()
    xf.sum().backward()
    assert all(p.grad is not None for p in [*G.parameters(), *D.parameters()])


def test_what_cannot_be_loaded(trainer: Trainer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunFolderError, match=r"there is no checkpoint step-000009\. Undamaged in"):
        fastdat.load(run, "step-000009")
    with pytest.raises(
        RunFolderError, match=r"latest\.pt is a checkpoint itself; to take best, give its run"
    ):
        fastdat.load(run / "checkpoints" / "latest.pt", "best")
    with pytest.raises(ConfigError, match="device=cuda, but PyTorch sees no GPU"):
        fastdat.load(run, device="cuda")
    with pytest.raises(RunFolderError, match="is no run folder"):
        fastdat.load(tmp_path)


def test_settings_of_another_version(trainer: Trainer, tmp_path: Path) -> None:
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text() + "tensorboard: true\n")
    with pytest.raises(
        RunFolderError, match=r"config\.yaml was written by another version .*: unknown setting tensorboard"
    ):
        fastdat.load(tmp_path / "run")


def test_nets_of_the_users_own_are_theirs_to_build(few_images: ImageSet, tmp_path: Path) -> None:
    netG = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
    netD = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    optimizers = {
        f"opt{name}": torch.optim.Adam(net.parameters(), 1e-3) for name, net in (("G", netG), ("D", netD))
    }
    Trainer(
        netG, netD, **optimizers, batches=few_images, outdir=tmp_path, display=silent(), **OWN_NETS
    ).train()
    with pytest.raises(RunFolderError, match=r'nets of your own.* holds under "netG", or "ema", and "netD"'):
        fastdat.load(tmp_path)
