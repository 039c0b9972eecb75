"""The gradient of an average pool is that of ATen, by kernels without minima in their indices."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._inductor.utils import run_and_get_code
from torch.fx.experimental.proxy_tensor import make_fx

from fastdat.engine import passes
from fastdat.engine.passes.pool_gradient import PoolGradient, simple_pool_gradient
from fastdat.engine.passes.pooled_conv import PooledConv

aten = torch.ops.aten

# Of avg_pool2d: kernel, stride, padding, ceil_mode, count_include_pad, divisor. Images are 6 by 9.
SIMPLE = {
    "every position": ((2, 2), (1, 1), (0, 0)),
    "every position, padded": ((2, 3), (1, 1), (1, 0), False, True, 6),
    "every position, padded otherwise": ((3, 2), (1, 1), (0, 1), False, True, 5),
    "padded, its own divisor": ((2, 2), (1, 1), (1, 1)),
    "side by side": ((2, 3), (2, 3), (0, 0)),
    "side by side, stride left out": ((3, 3),),
    "the whole image": ((6, 9),),
    "no padding to count": ((2, 3), (1, 1), (0, 0), False, False),
}
OTHER = {
    "windows overlap": ((3, 3), (2, 2), (0, 0)),
    "windows with gaps": ((2, 2), (3, 3), (0, 0)),
    "the last window is cut": ((2, 2), (2, 2), (0, 0), True),
    "columns left over": ((2, 2), (2, 2), (0, 0)),
    "a divisor for each window": ((2, 2), (1, 1), (1, 1), False, False),
    "side by side, padded": ((3, 3), (3, 3), (1, 1)),
    "large windows": ((6, 9), (1, 1), (0, 0)),
}


def image() -> Tensor:
    return torch.randn(2, 3, 6, 9, dtype=torch.float64).to(memory_format=torch.channels_last)


def gradient(x: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    """Of a function that weighs every window by another number."""
    return torch.func.grad(lambda x: F.avg_pool2d(x, *geometry).pow(3).sum())(x)


def targets(geometry: tuple[Any, ...]) -> set[Any]:
    graph = make_fx(partial(gradient, geometry=geometry), tracing_mode="fake")(image()).graph
    PoolGradient()(graph)
    graph.lint()
    return {
        node.target
        for node in graph.nodes
        if node.target in (aten.avg_pool2d_backward.default, simple_pool_gradient)
    }


@pytest.mark.parametrize("geometry", SIMPLE.values(), ids=SIMPLE)
def test_simple_geometries_are_rewritten(geometry: tuple[Any, ...]) -> None:
    assert targets(geometry) == {simple_pool_gradient}


@pytest.mark.parametrize("geometry", OTHER.values(), ids=OTHER)
def test_others_are_left_alone(geometry: tuple[Any, ...]) -> None:
    assert targets(geometry) == {aten.avg_pool2d_backward.default}


@pytest.mark.slow
def test_compiled() -> None:
    """All of them in one graph, in two layouts and two types: where a window is one off, another number is found."""
    layouts = torch.channels_last, torch.contiguous_format
    images = [image().to(memory_format=layout) for layout in layouts]
    images.append(image().bfloat16())

    # ATen's formula for the pool itself has minima where it counts what it divides by.
    compiled_too = [g for g in SIMPLE.values() if len(g) > 5 or g[2:3] in ((), ((0, 0),))]

    def gradients(images: list[Tensor]) -> list[Tensor]:
        return [gradient(x, geometry) for x in images for geometry in compiled_too]

    compiled = torch.compile(gradients, fullgraph=True, options=passes.options())
    found, (code,) = run_and_get_code(compiled, images)
    exact = gradients([x.double() for x in images])
    for one, other in zip(found, exact, strict=True):
        tolerance = 1e-14 if one.dtype == torch.float64 else 1e-2
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)
        assert one.stride() == other.stride()
    assert "avg_pool2d_backward" in code
    assert "std::min" not in code


@pytest.mark.parametrize(("size", "padded"), [(3, True), (5, True), (6, False), (7, False)])
def test_no_folded_pool_leaves_a_padded_gradient_to_aten(size: int, padded: bool) -> None:
    """ATen's CUDA kernel gives wrong ones in channels_last (pytorch/pytorch#188344)."""
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.AvgPool2d(size)).double()
    pools: list[tuple[Any, ...]] = []

    def rewritten(module: fx.GraphModule, inputs: list[Tensor]) -> Any:
        PooledConv()(module.graph)
        pools.extend(node.args[1:4] for node in module.graph.nodes if node.target is F.avg_pool2d)
        module.recompile()
        return module.forward

    torch.compiler.reset()
    x = torch.randn(2, 16, 42, 42, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(net, backend=rewritten, fullgraph=True)(x), net(x))
    assert pools == [((size, size), (1, 1), (1, 1) if padded else (0, 0))]


CUT = {
    "side by side": (F.avg_pool2d, (2,), {}),
    "overlapping": (F.avg_pool2d, (3, 2), {}),
    "padded": (F.avg_pool2d, (3, 2, 1), {}),
    "in one direction": (F.avg_pool2d, ((4, 3), (4, 3)), {}),
    "padding not counted": (F.avg_pool2d, (3, 2, 1), {"count_include_pad": False}),
    "with a divisor": (F.avg_pool2d, (2,), {"divisor_override": 3}),
    "of signals": (F.avg_pool1d, (2,), {}),
    "of volumes": (F.avg_pool3d, ((2, 3, 2), 2, (0, 1, 0)), {}),
}


@pytest.mark.slow
def test_windows_that_reach_over_the_border() -> None:
    """Inductor's own formula is wrong there (pytorch/pytorch#198119): by up to the gradient itself."""
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    volumes = torch.randn(2, 3, 5, 6, 7, dtype=torch.float64)

    def gradients(x: Tensor, volumes: Tensor) -> list[Tensor]:
        found = []
        for pool, sizes, options in CUT.values():
            at = volumes if pool is F.avg_pool3d else x[0] if pool is F.avg_pool1d else x
            loss = partial(_cubes, pool=partial(pool, **options, ceil_mode=True), sizes=sizes)
            found.append(torch.func.grad(loss)(at))
        return found

    compiled = torch.compile(gradients, fullgraph=True, options=passes.options(fold=False))
    for name, one, other in zip(CUT, compiled(x, volumes), gradients(x, volumes), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, msg=name)


def _cubes(x: Tensor, pool: Any, sizes: tuple[Any, ...]) -> Tensor:
    return pool(x, *sizes).pow(3).sum()
