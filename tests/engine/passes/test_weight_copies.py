"""A convolution in channels_last takes the weight itself in place of its contiguous copy; others keep the copy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fastdat.engine.passes.weight_copies import WeightCopies

aten = torch.ops.aten


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """As PyTorch's double backward writes it on a GPU."""
    return F.conv2d(x, weight.clone(memory_format=torch.contiguous_format), stride=2, padding=1)


@pytest.mark.parametrize(
    "of_weight", [torch.channels_last, torch.contiguous_format], ids=["w last", "w first"]
)
@pytest.mark.parametrize("of_x", [torch.channels_last, torch.contiguous_format], ids=["x last", "x first"])
def test_the_copy_goes_where_all_is_channels_last(
    of_x: torch.memory_format, of_weight: torch.memory_format
) -> None:
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64).to(memory_format=of_x)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64).to(memory_format=of_weight)
    module = make_fx(convolved, tracing_mode="fake")(x, weight)
    WeightCopies()(module.graph)
    module.graph.lint()
    module.recompile()
    is_left = bool(module.graph.find_nodes(op="call_function", target=aten.clone.default))
    assert is_left is not (of_x == of_weight == torch.channels_last)
    torch.testing.assert_close(module(x, weight), convolved(x, weight), rtol=1e-13, atol=1e-13)


def test_a_copy_that_is_used_elsewhere_stays() -> None:
    def both(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        copy = weight.clone(memory_format=torch.contiguous_format)
        return F.conv2d(x, copy), copy

    x, weight = (torch.randn(s).to(memory_format=torch.channels_last) for s in ((2, 3, 5, 5), (4, 3, 2, 2)))
    module = make_fx(both, tracing_mode="fake")(x, weight)
    WeightCopies()(module.graph)
    module.recompile()
    assert module(x, weight)[1].is_contiguous()
