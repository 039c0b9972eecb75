"""Takes the host's time of repeated calls by part: clocks around the stages of ``dat_step``, none inside them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch._inductor.output_code import CompiledFxGraph

import fastdat
import fastdat.engine.step as step_module
from bench.host.host_parts import HostCost, Marks, Span
from bench.kernel.spectral_norm import NORM_EPS, SpectralNorm, shapes_at_32
from bench.timing.interleaved import Timing
from fastdat import DATConfig
from fastdat.engine.compile import Engine
from fastdat.engine.prepared import prepared_step
from fastdat.engine.structure import Snapshot

BLOCK = 100
"""Calls of one kind in a row: enough to warm the caches that the kind before has filled."""
WARMUP = 20
"""Calls at the start of a block that are not kept."""

Found = TypeVar("Found")


@contextmanager
def alone() -> Iterator[None]:
    """One thread of torch, and no garbage collection."""
    threads, collects = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collects:
            gc.enable()


def finish(device: torch.device) -> None:
    """Wait until the device has nothing left to do, so that its queue never makes the host wait."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- the step ------------------------------------------------------------------------------------------------------


@dataclass
class Replay:
    """Compiled graphs that run once: later calls return the results of the first, without any kernel."""

    span: Span = (0.0, 0.0)
    """Of the last call."""
    _results: dict[int, tuple[CompiledFxGraph, list[Any]]] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator[None]:
        run = CompiledFxGraph.__call__

        def call(graph: CompiledFxGraph, inputs: Sequence[Any]) -> Any:
            start = time.perf_counter()
            kept = self._results.get(id(graph))
            if kept is None:
                results = list(run(graph, inputs))
                self._results[id(graph)] = (graph, results)
            else:  # new tensors each time, as the graph returns them, on the memory of the first
                results = [x.detach() if isinstance(x, Tensor) else x for x in kept[1]]
            self.span = (start, time.perf_counter())
            return results

        with mock.patch.object(CompiledFxGraph, "__call__", call):
            yield


class Clock:
    """A function, timed: ``span`` is when its last call ran, in seconds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.span: Span = (0.0, 0.0)

        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            self.span = (start, time.perf_counter())
            return result

        self.timed = timed  # a plain function, which a class binds as a method


class StepProbe:
    """A step of one D on one batch, whose calls are taken apart.

    Args:
        D: compiled for this config already, or at the first ``call``.
        xr, xf: samples (m, ...).
        config: of the step.
    """

    def __init__(self, D: nn.Module, xr: Tensor, xf: Tensor, config: DATConfig) -> None:
        self._D, self._xr, self._xf, self._config = D, xr, xf, config
        self._replay = Replay()
        self._params = list(D.parameters())
        fastdat.dat_step(D, xr, xf, config).backward()
        self._grads = [p.grad for p in self._params if p.grad is not None]

    @contextmanager
    def active(self) -> Iterator[Callable[[], Marks]]:
        """Within it the function that it gives makes one call. Its clocks add some 6 us to ``dat_step``."""
        prepared = Clock(prepared_step)
        unchanged, call = Clock(Snapshot.holds), Clock(Engine.run_again)
        with ExitStack() as stack:
            stack.enter_context(self._replay.active())
            for place, name, clock in (
                (step_module, "prepared_step", prepared),
                (Snapshot, "holds", unchanged),
                (Engine, "run_again", call),
            ):
                stack.enter_context(mock.patch.object(place, name, clock.timed))

            def once() -> Marks:
                self._drop_gradients()
                start = time.perf_counter()
                loss = fastdat.dat_step(self._D, self._xr, self._xf, self._config)
                end = time.perf_counter()
                loss.backward()
                backward = (end, time.perf_counter())
                return Marks(
                    (start, end), prepared.span, unchanged.span, call.span, self._replay.span, backward
                )

            yield once

    def floor(self) -> float:
        """Seconds of a backward pass that brings a ready gradient to each parameter, and does nothing else."""
        self._drop_gradients()
        given = [grad.detach() for grad in self._grads]
        loss: Tensor = _Given.apply(given, *self._params)  # type: ignore[no-untyped-call]
        del given  # as the only owner of a gradient, torch puts it into ``.grad`` as it is
        start = time.perf_counter()
        loss.backward()
        return time.perf_counter() - start

    def _drop_gradients(self) -> None:
        for p in self._params:
            p.grad = None


class _Given(torch.autograd.Function):
    """A loss whose gradients are those given."""

    @staticmethod
    def forward(ctx: Any, given: list[Tensor], *params: Tensor) -> Tensor:
        ctx.given = given
        return params[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        given, ctx.given = ctx.given, None
        return None, *given


def measure_steps(probes: dict[str, StepProbe], device: torch.device, rounds: int) -> list[HostCost]:
    """``BLOCK`` calls of each step a round, and as many of its floor, in turns with the other steps."""
    calls: dict[str, list[Marks]] = {name: [] for name in probes}
    floors: dict[str, list[float]] = {name: [] for name in probes}
    with alone():
        for _ in range(rounds):
            for name, probe in probes.items():
                with probe.active() as once:
                    calls[name] += _block(once, device)
                floors[name] += _block(probe.floor, device)
    return [HostCost.of_calls(name, calls[name], floors[name]) for name in probes]


def _block(call: Callable[[], Found], device: torch.device) -> list[Found]:
    found = []
    for i in range(WARMUP + BLOCK):
        result = call()
        finish(device)
        if i >= WARMUP:
            found.append(result)
    return found


# --- operators -----------------------------------------------------------------------------------------------------


def measure_operators(device: torch.device, rounds: int) -> HostCost:
    """``torch.ops.fastdat.spectral_norm`` and its backward, of all weights of SNGAN-32 at the paper's width, fp32."""
    calls = spectral_norm_calls(device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with alone(), torch.no_grad():
        for _ in range(rounds):
            for name, call in calls.items():
                seconds[name] += _block(_timed(call), device)
    return HostCost("spectral_norm", {name: Timing(times) for name, times in seconds.items()})


def spectral_norm_calls(device: torch.device) -> dict[str, Callable[[], Any]]:
    """Each call of the operators, without autograd."""
    case = SpectralNorm("sngan32", shapes_at_32(), backward=True, device=device)
    weights, us, vs, grads = case.inputs(0)
    weights = [w.detach() for w in weights]
    forward = torch.ops.fastdat.spectral_norm.default
    backward = torch.ops.fastdat.spectral_norm_backward.default
    _, state, sigma = forward(weights, us, vs, 1, NORM_EPS, True, torch.float32)
    no_gradient = torch.zeros_like(sigma)
    return {
        "forward": lambda: forward(weights, us, vs, 1, NORM_EPS, True, torch.float32),
        "backward": lambda: backward(grads, weights, state, sigma, no_gradient),
    }


def _timed(call: Callable[[], Any]) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return once
