"""Layers that join samples, with parts of a batch on several ranks: the numbers of one rank with all of it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastdat.nets import (
    ConditionalSNGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
    InfoMaxGANDiscriminator,
    SNGANGenerator,
    SSGANDiscriminator,
    share_batch,
)
from fastdat.nets.shared_batch import ALONE, JoinsSamples, Shared
from fastdat.nets.ssgan import rotate_quarters
from tests.ranks import run

ROWS = 12
"""Of the whole batch; 2, 3 and 4 divide it."""


def own(x: Tensor, rank: int, ranks: int) -> Tensor:
    return x.chunk(ranks)[rank]


def summed(x: Tensor) -> Tensor:
    total = x.clone()
    dist.all_reduce(total)
    return total


def unlike(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers whose rows have other means and scales: parts have statistics of their own."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x * torch.linspace(0.5, 3, shape[0]).double().view(-1, *[1] * (len(shape) - 1)) + x[:, :1]


def norms_and_inputs() -> list[tuple[nn.Module, Tensor]]:
    made: list[tuple[nn.Module, Tensor]] = [
        (nn.BatchNorm1d(3), unlike(ROWS, 3)),
        (nn.BatchNorm2d(3), unlike(ROWS, 3, 2, 4)),
        (nn.BatchNorm2d(3, affine=False, momentum=None), unlike(ROWS, 3, 2, 4)),
        (nn.BatchNorm2d(3, track_running_stats=False), unlike(ROWS, 3, 2, 4)),
        (nn.BatchNorm3d(2, momentum=0.3), unlike(ROWS, 2, 2, 1, 3)),
    ]
    for norm, _ in made:
        for i, p in enumerate(norm.double().parameters()):
            p.data = torch.linspace(0.3, 1.9, len(p)).double() - i
    return made


def _norms(rank: int, ranks: int) -> None:
    """Outputs, gradients, second derivatives and running statistics, over two passes."""
    for norm, x in norms_and_inputs():
        shared = share_batch(copy.deepcopy(norm))
        assert isinstance(shared, type(norm))
        assert list(shared.state_dict()) == list(norm.state_dict())
        weights = unlike(*x.shape, seed=1)
        for turn in range(2):
            of, whole_batch = {}, x * (1 + turn) - turn  # other statistics in each pass
            for name, module, rows in (
                ("one", norm, whole_batch),
                ("many", shared, own(whole_batch, rank, ranks)),
            ):
                rows = rows.clone().requires_grad_()
                out = module(rows)
                loss = (out.sin() * (weights if name == "one" else own(weights, rank, ranks))).sum()
                (first,) = torch.autograd.grad(loss, rows, create_graph=True)
                (second,) = torch.autograd.grad(first.square().sum(), rows, retain_graph=True)
                params = [
                    p.grad.clone() for p in module.parameters() if loss.backward(retain_graph=True) is None
                ]  # type: ignore[union-attr]
                module.zero_grad()
                of[name] = [out, first, second], params
            for whole, part in zip(of["one"][0], of["many"][0], strict=True):
                torch.testing.assert_close(part, own(whole, rank, ranks), rtol=1e-10, atol=1e-10)
            for whole, part in zip(of["one"][1], of["many"][1], strict=True):
                torch.testing.assert_close(summed(part), whole, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dict(shared.named_buffers()), dict(norm.named_buffers()))
        norm.eval(), shared.eval()
        if norm.running_mean is not None:  # else each rank evaluates with the statistics of its own samples
            torch.testing.assert_close(shared(own(x, rank, ranks)), own(norm(x), rank, ranks))


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.slow
def test_batch_norms(ranks: int, tmp_path: Path) -> None:
    run(ranks, tmp_path, _norms)


def _others(rank: int, ranks: int) -> None:
    """SyncBatchNorm, attributes that are called ``shared`` by chance, copies, and evaluation by one rank alone."""
    x = unlike(ROWS, 3, 2, 2)
    net = nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(3, track_running_stats=False)).double()
    plain = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)).double()
    net[0].by_chance = nn.Linear(1, 1)
    holder = nn.Module()
    holder.shared = nn.Embedding(2, 2)  # as in BigGAN's G
    flag = nn.Module()
    flag.shared = False
    share_batch(nn.ModuleList([net, holder, flag]))
    assert isinstance(holder.shared, nn.Embedding)
    assert flag.shared is False
    for _ in range(2):
        torch.testing.assert_close(net(own(x, rank, ranks)), own(plain(x), rank, ranks))
    again = pickle.loads(pickle.dumps(net))
    assert type(again[1]) is type(net[1])
    torch.testing.assert_close(again(own(x, rank, ranks)), own(plain(x), rank, ranks))
    if rank == 0:
        torch.testing.assert_close(net.eval()(x), plain.eval()(x), check_dtype=True, rtol=1, atol=10)


@pytest.mark.slow
def test_other_modules(tmp_path: Path) -> None:
    run(2, tmp_path, _others)


def test_without_other_processes() -> None:
    with pytest.raises(ValueError, match="is not initialized; call init_process_group"):
        share_batch(nn.BatchNorm1d(2))


def _compiled(rank: int, ranks: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)).double()
    shared = share_batch(copy.deepcopy(net))
    x = unlike(ROWS, 3)
    torch.compile(shared, fullgraph=True)(own(x, rank, ranks)).square().mean().backward()
    net(x).square().mean().backward()
    for whole, part in zip(net.parameters(), shared.parameters(), strict=True):
        assert part.grad is not None
        torch.testing.assert_close(summed(part.grad) / ranks, whole.grad, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(dict(shared.named_buffers()), dict(net.named_buffers()))


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    run(2, tmp_path, _compiled)


def _compare(
    net: nn.Module, inputs: tuple[Tensor, ...], loss: Callable[..., Tensor], rank: int, ranks: int
) -> None:
    """A loss that is a mean over samples, its gradients averaged over ranks, and the buffers that it moved."""
    net = net.double()
    shared = share_batch(copy.deepcopy(net))
    parts = tuple(own(x, rank, ranks) for x in inputs)
    expected, here = loss(net, *inputs), loss(shared, *parts)
    expected.backward()
    here.backward()
    torch.testing.assert_close(summed(here.detach()) / ranks, expected.detach())
    for (name, whole), part in zip(net.named_parameters(), shared.parameters(), strict=True):
        if whole.grad is not None:
            assert part.grad is not None
            mean = summed(part.grad) / ranks
            torch.testing.assert_close(mean, whole.grad, rtol=1e-8, atol=1e-11, msg=name)
    torch.testing.assert_close(dict(shared.named_buffers()), dict(net.named_buffers()))


def _families(rank: int, ranks: int) -> None:
    torch.manual_seed(0)
    z, labels, images = unlike(ROWS, 8), torch.arange(ROWS) % 3, unlike(ROWS, 3, 32, 32, seed=2).tanh()
    squares = unlike(ROWS, 3, 32, 32, seed=3)
    slices: Any = dist.get_rank() * ROWS // ranks, ROWS // ranks

    def of_G(G: nn.Module, z: Tensor, *labels: Tensor) -> Tensor:
        fakes = G(z, *labels)
        there = squares.narrow(0, *slices) if len(fakes) < ROWS else squares
        return (fakes * there).sum((1, 2, 3)).square().mean()

    _compare(SNGANGenerator(32, 16, 8), (z,), of_G, rank, ranks)
    _compare(DCGANGenerator(32, 8, 8), (z,), of_G, rank, ranks)
    _compare(ConditionalSNGANGenerator(32, 3, 16, 8), (z, labels), of_G, rank, ranks)
    _compare(DCGANDiscriminator(32, 8), (images,), lambda D, x: D(x).sin().mean(), rank, ranks)
    for kind in (SSGANDiscriminator, InfoMaxGANDiscriminator):
        _compare(kind(32, 8), (images,), lambda D, x: D.auxiliary_loss(x), rank, ranks)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_families(ranks: int, tmp_path: Path) -> None:
    run(ranks, tmp_path, _families)


@pytest.mark.parametrize("count", [4, 6, 10])
def test_rotations_are_those_of_the_whole_batch(count: int) -> None:
    x = unlike(count, 1, 3, 3)
    whole, labels = rotate_quarters(x)
    half = count // 2
    parts = [rotate_quarters(x[i * half : (i + 1) * half], Shared(None, i, 2)) for i in (0, 1)]
    assert torch.equal(torch.cat([part[0] for part in parts]), whole)
    assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_families_that_join_samples_say_so() -> None:
    assert SSGANDiscriminator(32, 8).shared == InfoMaxGANDiscriminator(32, 8).shared == ALONE
    assert isinstance(SSGANDiscriminator(32, 8), JoinsSamples)
    assert not isinstance(SNGANGenerator(32, 8), JoinsSamples)
