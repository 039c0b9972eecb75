"""Adversarial examples that a generator makes by itself (Fig. 1 and Fig. 8): images that D takes for real, close to
images that it takes for fakes, both from G."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastdat.robustness.probe import Args, check_rows, logits_in_parts, logits_of, midpoint, probed, split

Norm = Literal["rms", "linf", "l2"]
"""Distances of two images, in their units: ``rms`` = ``||dx||_2 / sqrt(C H W)``, ``linf`` = the largest ``|dx|``,
``l2`` = ``||dx||_2``."""


@dataclass(frozen=True)
class LatentShare:
    """What a search for adversarial examples in latent space found, for each of N samples.

    Args:
        threshold: D takes a sample for real from this logit on.
        logits_before: (N,) D's logits of the samples.
        logits_after: (N,) the highest logit that was found within the radius; that of the sample itself where none was
            higher, and where it was not searched.
        distances: (N,) from the sample to the image of that logit; 0 for the sample itself.
        latents: (N, nz) of that image.
        searched_below: samples with logits below it were searched.
        norm, radius, restarts, steps: of the search.
    """

    threshold: float
    logits_before: Tensor
    logits_after: Tensor
    distances: Tensor
    latents: Tensor
    searched_below: float
    norm: Norm
    radius: float
    restarts: int
    steps: int

    @property
    def eligible(self) -> Tensor:
        """(N,) bool: D takes the sample for a fake, as Sec. I wants it."""
        return self.logits_before < self.threshold

    @property
    def success(self) -> Tensor:
        """(N,) bool: an adversarial example was found."""
        return self.eligible & (self.logits_after >= self.threshold)

    @property
    def share(self) -> float:
        """Part of the eligible samples that have an adversarial example; NaN if no sample is eligible."""
        count = int(self.eligible.sum())
        return int(self.success.sum()) / count if count else math.nan

    @property
    def eligible_share(self) -> float:
        """Part of the samples that are eligible."""
        return int(self.eligible.sum()) / len(self.logits_before)

    def at(self, threshold: float) -> LatentShare:
        """The same search under another threshold: what it maximises does not depend on one.

        Raises:
            ValueError: ``threshold`` is above :attr:`searched_below`, so that samples would be missing.
        """
        if threshold > self.searched_below:
            raise ValueError(
                f"samples with logits from {self.searched_below:g} on were not searched; got threshold={threshold:g}. "
                "Search with the greater threshold first"
            )
        return replace(self, threshold=threshold)


def latent_adversarial_share(
    G: nn.Module,
    D: nn.Module,
    z: Tensor,
    *,
    threshold: float | Literal["midpoint"] = "midpoint",
    xr: Tensor | None = None,
    radius: float = 0.1,
    norm: Norm = "rms",
    restarts: int = 2,
    steps: int = 100,
    lr: float = 0.02,
    noise: float = 0.03,
    penalty: float = 10.0,
    generator: torch.Generator | None = None,
    args_g: Args = (),
    args_d: Args = (),
    args_real: Args = (),
    batch_size: int | None = None,
    compile: bool = False,
) -> LatentShare:
    """The share of generated samples that have an adversarial example which G makes, too (Fig. 1 and Fig. 8).

    Sec. I: for ``x = G(z)`` that D takes for a fake, it is ``x^ = G(z^)`` with ``||x^ - x||_p <= delta`` that D takes
    for real. The paper sets ``delta = 0.1`` and leaves open: p, D's threshold, the search for ``z^``, how many z, and
    the units of the images. Here, Adam changes each ``z^`` by itself, from z, and in further restarts from z with some
    noise, and maximises ::

        D(G(z^)) - penalty relu(distance / radius - 1)

    Of all images on the way that lie within the radius, the one with the highest logit counts. So the share is a lower
    bound, which grows with ``restarts`` and ``steps``: compare shares of equal searches. Both nets are evaluated, which
    makes batch norm use its running statistics, and are left exactly as they were.

    Args:
        G: z (N, nz), and ``args_g`` -> images.
        D: images, and ``args_d`` -> logits (N,) or (N, 1), or a tuple of outputs with logits first.
        z: latents (N, nz).
        threshold: D takes an image for real from this logit on; ``"midpoint"``: halfway between D's mean logits of
            ``xr`` and of ``G(z)``, for any loss; 0 is the threshold of hinge and GAN losses.
        xr: reals (M, ...), for ``"midpoint"`` only.
        radius: delta, in units of the images, which are in [-1, 1] here.
        norm: of the distance; the paper's p is unknown. A plain ``l2`` of 0.1 is .0018 a pixel and channel at 32x32.
        restarts: starts of the search for each z, at least 1.
        steps: of Adam, each one pass forwards and backwards through G and D.
        lr: of Adam.
        noise: standard deviation of the noise on z from the second restart on.
        penalty: weight of a distance beyond the radius.
        generator: draws the noise; None: one with seed 0.
        args_g, args_d, args_real: further arguments with a row a sample, such as labels: of G, of D for fakes and of D
            for reals.
        batch_size: samples at a time; changes the result by rounding only. None: all.
        compile: compile the step of the search, once for a pair of nets and a batch size.

    Returns:
        The share, and what was found for each sample.

    Raises:
        ValueError: a number outside its range, rows that do not fit, or ``"midpoint"`` without reals.
    """
    check_rows(("z", z), args_g=args_g, args_d=args_d)
    _check_numbers(radius, norm, restarts, steps, lr, noise, penalty)
    draws = generator or torch.Generator(z.device).manual_seed(0)
    starts = torch.randn(restarts - 1, *z.shape, generator=draws, device=draws.device, dtype=z.dtype).to(
        z.device
    )
    with probed(G, D):
        images = _generated(G, z, args_g, batch_size)
        before = logits_in_parts(D, images, args_d, batch_size)
        if threshold == "midpoint":
            if xr is None:
                raise ValueError('threshold="midpoint" needs reals: give xr=, or threshold=0')
            threshold = midpoint(D, xr, images, args_real=args_real, args_fake=args_d, batch_size=batch_size)
        elif not isinstance(threshold, (int, float)) or not math.isfinite(threshold):
            raise ValueError(f'threshold must be "midpoint" or a finite number; got {threshold!r}')
        after, distances, latents = before.clone(), torch.zeros_like(before), z.detach().clone()
        heights = torch.compile(_heights, dynamic=False) if compile else _heights
        for rows, count in _searched(before < threshold, batch_size, padded=compile):
            of_g, of_d = [tuple(arg[rows] for arg in args) for args in (args_g, args_d)]
            objective = partial(heights, G, D, images[rows], of_g, of_d, radius, norm, penalty)
            best = _Best(after[rows], distances[rows], latents[rows])
            for shift in (torch.zeros_like(best.latents), *(noise * starts[:, rows])):
                _climb(objective, best.start + shift, steps, lr, radius, best)
            found = rows[:count]
            after[found], distances[found] = best.logits[:count], best.distances[:count]
            latents[found] = best.latents[:count]
    limit = float(threshold)
    return LatentShare(limit, before, after, distances, latents, limit, norm, radius, restarts, steps)


_Heights = tuple[Tensor, Tensor, Tensor]


def _heights(
    G: nn.Module,
    D: nn.Module,
    images: Tensor,
    args_g: tuple[Tensor, ...],
    args_d: tuple[Tensor, ...],
    radius: float,
    norm: Norm,
    penalty: float,
    z: Tensor,
) -> _Heights:
    """What the search maximises, D's logits of G(z), and distances to ``images``; each (N,)."""
    moved = G(z, *args_g)
    logits = logits_of(D, moved, args_d)
    distances = distance(moved, images, norm)
    return logits - penalty * torch.relu(distances / radius - 1), logits, distances


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """The distance (N,) of each sample of ``a`` to that of ``b`` (N, ...), differentiable, with gradient 0 at 0."""
    difference = (a - b).flatten(1)
    found: Tensor = torch.linalg.vector_norm(difference, ord=math.inf if norm == "linf" else 2, dim=1)
    return found / math.sqrt(difference.shape[1]) if norm == "rms" else found


