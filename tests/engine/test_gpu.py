"""dat_step on a CUDA device: the same numbers, in every way of compiling, in bf16 and channels_last."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

import fastdat
from fastdat import DATConfig
from fastdat.nets import SNGANDiscriminator
from tests.compare import gradients, relative_error, rounding_bound
from tests.discriminators import batch, make

pytestmark = pytest.mark.gpu

STRONG = DATConfig(eps=30.0, delta_clip=0.3)
ORDERS = pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])


def cuda(x: object) -> object:
    return tuple(map(cuda, x)) if isinstance(x, tuple) else x.cuda()


@ORDERS
@pytest.mark.parametrize("compile", [False, True, "reduce-overhead"])
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("spectral", marks=pytest.mark.smoke),
        *("mlp", "spectral-hook", "batchnorm", "conditional", "two-heads"),
    ],
)
def test_as_exact_as_on_the_cpu(kind: str, compile: bool | str, second_order: bool) -> None:
    """fp32 on the device against the reference in fp64 on the CPU."""
    D, (xr, xf, args) = make(kind), batch(kind)
    config = replace(STRONG, second_order=second_order)
    ours = copy.deepcopy(D).float().cuda()
    fastdat.reference.dat_step(D, xr, xf, config, "gan", **args).backward()
    given = (xr.float().cuda(), xf.float().cuda(), config, "gan")
    args = {name: cuda(value) for name, value in args.items()}
    bound = rounding_bound(ours, *given, gradients(D), **args)
    loss, info = fastdat.dat_step(ours, *given, compile=compile, with_info=True, **args)
    loss.backward()
    assert relative_error(gradients(ours).cpu(), gradients(D)) <= bound
    assert info.xr_adv.is_cuda
    for name, buffer in D.named_buffers():
        torch.testing.assert_close(
            dict(ours.named_buffers())[name].cpu().to(buffer.dtype), buffer, rtol=1e-4, atol=1e-5
        )


@ORDERS
def test_bf16_channels_last_at_full_width(second_order: bool) -> None:
    """SNGAN-32 as it is trained: as close to fp32 as the eager reference under the same autocast, within a factor."""
    D = SNGANDiscriminator(32).cuda().to(memory_format=torch.channels_last)
    xr, xf = (torch.rand(2, 64, 3, 32, 32, device="cuda") * 2 - 1).unbind()
    xr, xf = (x.to(memory_format=torch.channels_last) for x in (xr, xf))
    config = DATConfig(second_order=second_order)
    found = {}
    for name in ("fp32", "reference", "compiled"):
        E = copy.deepcopy(D)
        step = fastdat.dat_step if name == "compiled" else fastdat.reference.dat_step
        with torch.autocast("cuda", torch.bfloat16, enabled=name != "fp32"):
            loss = step(E, xr, xf, config)
        loss.backward()
        found[name] = gradients(E)
    bound = relative_error(found["reference"], found["fp32"])
    assert relative_error(found["compiled"], found["fp32"]) <= 2 * bound < 0.5


@pytest.mark.parametrize("compile", [True, "reduce-overhead"])
def test_losses_outlive_the_next_step(compile: bool | str) -> None:
    """Replayed CUDA graphs write to the same memory each time; a loss kept for later must not change."""
    D = make("mlp")
    data = [batch("mlp")[:2] for _ in range(4)]

    def sum_of_gradients(step: Callable[..., Tensor], device: str, dtype: torch.dtype) -> Tensor:
        """All four losses first, their gradients afterwards."""
        net = copy.deepcopy(D).to(device, dtype)
        losses = [step(net, xr.to(device, dtype), xf.to(device, dtype), STRONG, "gan") for xr, xf in data]
        torch.stack(losses).sum().backward()
        return gradients(net).cpu()

    reference = fastdat.reference.dat_step
    exact = sum_of_gradients(reference, "cpu", torch.float64)
    bound = 3 * relative_error(sum_of_gradients(reference, "cuda", torch.float32), exact)
    found = sum_of_gradients(partial(fastdat.dat_step, compile=compile), "cuda", torch.float32)
    assert relative_error(found, exact) <= max(1e-5, bound)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_training_never_synchronises() -> None:
    """Neither the step, its info nor its backward waits for the device."""
    D = make("spectral", torch.float32).cuda()
    optimizer = torch.optim.Adam(D.parameters(), fused=True)
    xr, xf = (x.cuda() for x in batch("spectral", dtype=torch.float32)[:2])
    try:
        for i in range(4):
            torch.cuda.set_sync_debug_mode("error" if i > 1 else "default")  # the first steps compile
            loss, _ = fastdat.dat_step(D, xr, xf, STRONG, with_info=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_sample_on_the_wrong_device() -> None:
    D, (xr, xf, _) = make("mlp", torch.float32), batch("mlp", dtype=torch.float32)
    with pytest.raises(ValueError, match=r"one device: got cuda:0 and cpu"):
        fastdat.dat_step(D, xr.cuda(), xf)
    with pytest.raises(ValueError, match=r"D is on cpu .*and the samples on cuda:0"):
        fastdat.dat_step(D, xr.cuda(), xf.cuda())
