"""What a training will need: time and memory of a GPU, from the measurements of GPUs of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdat.data.known_sizes import TRAIN_IMAGES
from fastdat.data.sampler import lies_on_gpu
from fastdat.training.device_settings import AUTO, finer_than_bf16
from fastdat.training.fakes import MEMORY_SHARE
from fastdat.training.iteration_cost import IterationCost, iteration_cost, nets_of, nets_without_memory
from fastdat.training.measured_sizes import Measured, devices
from fastdat.training.models import channels_of
from fastdat.training.size_fit import FEWEST, Errors, SizeFit, fitted, largest, left_out
from fastdat.training.steps import check_fakes_at_once, check_microbatch, needs_whole_batch
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError

#: Bytes of memory of a GPU whose measurements do not say it: NVIDIA's data sheet has 141 GB.
GPU_BYTES: Mapping[str, float] = {"NVIDIA H200": 141e9}
USABLE = 0.92
"""Of a GPU's memory; the rest is for CUDA itself, cuDNN's trials of algorithms, and fragments."""

REDUCED_PER_SECOND = 100e9
"""Bytes a second of an all-reduce between GPUs: an assumption, as is the next one, since no run on several GPUs was
measured. NVLink of an H200 is specified at 450 GB/s a direction; between nodes, 400 Gbit/s are 50 GB/s."""
REDUCE_LATENCY = 1e-4
"""Seconds that each exchange waits for the other GPUs beside that: one in each step, for its gradients and the means of
the attack, and one of a batch norm's statistics in each of its passes."""

_SAME = ("compile", "fold", "precision", "channels_last", "cudnn_benchmark")
"""Settings that must be as in the measurements."""


@dataclass(frozen=True)
class Memory:
    """Of one GPU, in bytes.

    Args:
        held: what the run holds at most, without the data set and CUDA itself.
        whole: what the GPU has; None if it is not known.
        images: what the data set takes of it; 0 if it stays in the host's memory, None if its size is not known.
    """

    held: float
    whole: float | None
    images: float | None

    @property
    def total(self) -> float:
        """With the data set, as far as its size is known."""
        return self.held + (self.images or 0)

    @property
    def fits(self) -> bool | None:
        """Whether the run fits; None if the GPU's memory is not known."""
        return None if self.whole is None else self.total <= USABLE * self.whole


@dataclass(frozen=True)
class Plan:
    """What a training needs.

    Args:
        config: of the run, with the settings of the measurements where it says "auto".
        gpus: that share a batch.
        gpu: their name.
        seconds: of an iteration.
        by: the parts of ``seconds``: ``"computing"``, ``"host"`` (the time that launching takes beyond computing) and
            ``"reducing"``.
        memory: of each GPU.
        measured: how many measurements the model is fitted to, and the largest errors when each is left out.
        nets: that were measured.
        remarks: what the numbers rest on that was not measured.
        advice: what would fit where this does not.
    """

    config: TrainConfig
    gpus: int
    gpu: str
    seconds: float
    by: Mapping[str, float]
    memory: Memory
    measured: tuple[int, Errors]
    nets: str
    remarks: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def batch(self) -> int:
        """Reals, and as many fakes, that a GPU gets in a D step."""
        return self.config.batch_size // self.gpus

    @property
    def images_per_second(self) -> float:
        """Reals that D sees in a second, on all GPUs together."""
        return self.config.n_dis * self.config.batch_size / self.seconds

    @property
    def hours(self) -> float:
        """Of all steps; without compilation, scores, samples and checkpoints."""
        return self.config.steps * self.seconds / 3600


