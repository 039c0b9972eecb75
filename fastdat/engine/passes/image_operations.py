"""Convolutions, average pools and up-samplings of images, as they are found in a graph that Dynamo has traced."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx

TwoInts = tuple[int, int]
LARGEST_WINDOW = 25
"""Elements of the largest window of a pool that inductor makes kernels for. For a larger one it calls ATen's."""


class Conv(NamedTuple):
    """A ``conv2d`` on a batch of images, its padding as numbers."""

    node: fx.Node
    x: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    stride: TwoInts
    padding: TwoInts
    dilation: TwoInts
    groups: int
    kernel: TwoInts

    @property
    def is_pointwise(self) -> bool:
        """Whether each result depends on one position, the same one."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    def macs(self, positions: int) -> int:
        """Multiplications and additions of ``positions`` results of all channels."""
        out_channels, in_channels = shape_of(self.weight)[:2]
        return positions * self.kernel[0] * self.kernel[1] * in_channels * out_channels


class Pool(NamedTuple):
    """An average pool of images."""

    node: fx.Node
    x: fx.Node
    kernel: TwoInts
    stride: TwoInts
    divisor: int | None
    whole_windows: bool
    """No window reaches over the border."""
    keeps_constants: bool
    """The weights of every window sum to one, so that a bias before the pool equals one after it."""


class Upsampling(NamedTuple):
    """An interpolation to more positions whose weights sum to one."""

    node: fx.Node
    x: fx.Node
    mode: str
    scale: tuple[Any, ...]
    """The factors that were given, which decide which pixel is nearest; () where the size was given."""


_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.avg_pool2d: (
        *("input", "kernel_size", "stride", "padding", "ceil_mode"),
        *("count_include_pad", "divisor_override"),
    ),
    F.adaptive_avg_pool2d: ("input", "output_size"),
    F.interpolate: ("input", "size", "scale_factor", "mode"),
}


def _arguments(node: Any, *functions: Any) -> dict[str, Any] | None:
    """The arguments of a call of one of ``functions`` by name; None for another node."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or node.target not in functions:
        return None
    return {**dict(zip(_ARGUMENTS[node.target], node.args, strict=False)), **node.kwargs}


def conv_of(node: Any) -> Conv | None:
    found = _arguments(node, torch.conv2d)
    if found is None:
        return None
    x, weight, bias = found["input"], found["weight"], found.get("bias")
    stride, dilation = two_ints(found.get("stride", 1)), two_ints(found.get("dilation", 1))
    kernel = shape_of(weight)[2:]
    if len(shape_of(node)) != 4 or len(kernel) != 2 or stride is None or dilation is None:
        return None
    given = found.get("padding", 0)
    padding: TwoInts | None
    if given == "valid":
        padding = (0, 0)
    elif given == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = None if any(r % 2 for r in reach) else (reach[0] // 2, reach[1] // 2)
    else:
        padding = two_ints(given)
    groups = found.get("groups", 1)
    if padding is None or type(groups) is not int:
        return None
    return Conv(node, x, weight, bias, stride, padding, dilation, groups, (kernel[0], kernel[1]))


def pool_of(node: Any) -> Pool | None:
    found = _arguments(node, F.avg_pool2d, F.adaptive_avg_pool2d)
    size, result = ((), ()) if found is None else (shape_of(found["input"])[2:], shape_of(node)[2:])
    if found is None or len(size) != 2 or len(result) != 2 or 0 in result:
        return None
    if "output_size" in found:  # adaptive
        if any(n % m for n, m in zip(size, result, strict=True)):
            return None
        window = size[0] // result[0], size[1] // result[1]
        return Pool(node, found["input"], window, window, None, True, True)
    kernel, padding = two_ints(found["kernel_size"]), two_ints(found.get("padding", 0))
    given = found.get("stride")
    stride = kernel if given is None or given == () or given == [] else two_ints(given)
    divisor = found.get("divisor_override")
    if kernel is None or stride is None or padding is None:
        return None
    reach = [(m - 1) * s + k for m, s, k in zip(result, stride, kernel, strict=True)]
    whole = padding == (0, 0) and all(r <= n for r, n in zip(reach, size, strict=True))
    of_ones = divisor is None and (padding == (0, 0) or not found.get("count_include_pad", True))
    return Pool(node, found["input"], kernel, stride, divisor, whole, keeps_constants=of_ones)


def upsampling_of(node: Any) -> Upsampling | None:
    found = _arguments(node, F.interpolate)
    if found is None:
        return None
    x, mode = found["input"], found.get("mode", "nearest")
    before, after = shape_of(x)[2:], shape_of(node)[2:]
    if len(before) != 2 or mode not in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
        return None
    if any(n > m for n, m in zip(before, after, strict=True)) or before == after:
        return None
    given = found.get("scale_factor")
    scale = tuple(given) if isinstance(given, (tuple, list)) else () if given is None else (given, given)
    return Upsampling(node, x, mode, scale)


# --- what the graph says -------------------------------------------------------------------------------------------


def shape_of(node: Any) -> tuple[int, ...]:
    """Of the tensor that a node computes; () where it is unknown or no numbers."""
    value = node.meta.get("example_value") if isinstance(node, fx.Node) else None
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    return shape if all(type(n) is int for n in shape) else ()


def dtype_of(node: fx.Node) -> torch.dtype | None:
    value = node.meta.get("example_value")
    return value.dtype if isinstance(value, Tensor) else None


def positions(node: fx.Node) -> int:
    height, width = shape_of(node)[2:]
    return height * width


def windows_of(
    kernel: Any, stride: Any, padding: Any, counts_padding: bool, divisor: int | None
) -> tuple[TwoInts, TwoInts, TwoInts, int] | None:
    """Size, stride and padding of an average pool's windows, and what each of their sums is divided by.

    None where they are no known numbers, or where each window has a divisor of its own.
    """
    size, step, border = (two_ints(each) for each in (kernel, stride or kernel, padding))
    if size is None or step is None or border is None:
        return None
    if divisor is None and not counts_padding and border != (0, 0):
        return None
    return size, step, border, divisor or size[0] * size[1]


def two_ints(value: Any) -> TwoInts | None:
    """A setting given for both dimensions or for each; None where it is no known number."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    values = values * 2 if len(values) == 1 else values
    return (values[0], values[1]) if len(values) == 2 and all(type(n) is int for n in values) else None
