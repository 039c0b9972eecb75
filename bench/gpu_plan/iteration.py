"""The launches of a whole training iteration: fakes, D's steps, G's step, optimizers, average, measurements.

Call ``pretended_gpu.pretend()`` before importing this. ``fastdat.training`` itself runs, on nets and images that have a
shape and no memory: what is compiled, and what is not, launches as in a run. The first iterations compile; then one is
recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor.codecache import PyCodeCache
from torch._subclasses import FakeTensorMode

from bench.gpu_plan.launches import Launch
from bench.gpu_plan.recorder import REPLACEMENTS_OF_C, Recorder, recording_kernels
from bench.gpu_plan.without_memory import fresh_compilation, inspection_replaced_by, move_to, traits_of
from fastdat.data.sampler import TrainSampler
from fastdat.engine.spectral.fused import fuse_spectral_norm
from fastdat.training.build import nets_on
from fastdat.training.ema import EMA
from fastdat.training.fakes import Fakes
from fastdat.training.iteration import Iteration
from fastdat.training.networks import Networks
from fastdat.training.regularization import attack_of
from fastdat.training.state import RunState
from fastdat.training.steps import Steps
from fastdat.training.train_config import TrainConfig

DEVICE = torch.device("cuda", 0)

REALS, FAKES, D_STEPS, ADAM_D = "reals", "fakes for D", "D's steps", "Adam of D"
G_STEP, ADAM_G, AVERAGE, MEANS = "G's step", "Adam of G", "average of G", "measurements"
"""The parts of an iteration."""

WARM_UP = 2
"""Iterations before the one that is recorded. The first one compiles, and makes the states of the optimizers; the
second one finds them, as all later ones do."""


@dataclass(frozen=True)
class PlannedIteration:
    """One iteration."""

    launches: list[Launch]
    """In order, each with its part."""
    code: str
    """Sources of all compiled functions that it runs, one after the other."""


def plan_iteration(config: TrainConfig) -> PlannedIteration:
    """The iteration of a run with these settings, whose nets are SNGAN's and whose images lie on the device.

    Raises:
        RuntimeError: something was compiled in the iteration that was recorded.
    """
    traits = traits_of(config.resolution, attack_of(config))  # type: ignore[arg-type]  # DAT's, or none
    nets = nets_on(config, torch.device("cpu"))
    recorder, compiled = Recorder(), list[ModuleType]()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        fresh_compilation(),
        inspection_replaced_by(lambda *args: traits),
        recording_kernels(recorder),
        _running(compiled),
    ):
        networks = _networks(nets, config)
        reals, noise = _Reals(config), _Noise(config)
        iteration = Iteration(networks, reals, noise, RunState(), config)  # type: ignore[arg-type]
        with _in_parts(recorder, networks):
            for step in range(WARM_UP):
                iteration.body(iteration.fill(step))
            before = len(compiled)
            filled = iteration.fill(WARM_UP)
            recorder.launches.clear()
            with recorder, recorder.within(MEANS):
                iteration.body(filled)
        code = "\n".join(Path(str(module.__file__)).read_text() for module in compiled)
    if len(compiled) > before:
        raise RuntimeError(
            f"{len(compiled) - before} functions were compiled in iteration {WARM_UP + 1}, which should find all of "
            "them: set WARM_UP in bench/gpu_plan/iteration.py higher, or find out what changes between iterations"
        )
    return PlannedIteration(recorder.launches, code)


def _networks(nets: tuple[nn.Module, nn.Module], config: TrainConfig) -> Networks:
    """The nets on the device, and the optimizers of ``fastdat.training.build`` as a captured graph has them."""
    for net in nets:
        move_to(net, DEVICE)
    G, D = nets
    fuse_spectral_norm(D)
    return Networks(G, D, _adam(G, config), _adam(D, config), EMA(G, config.ema) if config.ema else None)


def _adam(net: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr=config.lr, betas=config.betas, fused=True, capturable=True)


class _Reals:
    """Images as the sampler makes them of a set that lies on the device, as many as CIFAR-10's."""

    def __init__(self, config: TrainConfig) -> None:
        self._count = config.batch_size
        shape = (50_000, 3, config.resolution, config.resolution)
        self._sampler: Any = SimpleNamespace(
            _images=torch.empty(shape, dtype=torch.uint8, device=DEVICE),
            _ahead=None,
            _flip=config.flip,
            _memory_format=torch.channels_last if config.channels_last else torch.contiguous_format,
        )

    def batch(self, step: int) -> Tensor:
        rows, flips = (
            torch.empty(self._count, dtype=dtype, device=DEVICE) for dtype in (torch.int64, torch.bool)
        )
        return TrainSampler.made(self._sampler, rows, flips)


class _Noise:
    """z without numbers: a generator of random numbers would need the device."""

    classes = 0

    def __init__(self, config: TrainConfig) -> None:
        self._nz = config.nz

    def draw(self, stream: int, step: int, count: int) -> Tensor:
        return torch.empty(count, self._nz, device=DEVICE)

    def labels(self, stream: int, step: int, count: int) -> tuple[Tensor, ...]:
        return ()


@contextmanager
def _running(compiled: list[ModuleType]) -> Iterator[None]:
    """Within it, compiled functions run on tensors without memory; their modules are appended to ``compiled``."""
    load = PyCodeCache.load_by_key_path

    def load_and_replace(*args: Any, **kwargs: Any) -> ModuleType:
        module: ModuleType = load(*args, **kwargs)
        vars(module).update(REPLACEMENTS_OF_C)
        compiled.append(module)
        return module

    _give_adam_a_meta_kernel()
    with (
        # Whether G can make all fakes in one pass is found by numbers, which there are none of here; SNGAN's can.
        patch.object(Fakes, "_wanted", lambda fakes, z, labels: len(z) > 1),
        patch.object(PyCodeCache, "load_by_key_path", load_and_replace),
        patch.object(torch.cuda, "is_current_stream_capturing", lambda: False),
        patch.object(Tensor, "is_set_to", lambda tensor, other: True),  # whether D's memory is what it was
    ):
        yield


@functools.cache
def _give_adam_a_meta_kernel() -> None:
    """For the rest of the process. torch has one for a rate that is a number, and none for a rate in a tensor."""
    _LIBRARY.impl("_fused_adam_.tensor_lr", lambda *args, **kwargs: None, "Meta")


_LIBRARY = torch.library.Library("aten", "IMPL")


@contextmanager
def _in_parts(recorder: Recorder, networks: Networks) -> Iterator[None]:
    """Within it, launches belong to the part of an iteration that makes them."""

    def within(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with recorder.within(part):
                return function(*args, **kwargs)

        return call

    def fakes(*args: Any, **kwargs: Any) -> Iterator[Tensor]:
        made = make_fakes(*args, **kwargs)
        while (of_one_step := within(FAKES, next)(made, None)) is not None:
            yield of_one_step

    make_fakes = Steps.fakes
    with ExitStack() as replaced:
        replaced.enter_context(patch.object(Steps, "fakes", fakes))
        for owner, name, part in (
            (_Reals, "batch", REALS),
            (Steps, "discriminator", D_STEPS),
            (networks.opt_d, "step", ADAM_D),
            (Steps, "generator", G_STEP),
            (networks.opt_g, "step", ADAM_G),
            (EMA, "update", AVERAGE),
        ):
            replaced.enter_context(patch.object(owner, name, within(part, getattr(owner, name))))
        yield
