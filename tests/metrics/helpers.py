"""A quick extractor, and what several tests of the metrics use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.metrics import EvalConfig, Extractor

CPU = torch.device("cpu")


class Colours(nn.Module):
    """Quick features: mean and spread of each channel, and where in the image it is bright."""

    images_seen = 0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, images: Tensor) -> Tensor:
        Colours.images_seen += len(images)
        x = images.float().div(255) * self.scale
        return torch.cat(
            [x.mean((2, 3)), x.std((2, 3)), nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)], dim=1
        )


def colours(weights: str | None) -> Extractor:
    """The extractor "colours"; any weights file gives it other weights."""
    return Extractor("colours", Colours(2.0 if weights else 1.0), "none")


def config(**changes: Any) -> EvalConfig:
    """A quick evaluation."""
    settings: dict[str, Any] = {"extractor": "colours", "metrics": ("kid", "fid"), "fakes": 60, "reals": 80}
    return EvalConfig(**settings | changes)


def part(data: ImageSet, start: int, stop: int) -> ImageSet:
    """Images ``start`` to ``stop`` of a set."""
    rows = slice(start, stop)
    return ImageSet(f"{data.name}[{start}:{stop}]", data.images[rows], data.labels[rows], data.classes)


def fakes_of(images: Tensor) -> Any:
    """A generator that generates the given images or points."""

    def fakes(count: int) -> Iterator[Tensor]:
        yield from images[:count].split(32)

    return fakes
