"""Samples of a generator: in evaluation mode, without touching its state or anybody's random numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastdat.training.noise import Noise
from fastdat.training.steps import evaluating


def generated(
    net: nn.Module, noise: Noise, stream: int, count: int, batch_size: int, step: int = 0
) -> Iterator[Tensor]:
    """``count`` samples in batches of at most ``batch_size``, whose size changes none of them beyond rounding."""
    z, labels = noise.draw(stream, step, count), noise.labels(stream, step, count)
    yield from from_latents(net, z, labels, batch_size)


def from_latents(net: nn.Module, z: Tensor, labels: tuple[Tensor, ...], batch_size: int) -> Iterator[Tensor]:
    """Samples from z (N, nz) and, for a conditional net, labels (N,)."""
    parts = [tensor.split(batch_size) for tensor in (z, *labels)]
    for inputs in zip(*parts, strict=True):
        # Entered anew for each batch: what comes between two of them is none of this function's business.
        with torch.no_grad(), evaluating(net):
            samples = net(*inputs)
        yield samples


def in_order(noise: Noise, count: int) -> tuple[Tensor, ...]:
    """Labels 0, 1, 2, ... over and over for ``count`` samples of a picture; nothing where there are no classes."""
    if not noise.classes:
        return ()
    return (torch.arange(count, device=noise.device) % noise.classes,)
