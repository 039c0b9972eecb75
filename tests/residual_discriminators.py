"""Residual discriminators with pools and an up-sampling beside their convolutions, for 3x9x11 images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as hook_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm


class Residual(nn.Module):
    """A residual D with pools after convolutions and an up-sampling before one, on 3x9x11 images.

    Args:
        norm: put on each layer.
        batch_norm: between its blocks.
        classes: how many it is conditioned on; 0 for none.
        heads: 2 for a further output (N, 4).
    """

    def __init__(
        self,
        norm: Callable[[nn.Module], nn.Module] = lambda module: module,
        *,
        batch_norm: bool = False,
        classes: int = 0,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = norm(nn.Conv2d(3, 6, 3, padding=1)), norm(nn.Conv2d(6, 8, 3, padding=1))
        self.shortcut = norm(nn.Conv2d(3, 8, 1))
        self.norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.up = norm(nn.Conv2d(8, 6, 3, padding=1))
        self.head = norm(nn.Linear(6, 1))
        self.embedding = norm(nn.Embedding(classes, 6)) if classes else None
        self.further = norm(nn.Linear(6, 4)) if heads == 2 else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        h = F.avg_pool2d(self.conv2(F.leaky_relu(self.conv1(x), 0.2)) + self.shortcut(x), 2)
        h = F.leaky_relu(self.norm(h), 0.2)
        h = F.relu(self.up(F.interpolate(h, scale_factor=2))).mean((2, 3))
        logits = self.head(h).squeeze(1)
        if self.embedding is not None:
            logits = logits + (self.embedding(y) * h).sum(1)
        return logits if self.further is None else (logits, self.further(h))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "plain": Residual,
    "spectral": lambda: Residual(spectral_norm),
    "spectral-hook": lambda: Residual(hook_spectral_norm),
    "batch norm": lambda: Residual(batch_norm=True),
    "conditional": lambda: Residual(spectral_norm, classes=5),
    "two heads": lambda: Residual(spectral_norm, heads=2),
}
