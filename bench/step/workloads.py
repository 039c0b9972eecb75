"""What bench_dat_step measures: a discriminator, its batches, and the variants of the step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import fastdat
from bench.step.eager_baselines import released_dat_loss, sngan_loss
from bench.step.plain_discriminator import PlainDiscriminator
from fastdat import DATConfig
from fastdat.data import load_cifar10
from fastdat.nets import SNGANDiscriminator, SNGANGenerator
from fastdat.regularizers import Term

LossOf = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]

PLAIN = DATConfig(real=False, fake=False)
PLAIN_PER_FORWARD = DATConfig(real=False, fake=False, power_iterations="per_forward")
DAT = DATConfig()
DAT_SECOND_ORDER = DATConfig(second_order=True)


@dataclass(frozen=True)
class Workload:
    """A discriminator, its batches, and the precision."""

    batch: int
    """Samples a side."""
    device: torch.device
    amp: torch.dtype | None = None
    """Type of autocast; None is fp32 without autocast."""
    resolution: int = 32
    net: Literal["sngan", "plain"] = "sngan"
    """SNGAN's D of `fastdat.nets`, or a D of torch's modules only (`plain_discriminator.py`)."""

    @property
    def name(self) -> str:
        dtype = "fp32" if self.amp is None else str(self.amp).removeprefix("torch.")
        return f"{self.net}{self.resolution}-{self.device.type}-{dtype}-batch{self.batch}"

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.cuda else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None)

    def discriminator(self) -> nn.Module:
        """D at the paper's width, in train mode, after ten power iterations; the same at every call."""
        torch.manual_seed(0)
        plain = self.net == "plain"
        D = (PlainDiscriminator() if plain else SNGANDiscriminator(self.resolution)).to(self.device)
        D.to(memory_format=self.memory_format)  # type: ignore[call-overload]  # missing from torch's annotations
        with torch.no_grad():
            for _ in range(10):
                D(torch.rand(2, 3, self.resolution, self.resolution, device=self.device))
        return D

    def data(self, cifar10: Path | None) -> str:
        """Name of the real images: CIFAR-10 where its folder is given and its resolution fits, else noise."""
        return "uniform noise" if cifar10 is None or self.resolution != 32 else "cifar10 test"

    def batches(self, cifar10: Path | None) -> list[Batch]:
        """Batches of (real, fake), all different. On a GPU they are together larger than twice its L2 cache."""
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
    """What is timed, together with its backward pass."""
    eager: LossOf
    """The same loss uncompiled, for counting FLOPs."""
    config: DATConfig
    """Settings with which `fastdat.reference` computes the same gradient."""
    passes: float
    """The least work that computes it, in forward passes of D: the floor of bench/README.md."""
    image_gradient: bool = False
    """Whether the last backward pass has to reach the images."""
    compiled: bool = False
    mode: str = "default"
    """Mode of torch.compile."""
    fold: bool = False
    """Whether it is compiled with convolutions and pools reordered."""
    loss_name: str = "hinge"
    """D's loss, with which `fastdat.reference` computes the same gradient."""
    regularizers: tuple[Term, ...] = ()
    """Terms of D's loss, likewise."""

    @property
    def replays_itself(self) -> bool:
        """Whether a call replays a CUDA graph, and so cannot be captured in another one."""
        return self.mode == "reduce-overhead"


def _fastdat(name: str, config: DATConfig, passes: int, mode: str = "default", fold: bool = True) -> Variant:
    loss = partial(fastdat.dat_step, config=config, loss="hinge")
    compiled, eager = partial(loss, compile=mode, fold=fold), partial(loss, compile=False)
    name += "" if mode == "default" else f", {mode}"
    name += "" if fold else ", not folded"
    return Variant(
        name, compiled, eager, config, passes, config.second_order, compiled=True, mode=mode, fold=fold
    )


VARIANTS = (
    Variant("eager released DAT", released_dat_loss, released_dat_loss, DATConfig.official(), passes=5),
    Variant("eager SNGAN", sngan_loss, sngan_loss, PLAIN_PER_FORWARD, passes=3),
    _fastdat("fastdat SNGAN", PLAIN, passes=3),
    _fastdat("fastdat DAT", DAT, passes=5),
    _fastdat("fastdat DAT second order", DAT_SECOND_ORDER, passes=7),
)
"""Variants that are measured on every device."""

REPLAYED = (
    _fastdat("fastdat SNGAN", PLAIN, 3, "reduce-overhead"),
    _fastdat("fastdat DAT", DAT, 5, "reduce-overhead"),
    _fastdat("fastdat DAT second order", DAT_SECOND_ORDER, 7, "reduce-overhead"),
)
UNFOLDED = (
    _fastdat("fastdat SNGAN", PLAIN, 3, fold=False),
    _fastdat("fastdat DAT", DAT, 5, fold=False),
    _fastdat("fastdat DAT second order", DAT_SECOND_ORDER, 7, fold=False),
)
MAX_REPLAYED_BATCH = 512
"""Samples a side up to which the replayed variants are measured. For more, the host's time does not matter."""


def variants_of(workload: Workload) -> tuple[Variant, ...]:
    """The variants that are measured on a workload, the most important first; they are compiled in this order."""
    if torch.backends.cudnn.benchmark:  # a run of its own, see bench/README.md
        return VARIANTS[1:4]
    if workload.net == "plain":
        return *VARIANTS, UNFOLDED[1]
    replayed = REPLAYED if workload.cuda and workload.batch <= MAX_REPLAYED_BATCH else ()
    return *VARIANTS, *replayed, *UNFOLDED


@dataclass
class Step:
    """A variant with its own copy of D: zero_grad, loss and backward, without the optimizer's step."""

    variant: Variant
    workload: Workload
    D: nn.Module
    batches: itertools.cycle[Batch]

    def __call__(self) -> None:
        gradient_step(self.variant.loss, self.D, next(self.batches), self.workload)


def gradient_step(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> None:
    """Compute the loss and fill the ``.grad`` of D's parameters."""
    D.zero_grad(set_to_none=True)
    with workload.autocast():
        loss = loss_of(D, *batch)
    loss.backward()


def steps(workload: Workload, cifar10: Path | None, variants: Sequence[Variant] | None = None) -> list[Step]:
    """A step for every variant, on equal discriminators and the same batches in the same order.

    ``variants`` are those of `variants_of` unless they are given.
    """
    D, batches = workload.discriminator(), workload.batches(cifar10)
    chosen = variants_of(workload) if variants is None else variants
    return [Step(variant, workload, copy.deepcopy(D), itertools.cycle(batches)) for variant in chosen]


def real_images(n: int, resolution: int, cifar10: Path | None) -> Tensor:
    """n images (n, 3, H, W) in [-1, 1], of CIFAR-10 or uniform noise: `Workload.data` says which."""
    if cifar10 is None or resolution != 32:
        return torch.rand(n, 3, resolution, resolution) * 2 - 1
    images = load_cifar10(cifar10, "test").images
    return images[torch.arange(n) % len(images)].float() / 127.5 - 1


@torch.no_grad()
def fake_images(n: int, resolution: int, device: torch.device) -> Tensor:
    """n images (n, 3, H, W) by an untrained generator."""
    torch.manual_seed(1)
    G = SNGANGenerator(resolution).to(device)
    return torch.cat([G(torch.randn(len(part), G.nz, device=device)) for part in torch.arange(n).split(256)])
