"""Gradients of weights after double backward: rewritten where that is exact, and left alone everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.parametrizations import spectral_norm

from bench.step.flops import of_graph
from fastdat import DATConfig
from fastdat.engine.passes.weight_gradient import WeightGradient
from tests.compare import assert_step_matches
from tests.traced_graphs import penalty_gradients, rewritten, traced

aten = torch.ops.aten
Program = Callable[[Tensor, Tensor, Tensor, Tensor], Any]

N = 5
"""Samples; no tensor here has five channels, so a tensor of shape (_, N, ...) is one with its batch exchanged."""


def exchanged(graph: fx.Graph) -> int:
    """How many tensors have their batch in the second dimension: operands of correlations, and their copies."""
    values = [node.meta.get("val") for node in graph.nodes]
    return sum(isinstance(v, Tensor) and v.ndim > 2 and v.shape[1] == N for v in values)


def gradients_of_weights(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that compute the gradient of a weight alone."""
    backward = aten.convolution_backward.default
    return [node for node in graph.nodes if node.target is backward and node.args[-1] == [False, True, False]]


# --- every geometry ------------------------------------------------------------------------------------------------


class Cubed(nn.Module):
    """The sum of the cubes of a convolution's output, whose second derivative depends on input, weight and bias."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).pow(3).flatten(1).sum(1)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3x3": (nn.Conv2d(4, 6, 3, padding=1), (N, 4, 9, 7)),
    "1x1": (nn.Conv2d(4, 6, 1), (N, 4, 9, 7)),
    "4x4, stride 2": (nn.Conv2d(4, 6, 4, stride=2, padding=1), (N, 4, 8, 12)),
    "3x3, stride 2, narrowed": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (N, 4, 10, 7)),
    "3x3, stride 3, narrowed": (nn.Conv2d(4, 6, 3, stride=3), (N, 4, 11, 13)),
    "3x3, padding 2, no bias": (nn.Conv2d(4, 6, 3, padding=2, bias=False), (N, 4, 9, 7)),
    "3x3, dilated": (nn.Conv2d(4, 6, 3, padding=2, dilation=2), (N, 4, 9, 7)),
    "3x4, dilated, stride 3": (nn.Conv2d(4, 6, (3, 4), stride=3, dilation=2), (N, 4, 13, 12)),
    "3x5, each direction its own": (
        nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 3), dilation=(1, 2)),
        (N, 4, 10, 11),
    ),
    "two groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (N, 4, 9, 7)),
    "two groups, narrowed": (nn.Conv2d(4, 6, (3, 4), stride=2, padding=1, groups=2), (N, 4, 10, 7)),
    "depthwise": (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), (N, 4, 9, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (N, 4, 4, 3)),
    "transposed, narrowed": (nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), (N, 4, 4, 3)),
    "transposed, groups": (
        nn.ConvTranspose2d(4, 6, (3, 2), 2, output_padding=(1, 0), groups=2),
        (N, 4, 4, 3),
    ),
    "as large as the image": (nn.Conv2d(4, 6, (4, 3)), (N, 4, 4, 3)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (N, 4, 10)),
    "three dimensions": (nn.Conv3d(4, 6, (1, 3, 2), stride=(1, 2, 1)), (N, 4, 3, 6, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_rewritten_graph_computes_the_same(name: str, layout: str) -> None:
    layer, shape = LAYERS[name]
    D, x = Cubed(layer).double(), torch.randn(shape, dtype=torch.float64)
    if layout == "channels_last":
        if len(shape) != 4:
            pytest.skip("only images have this layout")
        x = x.contiguous(memory_format=torch.channels_last)
    params = [p.detach() for p in D.parameters()]
    full = traced(penalty_gradients(D, x), *params)
    short = rewritten(full, WeightGradient())
    torch.testing.assert_close(short(*params), full(*params), rtol=1e-12, atol=1e-12)
    assert exchanged(full.graph) > 0
    assert exchanged(short.graph) == 0
    if getattr(layer, "groups", 1) == 1:  # torch's formula for convolution_backward ignores them
        assert of_graph(short.graph) <= of_graph(full.graph)


def test_a_single_sample() -> None:
    D, x = Cubed(nn.Conv2d(4, 6, 3, stride=2, padding=1)).double(), torch.randn(1, 4, 10, 7).double()
    params = [p.detach() for p in D.parameters()]
    full = traced(penalty_gradients(D, x), *params)
    short = rewritten(full, WeightGradient())
    torch.testing.assert_close(short(*params), full(*params), rtol=1e-12, atol=1e-12)
    assert len(gradients_of_weights(short.graph)) == 1


def test_narrowing_made_the_convolution_more_expensive() -> None:
    """So FLOPs get fewer, by the share that was cut off."""
    D, x = Cubed(nn.Conv2d(4, 6, 3, stride=3)).double(), torch.randn(N, 4, 11, 11).double()
    params = [p.detach() for p in D.parameters()]
    full = traced(penalty_gradients(D, x), *params)
    one = (
        of_graph(rewritten(full, WeightGradient()).graph) / 5
    )  # forward, two backward passes, two of the latter
    assert of_graph(full.graph) == (4 + 25 / 9) * one


def test_bfloat16_is_as_accurate() -> None:
    D, x = Cubed(nn.Conv2d(4, 6, 3, stride=2, padding=1)), torch.randn(N, 4, 10, 7, dtype=torch.bfloat16)
    params = [p.detach().bfloat16() for p in D.parameters()]
    full = traced(penalty_gradients(D, x), *params)
    short = rewritten(full, WeightGradient())
    assert len(gradients_of_weights(short.graph)) == 1
    exact = penalty_gradients(D, x.double())(*[p.double() for p in params])
    for found, before, expected in zip(short(*params), full(*params), exact, strict=True):
        assert found.dtype == torch.bfloat16
        error = (found.double() - expected).norm()
        assert error <= 1.5 * (before.double() - expected).norm() + 2**-9 * expected.norm()


# --- which weight, which layout ------------------------------------------------------------------------------------


def propagated(x: Tensor, w: Tensor, g: Tensor, groups: int = 1) -> Tensor:
    """The gradient for x of a layer with stride 3 and padding 1, whose output's gradient is g."""
    of_x, _, _ = aten.convolution_backward(
        g, x, w, None, [3, 3], [1, 1], [1, 1], False, [0, 0], groups, [True, False, False]
    )
    return of_x


