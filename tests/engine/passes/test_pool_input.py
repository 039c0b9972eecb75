"""An average pool of an expression is ATen's. The pass rewrites pools on a GPU; here it is told to do it on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fastdat.engine import passes
from fastdat.engine.passes import pool_input
from fastdat.engine.passes.pool_input import PoolInput, pool_of_expression

aten = torch.ops.aten

# Of avg_pool2d: kernel, stride, padding, ceil_mode, count_include_pad, divisor. Images are 6 by 9.
SIMPLE = {
    "every position": ((2, 2), (1, 1), (0, 0)),
    "every position, padded": ((1, 3), (1, 1), (0, 1), False, True, 6),
    "every position, padded otherwise": ((2, 2), (1, 1), (1, 0)),
    "side by side": ((2, 3), (2, 3), (0, 0)),
    "side by side, stride left out": ((3, 3),),
    "columns left over": ((2, 2), (2, 2), (0, 0)),
    "no padding to count": ((2, 3), (2, 3), (0, 0), False, False),
}
OTHER = {
    "windows overlap": ((3, 3), (2, 2), (0, 0)),
    "read by six windows": ((2, 3), (1, 1), (0, 0)),
    "the last window is cut": ((2, 2), (2, 2), (0, 0), True),
    "a divisor for each window": ((2, 2), (1, 1), (1, 1), False, False),
    "side by side, padded": ((3, 3), (3, 3), (1, 1)),
    "large windows": ((6, 9), (6, 9), (0, 0)),
}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_input, "DEVICES", {"cpu"})


def image() -> Tensor:
    return torch.randn(2, 3, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def pooled(x: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    return F.avg_pool2d((3 * x).relu() - x, *geometry)


def is_rewritten(geometry: tuple[Any, ...], x: Tensor | None = None, mode: str = "fake") -> bool:
    function = partial(pooled, geometry=geometry)
    graph = make_fx(function, tracing_mode=mode)(image() if x is None else x).graph
    PoolInput()(graph)
    graph.lint()
    targets = {node.target for node in graph.nodes}
    assert (pool_of_expression in targets) != (aten.avg_pool2d.default in targets)
    return pool_of_expression in targets


@pytest.mark.parametrize("geometry", SIMPLE.values(), ids=SIMPLE)
def test_simple_geometries_are_rewritten(geometry: tuple[Any, ...]) -> None:
    assert is_rewritten(geometry)


@pytest.mark.parametrize("geometry", OTHER.values(), ids=OTHER)
def test_others_are_left_alone(geometry: tuple[Any, ...]) -> None:
    assert not is_rewritten(geometry)


def test_nothing_is_rewritten_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_input, "DEVICES", {"cuda"})
    assert not is_rewritten(SIMPLE["every position"])


def test_images_without_a_batch_or_of_unknown_size_are_left_alone() -> None:
    assert not is_rewritten(SIMPLE["side by side"], image()[0])
    assert not is_rewritten(SIMPLE["side by side"], mode="symbolic")


@pytest.mark.slow
def test_compiled() -> None:
    """All of them in one graph, in two layouts and two types, with their gradients."""
    images = [image(), image().to(memory_format=torch.channels_last), image().bfloat16()]

    def all_pools(*images: Tensor) -> list[Tensor]:
        return [pooled(x, geometry) for x in images for geometry in SIMPLE.values()]

    compiled = torch.compile(all_pools, options=passes.options())
    ours = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in images]
    theirs = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in images]
    found, expected = compiled(*ours), all_pools(*theirs)
    for a, b in zip(found, expected, strict=True):
        tolerance = 2**-7 if a.dtype == torch.bfloat16 else 1e-12
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for pools, given in ((found, ours), (expected, theirs)):
        sum(p.double().pow(2).sum() for p in pools).backward()  # type: ignore[union-attr]
        assert all(x.grad is not None for x in given)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)