class Planner:
    """Plans runs on one kind of GPU (or CPU).

    Args:
        gpu: its name, as the measurements have it, or a part of it.
        measurements: of :mod:`fastdat.training.measured_sizes`.

    Raises:
        ConfigError: that device was not measured, or too little.
    """

    def __init__(self, gpu: str, measurements: Sequence[Measured]) -> None:
        self.gpu = device_named(gpu, measurements)
        of_device = [m for m in measurements if m.device == self.gpu]
        captured = [m for m in of_device if m.captured]
        if len(captured) <= FEWEST:  # one of them is left out in turn
            raise ConfigError(
                f"{self.gpu} has {len(captured)} measurements of sizes, and a model needs {FEWEST + 1}: measure with "
                "make gpu-check PART=sizes"
            )
        self._reference = captured[0].config
        self._known = {_size(m.config): _net(m.config) for m in captured}
        sized = [m.sized() for m in captured]
        self.fit: SizeFit = fitted(sized)
        self.errors = largest(left_out(sized))
        self._count = len(sized)
        self._whole = next((m.whole for m in captured if m.whole), GPU_BYTES.get(self.gpu))
        hosts = [m.seconds / iteration_cost(m.config).launches for m in of_device if not m.captured]
        self._host = max(hosts, default=None)

    def plan(self, config: TrainConfig, gpus: int = 1) -> Plan:
        """The plan of a run on ``gpus`` GPUs.

        Raises:
            ConfigError: the batch cannot be shared out among them; nothing was measured that is like the run; or the
                training would refuse its settings.
        """
        check_equal_parts(config.batch_size, gpus)
        check_fakes_at_once(config, gpus)
        config = self._as_measured(config)
        check_microbatch(config, nets_without_memory(config)[1])
        cost = iteration_cost(config, gpus)
        computing = self.fit.seconds(cost)
        host = self._host_seconds(config, cost, gpus, computing)
        reducing = reduction_seconds(cost, gpus)
        by = {"computing": computing, "host": host, "reducing": reducing}
        memory = self.memory(config, gpus)
        return Plan(
            config,
            gpus,
            self.gpu,
            sum(by.values()),
            by,
            memory,
            (self._count, self.errors),
            self._nets,
            tuple(self._remarks(config, gpus)),
            tuple(self._advice(config, gpus, memory)),
        )

    def memory(self, config: TrainConfig, gpus: int) -> Memory:
        """What each GPU needs. Its images lie on it where the sampler of the run would put them there."""
        images: float | None = image_set_bytes(config)
        if images is not None and self._whole and not lies_on_gpu(int(images), self._whole, gpus):
            images = 0
        return Memory(self.fit.held(iteration_cost(config, gpus)), self._whole, images)

    def _as_measured(self, config: TrainConfig) -> TrainConfig:
        """``config`` with the settings of the measurements for what is "auto".

        Raises:
            ConfigError: one of them is another.
        """
        reference = self._reference
        changes = {key: getattr(reference, key) for key in _SAME if getattr(config, key) == AUTO}
        if "precision" in changes and reference.precision == "bf16" and finer_than_bf16(config):
            changes["precision"] = "fp32"
        config = config.replace(changes)
        others = {
            key: getattr(config, key) for key in _SAME if getattr(config, key) != getattr(reference, key)
        }
        if others:
            raise ConfigError(
                f"there is no measurement on {self.gpu} with {_words(others)}; measured are runs with "
                f"{_words({key: getattr(reference, key) for key in others})}"
            )
        return config

    def _host_seconds(self, config: TrainConfig, cost: IterationCost, gpus: int, computing: float) -> float:
        """What launching takes beyond computing, where iterations are not replayed as graphs."""
        if self._host is None or (gpus == 1 and config.cuda_graph):
            return 0.0
        return max(0.0, self._host * cost.launches - computing)

    @property
    def _nets(self) -> str:
        return ", ".join(sorted(self._known.values()))

    def _remarks(self, config: TrainConfig, gpus: int) -> list[str]:
        found = []
        if _size(config) not in self._known:
            found.append(
                f"{_net(config, 'resolution ')}: extrapolated from {self._nets}, with unknown errors"
            )
        if config.regularizers or config.attack or config.augment != "none":
            found.append(
                "regularizers, other attacks and augmentation were not measured: counted in passes of D"
            )
        at_once = config.fakes_at_once
        if at_once is True or (at_once == AUTO and self._is_gpu and gpus == 1):
            where = (
                f" where it takes at most {MEMORY_SHARE:.0%} of the free memory" if at_once == AUTO else ""
            )
            found.append(
                f"fakes_at_once={str(at_once).lower()}, but false: G makes the fakes of all D steps in one pass{where}"
                ", in less time and more memory"
            )
        if self._host is None and (gpus > 1 or not config.cuda_graph) and self._is_gpu:
            found.append(
                "iterations without CUDA graphs were not measured: the time that launching takes is left out"
            )
        elif self._is_gpu and (gpus > 1 or not config.cuda_graph):
            why = "several GPUs train without CUDA graphs" if gpus > 1 else "cuda_graph=false"
            found.append(f"{why}: the host's time is that of one measurement, by launches of layers")
        if gpus > 1:
            found.append(
                "no run on several GPUs was measured: gradients are assumed to be averaged after each step at "
                f"{REDUCED_PER_SECOND / 1e9:.0f} GB/s, with {REDUCE_LATENCY * 1e3:.1f} ms of waiting for that and for "
                "each exchange of a batch norm"
            )
        return found

    @property
    def _is_gpu(self) -> bool:
        return self._reference.cuda_graph and self._reference.channels_last is True

    def _advice(self, config: TrainConfig, gpus: int, memory: Memory) -> list[str]:
        if memory.fits is not False:
            return []
        advice = []
        part = self._microbatch(config, gpus)
        if part is not None:
            advice.append(f"--microbatch {part} fits")
        more = next(
            (n for n in divisors(config.batch_size) if n > gpus and self.memory(config, n).fits), None
        )
        if more is not None:
            advice.append(f"--gpus {more} fits, with a batch of {config.batch_size // more} a GPU")
        if not advice:
            advice.append(
                "no number of GPUs and no microbatch fits: the nets themselves are too large for this GPU"
            )
        return advice

    def _microbatch(self, config: TrainConfig, gpus: int) -> int | None:
        """The largest power of two that fits; None where G's step, which takes its whole batch, does not fit, or where
        D needs the whole batch too."""
        if needs_whole_batch(nets_without_memory(config)[1]) is not None:
            return None
        part = 1 << (config.batch_size // gpus).bit_length()
        while part > 1:
            part //= 2
            if (
                part < (config.microbatch or part + 1)
                and self.memory(config.replace({"microbatch": part}), gpus).fits
            ):
                return part
        return None


def device_named(name: str, measurements: Sequence[Measured]) -> str:
    """The measured device whose name is, or contains, ``name``; upper and lower case are the same.

    Raises:
        ConfigError: there is none, or there are several.
    """
    known = devices(measurements)
    found = [d for d in known if d.lower() == name.lower()] or [d for d in known if name.lower() in d.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name!r} may be {' or '.join(found)}: give the whole name")
    raise ConfigError(
        f"there is no measurement for {name!r}; measured are: {'; '.join(known)}. Measure yours with make gpu-check "
        "PART=sizes, and give its JSON with --measured"
    )


def check_equal_parts(batch: int, gpus: int) -> None:
    """Raises ConfigError unless each GPU gets the same number of samples."""
    below = batch // gpus * gpus
    if batch % gpus:
        near = " and ".join(f"{b:,}" for b in (below, below + gpus) if b)
        raise ConfigError(
            f"a batch of {batch:,} cannot be shared out among {gpus} GPUs, of which each must get as many; the nearest "
            f"that can: {near}"
        )


def reduction_seconds(cost: IterationCost, gpus: int) -> float:
    """Seconds of the exchanges of an iteration. To average gradients, each GPU sends and receives ``2 (N - 1) / N`` of
    their bytes in a ring; those of batch norms are small, and wait. An assumption, not a measurement."""
    if gpus == 1:
        return 0.0
    ring = 2 * (gpus - 1) / gpus
    return ring * cost.gradients / REDUCED_PER_SECOND + (cost.steps + cost.exchanges) * REDUCE_LATENCY


def image_set_bytes(config: TrainConfig) -> int | None:
    """Bytes of the train split in uint8; None if how many images it has is not known."""
    count = TRAIN_IMAGES.get(config.dataset or "")
    return None if count is None else count * channels_of(config) * config.resolution**2


def _size(config: TrainConfig) -> tuple[str | None, int, int, int]:
    """What is the same for nets that cost the same: model, resolution, and numbers of parameters."""
    nets = nets_of(config)
    return config.model, config.resolution, nets.parameters_g, nets.parameters_d


def _net(config: TrainConfig, at: str = "") -> str:
    """The nets in words, with the widths that are not the paper's."""
    widths = {key: getattr(config, key) for key in ("ngf", "ndf") if getattr(config, key) is not None}
    return f"{config.model} at {at}{config.resolution}" + (f" with {_words(widths)}" if widths else "")


def divisors(number: int) -> list[int]:
    """From the smallest."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={str(value).lower()}" for key, value in settings.items())
