"""Samples of a generator in evaluation mode; its state and everybody's random numbers stay as they were."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastdat.training.checkpoint import State, rng_state, set_rng_state
from fastdat.training.noise import SAMPLES, Noise
from fastdat.training.undisturbed import undisturbed
from fastdat.util.ranks import ONE_PROCESS, Ranks


def generated(
    net: nn.Module,
    noise: Noise,
    stream: int,
    count: int,
    batch_size: int,
    step: int = 0,
    ranks: Ranks = ONE_PROCESS,
) -> Iterator[Tensor]:
    """``count`` samples in batches of at most ``batch_size``, which changes no sample beyond rounding.

    Several ``ranks`` share out the batches of one: each draws z and labels of all samples, and makes the batches of
    number ``rank``, ``rank + size``, ``rank + 2 size`` ...
    """
    z, labels = noise.draw(stream, step, count), noise.labels(stream, step, count)
    yield from from_latents(net, z, labels, batch_size, ranks)


def sample_grid(net: nn.Module, noise: Noise, count: int, batch_size: int) -> Tensor:
    """The samples of a run's grids (count, ...): the same z at every step, and labels 0, 1, 2, ... in turn."""
    z, labels = noise.draw(SAMPLES, 0, count), _labels_in_turn(noise, count)
    return torch.cat(list(from_latents(net, z, labels, batch_size)))


def from_latents(
    net: nn.Module,
    z: Tensor,
    labels: tuple[Tensor, ...],
    batch_size: int,
    ranks: Ranks = ONE_PROCESS,
) -> Iterator[Tensor]:
    """Samples from z (N, nz) and, for a conditional net, labels (N,); of several ``ranks``, those of this one.

    A net that draws random numbers itself draws other ones in each batch. Those that are drawn afterwards are as if it
    had drawn none: how often samples are made changes nothing that is trained.
    """
    own: State | None = None
    parts = [tensor.split(batch_size)[ranks.rank :: ranks.size] for tensor in (z, *labels)]
    for inputs in zip(*parts, strict=True):
        # Entered for each batch: what the caller does between two batches must not run in these modes.
        with undisturbed(net):
            if own is not None:
                set_rng_state(own)
            samples = net(*inputs)
            own = rng_state()
        yield samples


def _labels_in_turn(noise: Noise, count: int) -> tuple[Tensor, ...]:
    if not noise.classes:
        return ()
    return (torch.arange(count, device=noise.device) % noise.classes,)
