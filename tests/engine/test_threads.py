"""Steps in several threads at once give what the same steps give one after the other."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make

THREADS, STEPS = 4, 5
CONFIG = DATConfig(eps=30.0, delta_clip=0.3)


def at_once(*functions: Callable[[], object]) -> None:
    """Each function in a thread of its own; the first error is raised."""
    together = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            together.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def stepped(
    D: nn.Module, xr: Tensor, xf: Tensor, compile: bool, second_order: bool, **options: Any
) -> Callable[[], None]:
    config = DATConfig(eps=30.0, delta_clip=0.3, second_order=second_order)

    def run() -> None:
        for _ in range(STEPS):
            fastdat.dat_step(D, xr, xf, config, "gan", compile=compile, **options).backward()

    return run


MODES = pytest.mark.parametrize(
    ("compile", "second_order"),
    [(False, False), (False, True), pytest.param(True, False, marks=pytest.mark.slow), (True, True)],
    ids=["eager-first", "eager-second", "traced-first", "traced-second"],
)


@MODES
@pytest.mark.parametrize("kind", ["spectral", "batchnorm"])
def test_one_discriminator(kind: str, compile: bool, second_order: bool, only_traced: None) -> None:
    """Its gradients add up, and u, v and running statistics move once for each step."""
    D, (xr, xf, _) = make(kind), batch(kind)
    serial = copy.deepcopy(D)
    for _ in range(THREADS):
        stepped(serial, xr, xf, compile=False, second_order=second_order)()
    at_once(*[stepped(D, xr, xf, compile, second_order)] * THREADS)
    assert relative_error(gradients(D), gradients(serial)) < 1e-9
    torch.testing.assert_close(dict(D.named_buffers()), dict(serial.named_buffers()), rtol=1e-9, atol=1e-9)


@MODES
def test_discriminators_of_several_kinds(compile: bool, second_order: bool, only_traced: None) -> None:
    """Equal ones among them, which share a graph, and some whose parts run with a micro-batch."""
    kinds = ["spectral", "mlp", "conv", "spectral", "spectral-hook"]
    calls = [(make(kind), *batch(kind)[:2], {"microbatch": 3} if kind == "conv" else {}) for kind in kinds]
    serial = [copy.deepcopy(D) for D, *_ in calls]
    for D, (_, xr, xf, options) in zip(serial, calls, strict=True):
        stepped(D, xr, xf, False, second_order, **options)()
    at_once(*[stepped(D, xr, xf, compile, second_order, **options) for D, xr, xf, options in calls])
    for (D, *_), other in zip(calls, serial, strict=True):
        assert relative_error(gradients(D), gradients(other)) < 1e-9
        torch.testing.assert_close(dict(D.named_buffers()), dict(other.named_buffers()), rtol=1e-9, atol=1e-9)


def test_attention_has_its_second_derivative_while_other_threads_step() -> None:
    """PyTorch's switch for its kernels is one for all threads."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)[:, None] * torch.arange(1.0, 4.0, dtype=x.dtype)[:, None]
            return self.b(nn.functional.scaled_dot_product_attention(h, h, h).mean(1))

    Ds = [Attends().double() for _ in range(THREADS)]
    xr, xf, _ = batch("mlp")
    at_once(*[stepped(D, xr, xf, compile=False, second_order=i % 2 == 0) for i, D in enumerate(Ds)])
    assert torch.backends.cuda.flash_sdp_enabled()
    assert all(gradients(D).isfinite().all() for D in Ds)


def test_eager_steps_in_second_order_run_one_at_a_time() -> None:
    """Of two that overlap, the first would put the switch of attention back while the second runs, and the second
    leave it off.
    """
    paused, go_on = threading.Event(), threading.Event()

    class Paused(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if pausing:
                paused.set()
                assert go_on.wait(60)
            return super().forward(x)

    xr, xf, _ = batch("mlp", dtype=torch.float32)
    steps = [stepped(D, xr, xf, compile=False, second_order=True) for D in (Paused(2, 1), nn.Linear(2, 1))]
    pausing = False
    for step in steps:
        step()  # the first call of each, an inspection, takes the lock
    pausing = True

    threads = [threading.Thread(target=step) for step in steps]
    threads[0].start()
    assert paused.wait(60)
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_calls_under_autocast_and_without_keep_apart() -> None:
    D, (xr, xf, _) = make("conv", torch.float32), batch("conv", dtype=torch.float32)
    expected = fastdat.dat_step(D, xr, xf, CONFIG, compile=False).detach()
    losses: list[Tensor] = []

    def low() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(STEPS):
                fastdat.dat_step(D, xr, xf, CONFIG, compile=False)

    def full() -> None:
        losses.extend(fastdat.dat_step(D, xr, xf, CONFIG, compile=False).detach() for _ in range(STEPS))

    at_once(low, full, low)
    for loss in losses:
        assert torch.equal(loss, expected)
