"""Several weights in one launch: which layer a program works on, and where everything of that layer lies.

A kernel takes its tensors as tuples, one pointer a layer, and a constant table LAYERS, one row a layer. A program finds
its layer by comparing its number with the rows' first programs: a dozen selections, no table in memory, no copy to
the device, nothing that a CUDA graph could find moved. The kernel is compiled once for a D.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tile(NamedTuple):
    """What a program works on at a time (rows by columns, 1 by n where a weight is a line), and how."""

    rows: int
    cols: int
    warps: int = 4
    stages: int = 1  # loads under way at a time, where there is a loop


class Tiles(NamedTuple):
    """Of each kernel. A plan, once made, keeps those it was made with (``repeated.Plans.clear``)."""

    rows: Tile = Tile(4, 512)
    columns: Tile = Tile(128, 32)
    divide: Tile = Tile(1, 4096)
    dot: Tile = Tile(1, 2048)
    combine: Tile = Tile(32, 64)


TILES = Tiles()
BLOCKS_A_DOT = 1
"""The fewest blocks that a program of a dot product adds up; it takes more where a layer has too many."""
DOTS_A_LAYER = 256
"""The most programs of a dot product a layer: each program of the next launch reads all their sums."""

# The description of a layer for a kernel, by position in LAYERS[i].
START = tl.constexpr(0)  # first program of the layer in this launch
ROWS = tl.constexpr(1)
COLS = tl.constexpr(2)
INNER = tl.constexpr(3)  # place p of a row in memory holds column (p % inner) * outer + p // inner
OUTER = tl.constexpr(4)
U = tl.constexpr(5)  # where u and v begin in `state`
V = tl.constexpr(6)
WORK_U = tl.constexpr(7)  # where their unscaled forms begin in `work`, v in the order of places
WORK_V = tl.constexpr(8)
U_SUMS = tl.constexpr(9)  # where the partial sums of |Wv|^2 and |W'u|^2 begin in `work`
V_SUMS = tl.constexpr(10)
U_COUNT = tl.constexpr(11)  # and how many there are
V_COUNT = tl.constexpr(12)
IS_WIDE = tl.constexpr(13)  # whether 16 bytes of it can be loaded and stored at a time
LOOPS = tl.constexpr(14)  # blocks that a program of a dot product adds up

# Which layers of a launch are wide: with all or none there is one path in the kernel, else two.
NONE = tl.constexpr(0)
ALL = tl.constexpr(1)
SOME = tl.constexpr(2)


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
def pointer_of_layer(i_program, pointers, LAYERS: tl.constexpr, WIDE: tl.constexpr):
    pointer = pointers[0]
    for i in tl.static_range(1, len(LAYERS)):
        pointer = tl.where(i_program >= LAYERS[i][0], pointers[i], pointer)
    if WIDE:  # lost in the choice, and needed for loads of 16 bytes
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def cols_of_layer(i_program, LAYERS: tl.constexpr, WIDE: tl.constexpr):
    cols = of_layer(i_program, LAYERS, COLS)
    if WIDE:  # a hint on a choice of constants is lost where the compiler simplifies the choice
        cols = (cols // 16) * 16
    return cols


@triton.jit
def size_of_layer(i_program, LAYERS: tl.constexpr, WIDE: tl.constexpr):
    size = of_layer(i_program, LAYERS, ROWS) * of_layer(i_program, LAYERS, COLS)
    if WIDE:
        size = (size // 16) * 16
    return size


@triton.jit
def sums_of(p_sums, count, P: tl.constexpr):
    """Partial sums; added up later, so that other loads need not wait for them."""
    k = tl.arange(0, P)
    return tl.load(p_sums + k, mask=k < count, other=0.0)


@triton.jit
def sum_of(p_sums, count, P: tl.constexpr):
    return tl.sum(sums_of(p_sums, count, P))


class Layer(NamedTuple):
    """A weight as a matrix, and where its row-major memory has its columns (see ``INNER``)."""

    rows: int
    cols: int
    inner: int
    outer: int


def layer_of(weight: Tensor) -> Layer:
    rows, cols = weight.shape[0], weight[0].numel()
    if weight.is_contiguous():
        return Layer(rows, cols, 1, 0)
    return Layer(rows, cols, weight.shape[1], weight[0, 0].numel())


TRITON_TYPE = {torch.float32: tl.float32, torch.float64: tl.float64}


def blocks(n: int, size: int) -> int:
    return -(-n // size)


class Work(NamedTuple):
    """Where everything of a layer lies in ``work``: see the fields of LAYERS of these names."""

    work_u: int
    work_v: int
    u_sums: int
    v_sums: int
    u_count: int
    v_count: int


def work_of(layers: Sequence[Layer]) -> tuple[list[Work], int]:
    """Each on 16 elements; and their size in elements."""
    at = 0

    def place(size: int) -> int:
        nonlocal at
        begin, at = at, at + blocks(size, 16) * 16
        return begin

    work = []
    for rows, cols, *_ in layers:
        us, vs = blocks(rows, TILES.rows.rows), blocks(cols, TILES.columns.cols)
        work.append(Work(place(rows), place(cols), place(us), place(vs), us, vs))
    return work, at


def table(
    layers: Sequence[Layer],
    programs: Sequence[int],
    wide: Sequence[bool],
    work: Sequence[Work],
    loops: Sequence[int] = (),
) -> tuple[tuple[int, ...], ...]:
    """LAYERS of a launch with ``programs`` programs for each layer."""
    start, u, v = 0, 0, sum(layer.rows for layer in layers)
    rows = []
    for i, layer in enumerate(layers):
        rows.append((start, *layer, u, v, *work[i], int(wide[i]), loops[i] if loops else 1))
        start, u, v = start + programs[i], u + layer.rows, v + layer.cols
    return tuple(rows)


def wide_by_rows(layers: Sequence[Layer], aligned: Sequence[bool]) -> list[bool]:
    """Whether 16 bytes of a layer can be loaded and stored at a time, row by row.

    ``aligned``: whether its tensors begin on 16 bytes. A gradient in a bucket of DDP may begin at any address.
    """
    return [a and layer.cols % 16 == 0 for layer, a in zip(layers, aligned, strict=True)]


def wide_in_line(layers: Sequence[Layer], aligned: Sequence[bool]) -> list[bool]:
    """The same where a kernel takes the weight as one line."""
    return [a and layer.rows * layer.cols % 16 == 0 for layer, a in zip(layers, aligned, strict=True)]


def which(wide: Sequence[bool]) -> int:
    """ALL, NONE or SOME."""
    value: int = ALL.value if all(wide) else SOME.value if any(wide) else NONE.value
    return value


def largest(counts: Iterable[int]) -> int:
    power: int = triton.next_power_of_2(max(counts))
    return power


SNGAN_32 = (
    Layer(128, 27, 1, 0),
    *[Layer(128, 1152, 128, 9)] * 3,
    Layer(128, 3, 1, 0),
    *[Layer(128, 1152, 1, 0)] * 4,
    Layer(128, 128, 1, 0),
    Layer(1, 128, 1, 0),
)
"""Weights like those of SNGAN-32's discriminator, some of them channels_last: what kernels are compiled offline for."""
