"""D under DistributedDataParallel: several processes with parts of a batch do what one does with all of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import fastdat
from fastdat import DATConfig
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make
from tests.ranks import run

SAMPLES = 12
CASES = {
    "default": DATConfig(eps=30.0),
    "sample": DATConfig(eps=30.0, reduction="sample", seed="eq10"),
    "global-divisor-steps": DATConfig(eps=8.0, eps_batch=None, steps=2, second_order=True),
    "datt-per_forward": DATConfig(
        eps=30.0, clean_weight=1.0, power_iterations="per_forward", second_order=True
    ),
    "no-attack": DATConfig(real=False, fake=False),
}


def _both(kind: str, rank: int, ranks: int, config: DATConfig, **arguments: object) -> None:
    """The same step on all of the batch in one process, and on a part in each."""
    torch.manual_seed(0)
    D, (xr, xf, _) = make(kind), batch(kind, m=SAMPLES)
    # Shards of unlike logits: local means would give other targets and signs than the global ones.
    order = D.eval()(xr).flatten().argsort()
    xr, D = xr[order], D.train()
    alone, shared = copy.deepcopy(D), DistributedDataParallel(copy.deepcopy(D))
    expected, expected_info = fastdat.reference.dat_step(alone, xr, xf, config, "gan", with_info=True)
    expected.backward()

    part = slice(rank * SAMPLES // ranks, (rank + 1) * SAMPLES // ranks)
    loss, info = fastdat.dat_step(shared, xr[part], xf[part], config, "gan", with_info=True, **arguments)
    loss.backward()
    assert relative_error(gradients(shared.module), gradients(alone)) <= 1e-9
    torch.testing.assert_close(info.xr_adv, expected_info.xr_adv[part])
    torch.testing.assert_close(info.xf_adv, expected_info.xf_adv[part])
    total = loss.detach().clone()
    dist.all_reduce(total)
    torch.testing.assert_close(total / ranks, expected.detach())
    torch.testing.assert_close(dict(shared.module.named_buffers()), dict(alone.named_buffers()))


def _eager_cases(rank: int, ranks: int) -> None:
    for config in CASES.values():
        for size in (None, 2):
            _both("spectral", rank, ranks, config, compile=False, microbatch=size)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_with_parts_equal_one_with_the_whole(ranks: int, tmp_path: Path) -> None:
    run(ranks, tmp_path, _eager_cases)


def _compiled_case(rank: int, ranks: int) -> None:
    _both("spectral", rank, ranks, replace(CASES["global-divisor-steps"], steps=1, eps=30.0), compile=True)


@pytest.mark.slow
def test_compiled(tmp_path: Path) -> None:
    run(2, tmp_path, _compiled_case)


def _accumulates(rank: int, ranks: int) -> None:
    """Under no_sync gradients stay local until the synchronised backward, as with any DDP loss."""
    torch.manual_seed(rank)
    D = make("mlp")
    shared = DistributedDataParallel(copy.deepcopy(D))
    config = DATConfig(real=False, fake=False)
    local = copy.deepcopy(shared.module)
    for i in range(2):
        xr, xf, _ = batch("mlp")
        fastdat.dat_step(local, xr, xf, config, "gan", compile=False).backward()
        if i == 0:
            with shared.no_sync():
                fastdat.dat_step(shared, xr, xf, config, "gan", compile=False).backward()
            torch.testing.assert_close(gradients(shared.module), gradients(local))
        else:
            fastdat.dat_step(shared, xr, xf, config, "gan", compile=False).backward()
    mean = gradients(local)
    dist.all_reduce(mean)
    torch.testing.assert_close(gradients(shared.module), mean / ranks)
    assert isinstance(shared.module, torch.nn.Sequential)  # the stand-in is gone


def test_gradient_accumulation(tmp_path: Path) -> None:
    run(2, tmp_path, _accumulates)


def _one_sample_a_rank(rank: int, ranks: int) -> None:
    xr, xf, _ = batch("mlp", m=1)
    D = DistributedDataParallel(make("mlp"))
    fastdat.dat_step(D, xr, xf, compile=False).backward()
    sync = DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1).double()))
    sync.module.append(torch.nn.SyncBatchNorm(1).double())
    with pytest.raises(NotImplementedError, match="'2' is a SyncBatchNorm"):
        fastdat.dat_step(sync, xr, xf, compile=False)


def test_small_parts_and_refusals(tmp_path: Path) -> None:
    run(2, tmp_path, _one_sample_a_rank)
