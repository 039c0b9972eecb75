"""Benchmark cases of convolutions: ways to compute what SNGAN's discriminator spends most of its time on.

All ways of a case give the same numbers up to rounding; a GPU will tell which one is fastest. The shapes are those of
SNGAN-32 with 64 samples a side, in bf16 and channels_last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.kernel.case import Case, Provider

AS_WRITTEN, ONE_CONVOLUTION = "3x3 convolution, pool", "4x4 convolution, stride 2"
MEANS_FIRST = "means of 2x2, 3x3 convolution, stride 2"
"""What `fastdat.engine.passes.pooled_conv` does."""
LARGE_FILTER, OF_WEIGHT = "filter as large as the image", "convolution_backward"

Shape = tuple[int, int, int, int]
What = Literal["forward", "input gradient", "weight gradient"]


def convolution_backward(
    g: Tensor, x: Tensor, w: Tensor, stride: int, wanted: tuple[bool, bool], padding: int = 1
) -> Tensor:
    """The gradient of a convolution for x or for w: ``wanted`` is (for x, for w), one of them True."""
    arguments = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [*wanted, False])
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(g, x, w, *arguments)
    found: Tensor = of_input if wanted[0] else of_weight
    return found


@dataclass(frozen=True)
class ConvolutionCase(Case):
    """A case with x (N, C, H, W), a 3x3 weight (K, C, 3, 3) and a gradient of the output.

    Args:
        shape: of x.
        features: K.
    """

    shape: Shape
    features: int
    device: torch.device
    slack = 2.0**-8  # half a unit in the last place of bf16: one rounding may go either way

    @property
    def name(self) -> str:
        return f"{self.kernel}-{'x'.join(map(str, self.shape))}-bf16"

    @property
    def output(self) -> Shape:
        n, _, h, w = self.shape
        return n, self.features, h, w

    @property
    def weight(self) -> Shape:
        return self.features, self.shape[1], 3, 3

    @property
    def facts(self) -> dict[str, Any]:
        n, _, h, w = self.shape
        flops = 2 * n * self.features * h * w * torch.Size(self.weight[1:]).numel()
        return {
            "shape": [*self.shape],
            "dtype": "bf16",
            "layout": "channels_last",
            "flops_of_3x3": flops,
        }

    @property
    def bytes(self) -> int:
        """x, the weight and the output, or their gradients, each moved once."""
        return 2 * sum(torch.Size(shape).numel() for shape in (self.shape, self.weight, self.output))

    @property
    def input_bytes(self) -> int:
        return self.bytes

    def inputs(self, seed: int) -> tuple[Tensor, ...]:
        """x, w and the gradient of the output."""
        normal = self._normal(seed)
        scale = torch.Size(self.weight[1:]).numel() ** -0.5
        x, w, g = normal(*self.shape), normal(*self.weight) * scale, normal(*self.output)
        return tuple(t.to(torch.bfloat16, memory_format=torch.channels_last) for t in (x, w, g))

    def exact(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        return self.providers()[0].call(tuple(t.double() for t in inputs))

    def provider_names(self) -> tuple[str, ...]:
        return tuple(provider.name for provider in self.providers())


def _providers(calls: Mapping[str, Callable[..., Tensor]]) -> tuple[Provider, ...]:
    return tuple(Provider(name, partial(_call, call)) for name, call in calls.items())


def _call(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [function(*inputs)]


# --- a 3x3 convolution and an average pool are one convolution of stride 2 ----------------------------------------


def folded(w: Tensor) -> Tensor:
    """The weight (K, C, 4, 4) that computes ``avg_pool2d(conv2d(x, w, padding=1), 2)`` as one convolution of stride 2.

    It is the mean of w (K, C, 3, 3) at the four places over which one output is pooled, taken in float32 or wider.
    """
    wide = w.to(torch.promote_types(w.dtype, torch.float32))
    places = ((0, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 1), (1, 0, 1, 0))
    mean = torch.stack([F.pad(wide, place) for place in places]).mean(0)
    return mean.to(w.dtype).contiguous(memory_format=torch.channels_last)


def unfolded(dw: Tensor) -> Tensor:
    """The gradient for w (K, C, 3, 3), from dw (K, C, 4, 4), the gradient for ``folded(w)``."""
    wide = dw.to(torch.promote_types(dw.dtype, torch.float32))
    parts = [wide[..., i : i + 3, j : j + 3] for i in (0, 1) for j in (0, 1)]
    return torch.stack(parts).mean(0).to(dw.dtype)


@dataclass(frozen=True)
class PooledConvolution(ConvolutionCase):
    """``avg_pool2d(conv2d(x, w, padding=1), 2)`` or one of its gradients."""

    what: What
    kernel = "pooled_convolution"

    @property
    def name(self) -> str:
        return f"{super().name}-{self.what.replace(' ', '_')}"

    @property
    def output(self) -> Shape:
        n, _, h, w = self.shape
        return n, self.features, h // 2, w // 2

    def providers(self) -> tuple[Provider, ...]:
        if self.what == "forward":
            return _providers({AS_WRITTEN: _pooled, MEANS_FIRST: _of_means, ONE_CONVOLUTION: _strided})
        wanted = (self.what == "input gradient", self.what == "weight gradient")
        calls = {
            AS_WRITTEN: _pooled_backward,
            MEANS_FIRST: _of_means_backward,
            ONE_CONVOLUTION: _strided_backward,
        }
        return _providers({name: partial(call, wanted=wanted) for name, call in calls.items()})


def _pooled(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    return F.avg_pool2d(F.conv2d(x, w, padding=1), 2)


def _strided(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    return F.conv2d(x, folded(w), stride=2, padding=1)


def _of_means(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    return F.conv2d(F.avg_pool2d(x, 2, 1, 1), w, stride=2)


def _of_means_backward(x: Tensor, w: Tensor, g: Tensor, wanted: tuple[bool, bool]) -> Tensor:
    found = convolution_backward(g, F.avg_pool2d(x, 2, 1, 1), w, 2, wanted, padding=0)
    if wanted[1]:
        return found
    # Each pixel is in four windows, which is what fastdat's graph computes in one kernel (``passes.pool_gradient``).
    # ATen's gradient of a padded pool may be wrong in channels_last on a GPU (pytorch/pytorch#188344).
    of_image: Tensor = F.avg_pool2d(found, 2, 1)
    return of_image


def _pooled_backward(x: Tensor, w: Tensor, g: Tensor, wanted: tuple[bool, bool]) -> Tensor:
    above = (g / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    above = above.contiguous(memory_format=torch.channels_last)
    return convolution_backward(above, x, w, 1, wanted)


def _strided_backward(x: Tensor, w: Tensor, g: Tensor, wanted: tuple[bool, bool]) -> Tensor:
    found = convolution_backward(g, x, folded(w), 2, wanted)
    return unfolded(found) if wanted[1] else found


# --- the gradient of a weight, as double backward computes it -----------------------------------------------------


@dataclass(frozen=True)
class WeightGradient(ConvolutionCase):
    """The gradient of a 3x3 convolution for its weight.

    PyTorch's double backward computes it as a convolution of the transposed tensors, whose filter is as large as the
    image. The first backward pass uses `convolution_backward`.
    """

    kernel = "weight_gradient"

    def providers(self) -> tuple[Provider, ...]:
        return _providers({OF_WEIGHT: _of_weight, LARGE_FILTER: _by_large_filter})


def _by_large_filter(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    return F.conv2d(x.transpose(0, 1), g.transpose(0, 1), padding=1).transpose(0, 1)


def _of_weight(x: Tensor, w: Tensor, g: Tensor) -> Tensor:
    return convolution_backward(g, x, w, 1, (False, True))


def convolution_cases(
    device: torch.device, samples: int = 128, width: int = 128
) -> Iterator[ConvolutionCase]:
    """All cases of SNGAN-32's shapes, the largest images first. ``samples`` counts both sides."""
    for size in (32, 16):
        for what in ("forward", "input gradient", "weight gradient"):
            yield PooledConvolution((samples, width, size, size), width, device, what)
    for size in (32, 16, 8):
        yield WeightGradient((samples, width, size, size), width, device)
