"""Several weights in one launch: which layer a program works on, and where everything of that layer lies.

A kernel takes its tensors as tuples, one pointer a layer, and a constant table LAYERS, one row a layer. A program finds
its layer by comparing its number with the rows' first programs: a dozen selections, no table in memory, no copy to
the device, nothing that a CUDA graph could find moved. The kernel is compiled once for a D.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# A tile a loop iteration: rows by columns, 2048 elements.
ROWS_TILE = (8, 256)
COLUMNS_TILE = (32, 64)
BLOCK = 2048
WARPS = 4

# The description of a layer for a kernel, by position in LAYERS[i].
START = tl.constexpr(0)  # first program of the layer in this launch
ROWS = tl.constexpr(1)
COLS = tl.constexpr(2)
INNER = tl.constexpr(3)  # place p of a row in memory holds column (p % inner) * outer + p // inner
OUTER = tl.constexpr(4)
U = tl.constexpr(5)  # where u and v begin in `state`, and their unscaled forms in `work`
V = tl.constexpr(6)
U_SUMS = tl.constexpr(7)  # where the partial sums of |Wv|^2 and |W'u|^2 begin in `work`
V_SUMS = tl.constexpr(8)
U_COUNT = tl.constexpr(9)  # and how many there are
V_COUNT = tl.constexpr(10)


@triton.jit
def of_layer(i_program, LAYERS: tl.constexpr, FIELD: tl.constexpr):
    """Field of the layer that a program works on."""
    value = LAYERS[0][FIELD]
    for i in tl.static_range(1, len(LAYERS)):
        value = tl.where(i_program >= LAYERS[i][0], LAYERS[i][FIELD], value)
    return value


@triton.jit
def index_of_layer(i_program, LAYERS: tl.constexpr):
    index = 0
    for i in tl.static_range(1, len(LAYERS)):
        index += (i_program >= LAYERS[i][0]).to(tl.int32)
    return index


@triton.jit
def pointer_of_layer(i_program, pointers, LAYERS: tl.constexpr, ALIGNED: tl.constexpr = False):
    pointer = pointers[0]
    for i in tl.static_range(1, len(LAYERS)):
        pointer = tl.where(i_program >= LAYERS[i][0], pointers[i], pointer)
    if ALIGNED:  # lost in the choice, and needed for loads of 16 bytes
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def size_of_layer(i_program, LAYERS: tl.constexpr, ALIGNED: tl.constexpr):
    size = of_layer(i_program, LAYERS, ROWS) * of_layer(i_program, LAYERS, COLS)
    if ALIGNED:
        size = tl.multiple_of(size, 16)
    return size


@triton.jit
def sum_of(p_sums, count, P: tl.constexpr):
    k = tl.arange(0, P)
    return tl.sum(tl.load(p_sums + k, mask=k < count, other=0.0))


class Layer(NamedTuple):
    """A weight as a matrix, and where its row-major memory has its columns (see ``INNER``)."""

    rows: int
    cols: int
    inner: int
    outer: int


def as_stored(weight: Tensor) -> Tensor:
    """``weight`` itself where its rows lie one after another, contiguous or channels_last; else a contiguous copy."""
    if weight.is_contiguous() or _is_channels_last(weight):
        return weight
    return weight.contiguous()


def _is_channels_last(weight: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return weight.ndim in formats and weight.is_contiguous(memory_format=formats[weight.ndim])


def layer_of(weight: Tensor) -> Layer:
    rows, cols = weight.shape[0], weight[0].numel()
    if weight.is_contiguous():
        return Layer(rows, cols, 1, 0)
    return Layer(rows, cols, weight.shape[1], weight[0, 0].numel())


def state_size(weights: Sequence[Tensor]) -> int:
    return sum(w.shape[0] + w[0].numel() for w in weights)


def accumulator(weight: Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


TRITON_TYPE = {torch.float32: tl.float32, torch.float64: tl.float64}


def blocks(n: int, size: int) -> int:
    return -(-n // size)


def plan(
    layers: Sequence[Layer], programs: Sequence[int], sums: Sequence[int] = ()
) -> tuple[tuple[int, ...], ...]:
    """LAYERS of a launch with ``programs`` programs for each layer.

    ``sums``, if given, are the counts of partial sums at U_SUMS, in place of those of the norms.
    """
    us = [blocks(layer.rows, ROWS_TILE[0]) for layer in layers]
    vs = [blocks(layer.cols, COLUMNS_TILE[1]) for layer in layers]
    n_rows, n_cols = sum(layer.rows for layer in layers), sum(layer.cols for layer in layers)
    start, u, v, u_sum, v_sum = 0, 0, n_rows, n_rows + n_cols, n_rows + n_cols + sum(us)
    if sums:
        us, u_sum = list(sums), 0
    plan = []
    for layer, count, u_count, v_count in zip(layers, programs, us, vs, strict=True):
        plan.append((start, *layer, u, v, u_sum, v_sum, u_count, v_count))
        start, u, v = start + count, u + layer.rows, v + layer.cols
        u_sum, v_sum = u_sum + u_count, v_sum + v_count
    return tuple(plan)


def aligned(layers: Sequence[Layer], *tensors: Sequence[Tensor]) -> bool:
    """Whether all tensors can be loaded and stored 16 bytes at a time.

    A gradient in a bucket of DDP may begin at any address.
    """
    sizes = all(layer.rows * layer.cols % 16 == 0 for layer in layers)
    return sizes and all(t.data_ptr() % 16 == 0 for of_layers in tensors for t in of_layers)


def largest(counts: Sequence[int]) -> int:
    power: int = triton.next_power_of_2(max(counts))
    return power


def split_state(state: Tensor, weights: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """u (rows,) and v (columns,) of each weight, views of ``state``."""
    sizes = [w.shape[0] for w in weights] + [w[0].numel() for w in weights]
    parts = state.split(sizes)
    return parts[: len(weights)], parts[len(weights) :]


SNGAN_32 = (
    Layer(128, 27, 1, 0),
    *[Layer(128, 1152, 128, 9)] * 3,
    Layer(128, 3, 1, 0),
    *[Layer(128, 1152, 1, 0)] * 4,
    Layer(128, 128, 1, 0),
    Layer(1, 128, 1, 0),
)
"""Weights like those of SNGAN-32's discriminator, some of them channels_last: what kernels are compiled offline for."""