def correlated(
    v: Tensor, g: Tensor, stride: int = 1, padding: int = 1, dilation: int = 3, bias: Tensor | None = None
) -> Tensor:
    """What double backward asks for in this layer, not yet transposed."""
    return F.conv2d(v.transpose(0, 1), g.transpose(0, 1), bias, stride, padding, dilation)


def share(t: Tensor, group: int, groups: int) -> Tensor:
    """The first dimension's share of a group."""
    length = t.shape[0] // groups
    return t.narrow(0, group * length, length)


def narrowed(r: Tensor) -> Tensor:
    return r[:, :, :3][:, :, :, :3]


def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, v, g and w of the layer; ``correlated`` gives 5x5, of which 3x3 are the gradient of w."""
    x, v = torch.randn(2, N, 4, 12, 9, dtype=torch.float64).unbind()
    return x, v, torch.randn(N, 6, 4, 3).double(), torch.randn(6, 4, 3, 3).double()


def test_the_weight_is_that_of_the_layer() -> None:
    """Another layer of the same shapes would give the same numbers, and keep a tensor alive for it."""

    def function(x: Tensor, v: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        ours, other = propagated(x, w * 2, g), propagated(x, w * 3, g * 4)
        return ours, other, narrowed(correlated(v, g).transpose(0, 1))

    short = rewritten(traced(function, *tensors()), WeightGradient())
    (found,) = gradients_of_weights(short.graph)
    assert found.args[2].args[1] == 2


@pytest.mark.parametrize("groups", [1, 2])
def test_copies_that_a_gpu_gets(groups: int) -> None:
    """On a GPU double backward makes its filters contiguous."""

    def function(x: Tensor, v: Tensor, g: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        of_x = propagated(x, w[:, : 4 // groups], g, groups)
        a, b = v.transpose(0, 1), g.transpose(0, 1)
        parts = [
            F.conv2d(share(a, i, groups), share(b, i, groups).contiguous(), None, 1, 1, 3)
            for i in range(groups)
        ]
        r = torch.cat(parts, 1) if groups > 1 else parts[0]
        return of_x, narrowed(r.transpose(0, 1))

    arguments = tensors()
    full = traced(function, *arguments)
    short = rewritten(full, WeightGradient())
    assert aten.clone.default in [node.target for node in full.graph.nodes]
    assert exchanged(short.graph) == 0
    torch.testing.assert_close(short(*arguments), full(*arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 6])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strides_stay_in_their_order(outputs: int, layout: torch.memory_format) -> None:
    """With one output the result was contiguous already, and a ``contiguous`` for a kernel was left out."""
    x, v = torch.randn(2, N, 4, 9, 7).double().unbind()
    g, w = torch.randn(N, outputs, 9, 7).double(), torch.randn(outputs, 4, 3, 3).double()

    def function(*arguments: Tensor) -> tuple[Tensor, ...]:
        x, v, g, w = arguments
        of_x, _, _ = aten.convolution_backward(
            g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
        )
        return of_x, correlated(v, g, dilation=1).transpose(0, 1)

    arguments = [t.contiguous(memory_format=layout) for t in (x, v, g, w)]
    full = traced(function, *arguments)
    short = rewritten(full, WeightGradient())
    assert len(gradients_of_weights(short.graph)) == 1
    found, expected = short(*arguments)[1], full(*arguments)[1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.squeeze(0).stride() == expected.squeeze(0).stride()
    assert found.is_contiguous() == expected.is_contiguous() == (outputs == 1)


# --- what must not match -------------------------------------------------------------------------------------------


def with_layer(result: Callable[..., Any]) -> Program:
    """The layer, and ``result(v, g)``."""
    return lambda x, v, g, w: (propagated(x, w, g), result(v, g))


def by_group(
    x: Tensor, v: Tensor, g: Tensor, w: Tensor, *order: int, whole: bool = False
) -> tuple[Tensor, ...]:
    """A layer of two groups, and the correlations of these groups in the given order."""
    of_x, a, b = propagated(x, w[:, :2], g, groups=2), v.transpose(0, 1), g.transpose(0, 1)
    parts = [F.conv2d(share(a, i, 2), share(b, i, 2), None, 1, 1, 3) for i in order]
    return of_x, narrowed(torch.cat(parts, 1).transpose(0, 1)), *parts[: int(whole)]


AS_DOUBLE_BACKWARD = with_layer(lambda v, g: narrowed(correlated(v, g).transpose(0, 1)))

OTHERS: dict[str, Program] = {
    "no layer": lambda x, v, g, w: narrowed(correlated(v, g).transpose(0, 1)),
    "a layer that comes later": lambda x, v, g, w: (
        narrowed(correlated(v, g).transpose(0, 1)),
        propagated(x, w, g),
    ),
    "a layer with a larger weight": lambda x, v, g, w: (
        propagated(x, F.pad(w, (0, 1, 0, 1)), g),
        narrowed(correlated(v, g).transpose(0, 1)),
    ),
    "a layer of another type": lambda x, v, g, w: (
        propagated(x.float(), w.float(), g.float()),
        narrowed(correlated(v, g).transpose(0, 1)),
    ),
    "another padding": with_layer(lambda v, g: narrowed(correlated(v, g, padding=2).transpose(0, 1))),
    "another dilation": with_layer(lambda v, g: narrowed(correlated(v, g, dilation=2).transpose(0, 1))),
    "a stride": with_layer(lambda v, g: correlated(v, g, stride=2).transpose(0, 1)),
    "a bias": with_layer(lambda v, g: narrowed(correlated(v, g, bias=g[0, :, 0, 0]).transpose(0, 1))),
    "the last places": with_layer(lambda v, g: correlated(v, g).transpose(0, 1)[:, :, 2:, 2:]),
    "every other place": with_layer(lambda v, g: correlated(v, g).transpose(0, 1)[:, :, ::2, ::2]),
    "a convolution that is used elsewhere": with_layer(
        lambda v, g: ((r := correlated(v, g)), narrowed(r.transpose(0, 1)))
    ),
    "a result that is used whole as well": with_layer(
        lambda v, g: ((r := correlated(v, g).transpose(0, 1)).sum(), narrowed(r))
    ),
    "a result that is not transposed": lambda x, v, g, w: (
        propagated(x, w[:4], g[:, :4]),
        narrowed(correlated(v, g[:, :4])),
    ),
    "a result with rows and columns exchanged": lambda x, v, g, w: (
        propagated(x, w[:4], g[:, :4]),
        narrowed(correlated(v, g[:, :4]).transpose(2, 3)),
    ),
    "operands with rows and columns exchanged": lambda x, v, g, w: (
        propagated(x[:, :, :9], w, g[:, :, :3]),
        F.conv2d(v[:, :, :9].permute(1, 0, 3, 2), g[:, :, :3].permute(1, 0, 3, 2), None, 1, 1, 3)
        .transpose(0, 1)[:, :, :3]
        .narrow(3, 0, 3),
    ),
    "a filter that is not transposed": lambda x, v, g, w: (
        propagated(x, w, g),
        narrowed(
            F.conv2d(v.transpose(0, 1), g[0, 0, 0, 0].expand(6, N, 4, 3), None, 1, 1, 3).transpose(0, 1)
        ),
    ),
    "groups in another order": lambda *arguments: by_group(*arguments, 1, 0),
    "a group twice": lambda *arguments: by_group(*arguments, 0, 0),
    "a group that is used elsewhere": lambda *arguments: by_group(*arguments, 0, 1, whole=True),
    "a transposed convolution": lambda x, v, g, w: (
        propagated(x, w[:N], g[:, :N]),
        narrowed(
            F.conv_transpose2d(v.transpose(0, 1), g[:, :N].transpose(0, 1), None, 1, 1, dilation=3).transpose(
                0, 1
            )
        ),
    ),
    "whole numbers": lambda x, v, g, w: (
        F.conv2d(x.long(), w.long(), None, 3, 1),
        narrowed(correlated(v.long(), g.long()).transpose(0, 1)),
    ),
}


@pytest.mark.parametrize(
    "program", [AS_DOUBLE_BACKWARD, lambda *arguments: by_group(*arguments, 0, 1)], ids=["one", "groups"]
)
def test_what_the_others_differ_from(program: Program) -> None:
    arguments = tensors()
    full = traced(program, *arguments)
    short = rewritten(full, WeightGradient())
    assert len(gradients_of_weights(short.graph)) == 1
    torch.testing.assert_close(short(*arguments), full(*arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_left_alone(name: str) -> None:
    arguments = tensors()
    full = traced(OTHERS[name], *arguments)
    short = rewritten(full, WeightGradient())
    assert gradients_of_weights(short.graph) == []
    torch.testing.assert_close(short(*arguments), full(*arguments), rtol=0, atol=0)


def test_shapes_that_are_not_known() -> None:
    arguments = tensors()
    full = make_fx(AS_DOUBLE_BACKWARD, tracing_mode="symbolic")(*arguments)
    short = rewritten(full, WeightGradient())
    assert gradients_of_weights(short.graph) == []
    torch.testing.assert_close(short(*arguments), full(*arguments), rtol=0, atol=0)


def test_a_slice_whose_end_is_not_known() -> None:
    arguments = tensors()
    full = traced(AS_DOUBLE_BACKWARD, *arguments)
    *_, weight = (node for node in full.graph.nodes if node.op == "placeholder")
    for node in full.graph.nodes:
        if node.target is aten.slice.Tensor and node.args[3] == 3:
            with full.graph.inserting_before(node):
                length = full.graph.call_function(aten.sym_size.int, (weight, 2))
            node.args = (*node.args[:3], length)
    full.recompile()
    short = rewritten(full, WeightGradient())
    assert gradients_of_weights(short.graph) == []
    torch.testing.assert_close(short(*arguments), full(*arguments), rtol=0, atol=0)


# --- the step ------------------------------------------------------------------------------------------------------


class Strided(nn.Module):
    """Convolutions with stride, with groups and of 1x1 under spectral norm, for 3x8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.a = spectral_norm(nn.Conv2d(3, 8, 3, stride=2, padding=1))
        self.b = spectral_norm(nn.Conv2d(8, 12, 3, padding=1, groups=4))
        self.c = nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.c(F.leaky_relu(self.b(h), 0.2)).flatten(1).sum(1)