class _Best:
    """The best image within the radius so far, for each of N searched samples: at first the sample itself."""

    def __init__(self, logits: Tensor, distances: Tensor, latents: Tensor) -> None:
        self.start = latents
        self.logits, self.distances, self.latents = logits, distances, latents

    def offer(self, logits: Tensor, distances: Tensor, latents: Tensor, radius: float) -> None:
        """Keep those that are within the radius and have higher logits."""
        better = (distances <= radius) & (logits > self.logits)
        self.logits = torch.where(better, logits, self.logits)
        self.distances = torch.where(better, distances, self.distances)
        of_row = better.reshape(-1, *[1] * (latents.ndim - 1))
        self.latents = torch.where(of_row, latents, self.latents)


def _climb(
    objective: Callable[[Tensor], _Heights], start: Tensor, steps: int, lr: float, radius: float, best: _Best
) -> None:
    """One restart. Adam works on each number by itself, so the samples of a batch do not disturb each other."""
    z = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=lr, maximize=True)
    for step in range(steps + 1):  # the last one only looks at where the last step led
        height, logits, distances = objective(z)
        best.offer(logits.detach(), distances.detach(), z.detach(), radius)
        if step < steps:
            (z.grad,) = torch.autograd.grad(height.sum(), z)
            adam.step()


def _generated(G: nn.Module, z: Tensor, args_g: Args, batch_size: int | None) -> Tensor:
    with torch.no_grad():
        return torch.cat([G(part, *args) for part, *args in split(batch_size, z, *args_g)])


def _searched(eligible: Tensor, batch_size: int | None, *, padded: bool) -> Iterator[tuple[Tensor, int]]:
    """The numbers of the eligible samples in parts, and how many of each part count.

    Where ``padded``, a part that is too short repeats its first number, so that all have one size.
    """
    size = min(batch_size or len(eligible), len(eligible))
    for rows in eligible.nonzero().squeeze(1).split(size):
        missing = size - len(rows) if padded and len(rows) else 0
        if len(rows):
            yield torch.cat([rows, rows[:1].expand(missing)]), len(rows)


def _check_numbers(
    radius: float, norm: Norm, restarts: int, steps: int, lr: float, noise: float, penalty: float
) -> None:
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}; got {norm!r}")
    for name, number, least in (("restarts", restarts, 1), ("steps", steps, 1)):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be an integer >= {least}; got {number!r}")
    for name, value in (("radius", radius), ("lr", lr)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number > 0; got {value!r}")
    for name, value in (("noise", noise), ("penalty", penalty)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number >= 0; got {value!r}")
