"""Differentiable Augmentation (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training").

D sees T(x) in place of x: reals and fakes, in the steps of D and of G. Every sample has random numbers of its own. With
these given, T is affine in x, so that gradients of first and second order pass through it exactly.

Ranges, sizes and the order within ``color`` are those of the released code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastdat.nets.auxiliary import at_least_float32

DRAWS = 7
"""Random numbers of one sample: brightness, saturation, contrast; rows and columns of the shift, of the cutout."""


class Augmented(nn.Module):
    """D behind a random augmentation: images (N, C, H, W), draws (N, DRAWS), *args -> D(T(images; draws), *args).

    In a loop with ``dat_step``, the draws are the first of D's further arguments. The attack then moves the images
    before the augmentation, which is the same one in all passes of a step::

        D_aug = fastdat.nets.Augmented(D)
        loss = fastdat.dat_step(D_aug, xr, xf, args_real=(D_aug.draw(xr),), args_fake=(D_aug.draw(xf),))

    The parameters are D's own, so D's optimizer and checkpoints stay as they are.

    Args:
        D: the discriminator.
        policy: as in :func:`parse_policy`.

    Raises:
        ValueError: an unknown policy, or D is wrapped in DistributedDataParallel, which must be the outermost.
    """

    def __init__(self, D: nn.Module, policy: str = "diffaug") -> None:
        super().__init__()
        self.policy = parse_policy(policy)
        D = getattr(D, "_orig_mod", D)  # without torch.compile's wrapper: a step compiles D by itself
        if isinstance(D, DistributedDataParallel):
            raise ValueError(
                "the augmentation cannot be put around DistributedDataParallel, which would then average no gradients: "
                "wrap the augmented D, DistributedDataParallel(Augmented(D))"
            )
        self.D = D

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Random numbers for the images ``x`` (N, C, H, W): (N, DRAWS) float32, uniform in [0, 1)."""
        return torch.rand(len(x), DRAWS, device=x.device, generator=generator)

    def forward(self, x: Tensor, draws: Tensor, *args: Any) -> Any:
        return self.D(augmented(x, draws, self.policy).to(x.dtype), *args)


def parse_policy(policy: str) -> tuple[str, ...]:
    """The augmentations that a policy names, in the order in which they are applied.

    Args:
        policy: ``"none"``, ``"diffaug"`` (all three) or some of ``"color,translation,cutout"``.

    Raises:
        ValueError: another name, or one that comes twice.
    """
    if policy == "none":
        return ()
    names = tuple(_AUGMENTATIONS if policy == "diffaug" else (name.strip() for name in policy.split(",")))
    if not _AUGMENTATIONS.keys() >= set(names) or len(set(names)) < len(names):
        raise ValueError(f"a policy is none, diffaug, or some of {','.join(_AUGMENTATIONS)}; got {policy!r}")
    return names


def augmented(x: Tensor, draws: Tensor, policy: tuple[str, ...]) -> Tensor:
    """T(x) of images (N, C, H, W), in fp32 or wider.

    Args:
        x: images in [-1, 1].
        draws: (N, DRAWS), uniform in [0, 1).
        policy: of :func:`parse_policy`.

    Raises:
        ValueError: the shapes are others.
    """
    if x.ndim != 4 or draws.shape != (x.shape[0], DRAWS):
        raise ValueError(
            f"augmentation takes images (N, C, H, W) and random numbers (N, {DRAWS}); got shapes {tuple(x.shape)} and "
            f"{tuple(draws.shape)}"
        )
    x = at_least_float32(x)
    for name in policy:
        x = _AUGMENTATIONS[name](x, draws)
    return x


def _color(x: Tensor, draws: Tensor) -> Tensor:
    """Brightness b ~ U(-0.5, 0.5), saturation s ~ U(0, 2), contrast c ~ U(0.5, 1.5). Grey images have no saturation.

    One after the other ``x + b``, ``grey + s (x - grey)`` and ``mean + c (x - mean)``, of which the result is
    ``c s x + c (1 - s) grey + (1 - c) mean + b`` in terms of the grey image and the mean of ``x`` itself.
    """
    u = draws[:, :3, None, None, None].to(x.dtype)
    b, s, c = u[:, 0] - 0.5, 2 * u[:, 1], u[:, 2] + 0.5  # (N, 1, 1, 1)
    grey = x.mean(1, keepdim=True)  # (N, 1, H, W)
    mean = grey.mean((2, 3), keepdim=True)  # (N, 1, 1, 1)
    return c * s * x + (c * (1 - s) * grey + ((1 - c) * mean + b))


def _translation(x: Tensor, draws: Tensor) -> Tensor:
    """A shift by up to an eighth of the size in each direction; what comes in from outside is zero."""
    channels, height, width = x.shape[1:]
    i, inside_i = _shifted(height, draws[:, 3])
    j, inside_j = _shifted(width, draws[:, 4])
    pixels = (i[:, :, None] * width + j[:, None, :]).flatten(1)  # (N, H W)
    moved = x.flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).unflatten(2, (height, width))
    return torch.where((inside_i[:, :, None] & inside_j[:, None, :])[:, None], moved, 0.0)


def _shifted(size: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of ``size`` places takes its value from (N, size), and whether that is inside of the image.

    What is outside wraps around, so that every value is taken exactly once: the backward pass on a GPU then adds no two
    values up, in an order that would vary.
    """
    most = int(size / 8 + 0.5)
    places = torch.arange(size, device=draws.device) + (_integers(draws, 2 * most + 1) - most)
    return places % size, (places >= 0) & (places < size)


def _cutout(x: Tensor, draws: Tensor) -> Tensor:
    """A square of half the size is zero; its middle may lie anywhere, so a part of it may lie outside."""
    rows, columns = _cut(x.shape[2], draws[:, 5]), _cut(x.shape[3], draws[:, 6])
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0.0, x)


def _cut(size: int, draws: Tensor) -> Tensor:
    """Which of ``size`` places are cut out (N, size)."""
    length = int(size / 2 + 0.5)
    first = _integers(draws, size + 1 - length % 2) - length // 2
    places = torch.arange(size, device=draws.device)
    return (places >= first) & (places < first + length)


def _integers(draws: Tensor, count: int) -> Tensor:
    """Uniform integers (N, 1) from 0 to ``count - 1``."""
    return (draws * count).long()[:, None]


_AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