@pytest.mark.slow
def test_a_compiled_second_order_step(monkeypatch: pytest.MonkeyPatch) -> None:
    before_and_after: list[tuple[int, int]] = []
    original = WeightGradient.__call__

    def counted(graph: fx.Graph) -> tuple[int, int]:
        correlations = [
            node
            for node in graph.nodes
            if node.target is aten.convolution.default and node.args[0].meta["val"].shape[1] == 2 * N
        ]
        return len(correlations), len(gradients_of_weights(graph))

    def measured(self: WeightGradient, graph: fx.Graph) -> None:
        before_and_after.append(counted(graph))
        original(self, graph)
        before_and_after.append(counted(graph))

    monkeypatch.setattr(WeightGradient, "__call__", measured)
    xr, xf = (torch.rand(2, N, 3, 8, 8) * 2 - 1).unbind()
    config = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)
    # A graph found in the cache would not be counted.
    inductor, autograd = torch._inductor.config, torch._functorch.config
    with inductor.patch(fx_graph_cache=False), autograd.patch(enable_autograd_cache=False):
        assert_step_matches(Strided(), xr, xf, config, tolerance=1e-5, compile=True)
    (correlations, gradients), (no_more, all_gradients) = before_and_after
    assert (correlations, no_more) == (1 + 4 + 1, 0)
    assert all_gradients == gradients + 3
