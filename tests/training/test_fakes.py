"""Fakes of all D steps in one pass of G: the numbers of one pass a step, where G allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.nets import ConditionalSNGANGenerator, SNGANGenerator
from fastdat.training import TrainConfig, fakes
from fastdat.training.fakes import Fakes
from fastdat.util.errors import ConfigError
from tests.training.runs import latest, read_log, read_stats, resumable, trainer_of

EAGER = TrainConfig(compile=False)


def made(net: nn.Module, at_once: bool, z: Tensor, *labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Fakes of each step, and the net's buffers after them."""
    with torch.no_grad():
        maker = Fakes(net, EAGER.replace({"fakes_at_once": at_once}))
        found = list(maker.of_steps(z, labels))
        assert maker.at_once(z, labels) == at_once
    return found, [buffer.clone() for buffer in net.buffers()]


@pytest.mark.parametrize("classes", [0, 3])
def test_one_pass_equals_one_a_step(classes: int) -> None:
    """Three steps of four samples, each with statistics of its own; in fp64."""
    z = torch.randn(3, 4, 8, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    labels = (torch.randint(classes, (3, 4)),) if classes else ()
    found: list[tuple[list[Tensor], list[Tensor]]] = []
    for at_once in (False, True):
        torch.manual_seed(0)
        net: nn.Module = SNGANGenerator(32, ngf=4, nz=8)
        if classes:
            net = ConditionalSNGANGenerator(32, classes, ngf=4, nz=8)
        found.append(made(net.double(), at_once, z, *labels))
    (separate, buffers), (together, buffers_after) = found
    assert [x.shape for x in together] == [(4, 3, 32, 32)] * 3
    torch.testing.assert_close(together, separate, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(buffers_after, buffers, rtol=1e-11, atol=1e-12)


class Joining(nn.Module):
    """Its samples know of one another."""

    def forward(self, z: Tensor) -> Tensor:
        return z - z.mean(0)


def test_a_g_that_joins_samples() -> None:
    z = torch.randn(2, 3, 5)
    maker = Fakes(Joining(), EAGER.replace({"fakes_at_once": True}))
    with pytest.raises(ConfigError, match=r"but the net Joining itself joins.*Use fakes_at_once=false"):
        maker.at_once(z, ())
    expected = [z[0] - z[0].mean(0), z[1] - z[1].mean(0)]
    found, _ = made(Joining(), False, z)
    torch.testing.assert_close(found, expected)


def on_gpu(free: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """How Fakes decide for latents on a GPU with as many free bytes."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    monkeypatch.setattr(fakes, "on_gpu", lambda z: True)
    monkeypatch.setattr(fakes, "activation_bytes", lambda net, *inputs: 1000)

    def decide(net: nn.Module, count: int = 5, notes: Any = None, **changes: Any) -> bool:
        maker = Fakes(net, TrainConfig().replace(changes), notes.append if notes is not None else fakes.quiet)
        return maker.at_once(torch.randn(count, 10, 5), ())

    return decide


def test_what_auto_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 samples take 50,000 bytes here, a quarter of 200,000."""
    decide, notes = on_gpu(200_000, monkeypatch), list[str]()
    net = nn.Linear(5, 7)
    assert decide(net)
    assert not decide(net, count=1), "nothing to join"
    assert not decide(net, compile=False)
    assert not decide(net, fakes_at_once=False)
    assert not decide(Joining(), notes=notes)
    assert "G makes the fakes of each D step in a pass of its own: the net Joining" in notes[0]
    assert not on_gpu(199_999, monkeypatch)(net, notes=notes)
    assert "all at once would take up to 0.0 GiB, and 0.0 GiB are free" in notes[1]
    monkeypatch.undo()
    assert not Fakes(net, TrainConfig()).at_once(torch.randn(5, 10, 5), ()), "on the CPU"


def test_bf16_becomes_as_wide_as_the_reals() -> None:
    maker = Fakes(nn.Linear(5, 7), EAGER)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = maker.of_steps(torch.randn(1, 4, 5), ())
    assert found.dtype == torch.float32
    assert torch.equal(found, found.bfloat16().float())


def test_a_run(few_images: ImageSet, tmp_path: Path) -> None:
    """The first D step sees the same fakes; eager mode gives the same numbers to the last bit, all along."""
    for at_once in (False, True):
        config = resumable("csngan-dat-cifar10", fakes_at_once=at_once, n_dis=3)
        trainer_of(config, few_images, tmp_path / str(at_once)).train()
    a, b = (latest(tmp_path / str(at_once)) for at_once in (False, True))
    for net in ("netG", "netD", "ema"):
        for key, value in a[net].items():
            torch.testing.assert_close(b[net][key], value, rtol=1e-4, atol=1e-6, msg=f"{net}.{key}")
    first, second = (read_stats(tmp_path / str(at_once))[0]["loss_d"] for at_once in (False, True))
    assert first == pytest.approx(second, rel=1e-5)
    assert "pass of its own" not in read_log(tmp_path / "True")
