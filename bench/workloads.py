"""What bench_dat_step measures: D, its batches, the variants of the step, and what each must compute."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import fastdat
from bench.eager_baselines import released_dat_loss, sngan_loss
from fastdat import DATConfig
from fastdat.data import load_cifar10
from fastdat.nets import SNGANDiscriminator, SNGANGenerator

LossOf = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]

PLAIN = DATConfig(real=False, fake=False)
PLAIN_PER_FORWARD = DATConfig(real=False, fake=False, power_iterations="per_forward")
DAT = DATConfig()
DAT_SECOND_ORDER = DATConfig(second_order=True)


@dataclass(frozen=True)
class Workload:
    """A discriminator and how it is fed."""

    batch: int
    """Samples a side."""
    device: torch.device
    amp: torch.dtype | None = None
    """Autocast to this type; None is fp32."""
    resolution: int = 32

    @property
    def name(self) -> str:
        dtype = "fp32" if self.amp is None else str(self.amp).removeprefix("torch.")
        return f"sngan{self.resolution}-{self.device.type}-{dtype}-batch{self.batch}"

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.cuda else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None)

    def discriminator(self) -> nn.Module:
        """The same D at every call: SNGAN's at the paper's width, in train mode, spectral norm settled."""
        torch.manual_seed(0)
        D = SNGANDiscriminator(self.resolution).to(self.device)
        D.to(memory_format=self.memory_format)  # type: ignore[call-overload]  # missing from torch's annotations
        with torch.no_grad():
            for _ in range(10):
                D(torch.rand(2, 3, self.resolution, self.resolution, device=self.device))
        return D

    def data(self, cifar10: Path | None) -> str:
        """What the real images are: CIFAR-10 where its folder is given and its size fits, else noise."""
        return "uniform noise" if cifar10 is None or self.resolution != 32 else "cifar10 test"

    def batches(self, cifar10: Path | None) -> list[Batch]:
        """Real and fake batches, different each: together larger than a GPU's L2 cache, so none is found there."""
        count = 4
        if self.cuda:
            l2 = torch.cuda.get_device_properties(self.device).L2_cache_size
            size = 2 * self.batch * 3 * self.resolution**2 * 4
            count = max(4, min(2 * l2 // size + 1, 256))
        real = real_images(count * self.batch, self.resolution, cifar10)
        fake = fake_images(count * self.batch, self.resolution, self.device)
        real, fake = (x.to(self.device).contiguous(memory_format=self.memory_format) for x in (real, fake))
        return list(zip(real.split(self.batch), fake.split(self.batch), strict=True))


@dataclass(frozen=True)
class Variant:
    """One way to take the step."""

    name: str
    loss: LossOf
    """What is timed, with its backward pass."""
    eager: LossOf
    """The same operations without the compiler, for counting FLOPs."""
    config: DATConfig
    """What its gradient must be, by `fastdat.reference`."""
    passes: int
    """The least work that computes it, in forward passes of D (bench/README.md)."""
    image_gradient: bool = False
    """Whether the last backward pass has to reach the images."""
    compiled: bool = False
    mode: str = "default"
    """Of torch.compile."""

    @property
    def replays_itself(self) -> bool:
        """Whether a call replays a CUDA graph, and so cannot become part of another."""
        return self.mode == "reduce-overhead"


def _fastdat(name: str, config: DATConfig, passes: int, mode: str = "default") -> Variant:
    loss = partial(fastdat.dat_step, config=config, loss="hinge")
    compiled, eager = partial(loss, compile=mode), partial(loss, compile=False)
    suffix = "" if mode == "default" else f", {mode}"
    return Variant(
        name + suffix, compiled, eager, config, passes, config.second_order, compiled=True, mode=mode
    )


VARIANTS = (
    Variant("eager released DAT", released_dat_loss, released_dat_loss, DATConfig.official(), passes=5),
    Variant("eager SNGAN", sngan_loss, sngan_loss, PLAIN_PER_FORWARD, passes=3),
    _fastdat("fastdat SNGAN", PLAIN, passes=3),
    _fastdat("fastdat DAT", DAT, passes=5),
    _fastdat("fastdat DAT second order", DAT_SECOND_ORDER, passes=7),
)
"""What is measured everywhere."""

REPLAYED = (
    _fastdat("fastdat SNGAN", PLAIN, 3, "reduce-overhead"),
    _fastdat("fastdat DAT", DAT, 5, "reduce-overhead"),
    _fastdat("fastdat DAT second order", DAT_SECOND_ORDER, 7, "reduce-overhead"),
)
MOST_REPLAYED = 512
"""Samples a side up to which these are measured on a GPU: beyond, the device is what is waited for."""


def variants_of(workload: Workload) -> tuple[Variant, ...]:
    """What is measured on a workload, in the order in which it is compiled: the most wanted first."""
    if torch.backends.cudnn.benchmark:  # a question of its own, see bench/README.md
        return VARIANTS[1:4]
    if not workload.cuda or workload.batch > MOST_REPLAYED:
        return VARIANTS
    return *VARIANTS, *REPLAYED


@dataclass
class Step:
    """A variant on a D of its own: zero_grad, loss, backward. The optimizer's step is not part of it."""

    variant: Variant
    workload: Workload
    D: nn.Module
    batches: itertools.cycle[Batch]

    def __call__(self) -> None:
        gradient_step(self.variant.loss, self.D, next(self.batches), self.workload)


def gradient_step(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> None:
    """Fill D's .grad."""
    D.zero_grad(set_to_none=True)
    with workload.autocast():
        loss = loss_of(D, *batch)
    loss.backward()


def steps(workload: Workload, cifar10: Path | None) -> list[Step]:
    """Every variant, on equal discriminators and the same batches in the same order."""
    D, batches = workload.discriminator(), workload.batches(cifar10)
    variants = variants_of(workload)
    return [Step(variant, workload, copy.deepcopy(D), itertools.cycle(batches)) for variant in variants]


def real_images(n: int, resolution: int, cifar10: Path | None) -> Tensor:
    """n images (n, 3, H, W) in [-1, 1]: from the folder of CIFAR-10 or uniform noise, see `Workload.data`."""
    if cifar10 is None or resolution != 32:
        return torch.rand(n, 3, resolution, resolution) * 2 - 1
    images = load_cifar10(cifar10, "test").images
    return images[torch.arange(n) % len(images)].float() / 127.5 - 1


@torch.no_grad()
def fake_images(n: int, resolution: int, device: torch.device) -> Tensor:
    """n images of an untrained generator."""
    torch.manual_seed(1)
    G = SNGANGenerator(resolution).to(device)
    return torch.cat([G(torch.randn(len(part), G.nz, device=device)) for part in torch.arange(n).split(256)])
