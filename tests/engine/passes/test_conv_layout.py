"""On a CPU a compiled step copies no activation from one layout to another, and its results keep their strides."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from fastdat import dat_step, reference
from fastdat.engine.passes.conv_layout import ConvLayout
from tests.compare import gradients, relative_error

aten = torch.ops.aten


def backward(grad: Tensor, x: Tensor, weight: Tensor) -> Any:
    geometry = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, False))
    out = aten.convolution_backward(grad * 2, x, weight, None, *geometry)
    return out[0] * 2, out[1] * 2


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_intermediate_images_of_a_gradient_are_noted_as_channels_last() -> None:
    grad, x, weight = torch.randn(2, 5, 7, 6), torch.randn(2, 4, 7, 6), torch.randn(5, 4, 3, 3)
    graph = make_fx(backward, tracing_mode="fake")(grad, x, weight).graph
    ConvLayout()(graph)
    (node,) = graph.find_nodes(op="call_function", target=aten.convolution_backward.default)
    layouts = [is_channels_last(arg.meta["val"]) for arg in node.args[:3]]
    assert layouts == [True, False, False]  # an argument of the graph is as it is given


class Deep(nn.Module):
    """Three convolutions of 5 to 7 channels on 3x9x7 images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 5), (5, 6), (6, 7)))
        self.head = nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.b(F.relu(self.a(x))))
        return self.head(F.relu(self.c(F.avg_pool2d(h, 3, 1, 1))).sum((2, 3)))


@pytest.mark.slow
def test_a_step_copies_no_activation() -> None:
    D = Deep()
    xr, xf = (torch.rand(2, 4, 3, 9, 7) * 2 - 1).unbind()
    plain = copy.deepcopy(D)
    reference.dat_step(plain, xr, xf).backward()
    dat_step(D, xr, xf).backward()
    assert relative_error(gradients(D), gradients(plain)) < 1e-5
    with torch.profiler.profile(record_shapes=True) as profile:
        dat_step(D, xr, xf).backward()
    shapes = [e.input_shapes[0] for e in profile.events() if e.name == "aten::copy_" and e.input_shapes]
    assert [s for s in shapes if len(s) == 4 and s[0] == 8 and s[1] > 3] == []
