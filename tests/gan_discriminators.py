"""Discriminators with the parts of well-known GANs, for 3x8x8 images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as hook_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from tests.discriminators import BatchNormConv, Conv

# --- StyleGAN2 -----------------------------------------------------------------------------------------------------


class Equalised(nn.Module):
    """A convolution, or a linear layer, with an equalised learning rate: the weight is scaled in each call."""

    def __init__(self, inputs: int, outputs: int, size: int | None = None) -> None:
        super().__init__()
        kernel = () if size is None else (size, size)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *kernel))
        self.bias = nn.Parameter(0.1 * torch.randn(outputs))
        self.scale = 1 / math.sqrt(inputs * math.prod(kernel))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if weight.ndim == 2:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class Blurred(nn.Module):
    """A fixed filter over every channel, then half the resolution."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filter", torch.outer(row, row) / row.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(
            F.pad(x, (1, 1, 1, 1)), self.filter.expand(channels, 1, 4, 4), stride=2, groups=channels
        )


class StyleGAN2(nn.Module):
    """A residual block over sqrt(2), and the minibatch standard deviation in groups of three as a further channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Equalised(3, 6, 1)
        self.second = Equalised(6, 8, 3)
        self.skip = Equalised(6, 8, 1)
        self.blur = Blurred()
        self.last = Equalised(9, 5, 3)
        self.head = Equalised(5 * 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(x), 0.2) * math.sqrt(2)
        h = (self.blur(F.leaky_relu(self.second(h), 0.2)) + self.skip(self.blur(h))) / math.sqrt(2)
        n, c, height, width = h.shape
        groups = h.reshape(3, n // 3, c, height, width)
        std = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        h = torch.cat([h, std.repeat(3).reshape(n, 1, 1, 1).expand(n, 1, height, width)], 1)
        return self.head(F.leaky_relu(self.last(h), 0.2).flatten(1))


# --- R3GAN ---------------------------------------------------------------------------------------------------------


class R3GAN(nn.Module):
    """A residual block with grouped convolutions, bilinear downsampling and no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.widen = nn.Conv2d(6, 12, 1, bias=False)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=4, bias=False)
        self.narrow = nn.Conv2d(12, 6, 1, bias=False)
        self.down = nn.Conv2d(6, 4, 1, bias=False)
        self.base = nn.Conv2d(4, 8, 4, groups=4, bias=False)
        self.head = nn.Linear(8, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        inner = F.leaky_relu(self.grouped(F.leaky_relu(self.widen(h), 0.2)), 0.2)
        h = F.interpolate(h + self.narrow(inner), scale_factor=0.5, mode="bilinear", align_corners=False)
        return self.head(F.leaky_relu(self.base(self.down(h)), 0.2).flatten(1)).view(-1)


# --- SAGAN ---------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """Spectral norm everywhere, and attention of every place to every other.

    With ``fused`` it is torch's ``scaled_dot_product_attention``, whose fast kernels want queries and values of one
    width; else it is written out as in SAGAN.
    """

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.fused = fused
        self.first = spectral_norm(nn.Conv2d(3, 8, 4, 2, 1))
        self.query, self.key = (spectral_norm(nn.Conv2d(8, 4, 1)) for _ in range(2))
        self.value = spectral_norm(nn.Conv2d(8, 4, 1))
        self.out = spectral_norm(nn.Conv2d(4, 8, 1))
        self.gamma = nn.Parameter(torch.tensor(0.7))
        self.head = spectral_norm(nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(x), 0.2)
        query, key, value = (
            layer(h).flatten(2).transpose(1, 2).contiguous() for layer in (self.query, self.key, self.value)
        )
        if self.fused:
            found = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=3.0)[
                :, 0
            ]
        else:
            found = (3.0 * query @ key.transpose(1, 2)).softmax(-1) @ value
        h = h + self.gamma * self.out(found.transpose(1, 2).reshape(-1, 4, *h.shape[2:]))
        return self.head(F.relu(h).sum((2, 3)))


# --- activation checkpointing --------------------------------------------------------------------------------------


class Checkpointed(Conv):
    """Its features are computed again during the backward pass, unless ``on`` is False."""

    on = True

    def features(self, x: Tensor) -> Tensor:
        return checkpoint(super().features, x, use_reentrant=False) if self.on else super().features(x)


class CheckpointedBatchNorm(BatchNormConv):
    """The same with batch norm in the features."""

    on = True

    def features(self, x: Tensor) -> Tensor:
        return checkpoint(super().features, x, use_reentrant=False) if self.on else super().features(x)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "stylegan2": StyleGAN2,
    "r3gan": R3GAN,
    "self-attention": SelfAttention,
    "fused-attention": lambda: SelfAttention(fused=True),
}
CHECKPOINTED: dict[str, Callable[[], nn.Module]] = {
    "plain": Checkpointed,
    "spectral": lambda: Checkpointed(spectral_norm),
    "spectral-hook": lambda: Checkpointed(hook_spectral_norm),
    "batchnorm": CheckpointedBatchNorm,
}
