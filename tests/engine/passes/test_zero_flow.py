"""Zero flow: what is left out costs nothing, what is kept is exact, and nothing that matters is left out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fastdat
from bench.step.flops import of_forward, of_graph
from fastdat import DATConfig, passes, zero_flow
from fastdat.engine.passes import zero_rules
from fastdat.experiments.step_counters import CountFlops
from fastdat.nets import SNGANDiscriminator
from tests.compare import assert_step_matches, gradients, relative_error
from tests.discriminators import KINDS, Smooth, batch, make
from tests.traced_graphs import penalty_gradients, rewritten, traced

aten = torch.ops.aten
SECOND = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)


def images(m: int = 4) -> tuple[Tensor, Tensor]:
    xr, xf = (torch.rand(2, m, 3, 32, 32) * 2 - 1).unbind()
    return xr, xf


def pruned(module: fx.GraphModule) -> fx.GraphModule:
    return rewritten(module, zero_flow.ZeroFlow())


# --- the step ------------------------------------------------------------------------------------------------------


def test_eager_second_order_costs_seven_forward_passes() -> None:
    """The floor (bench/README.md): 8.95 without zero flow."""
    D, (xr, xf) = SNGANDiscriminator(32, ndf=16), images()
    config = DATConfig(second_order=True)
    fastdat.dat_step(D, xr, xf, config, compile=False)  # inspects D
    with CountFlops() as counter:
        fastdat.dat_step(D, xr, xf, config, compile=False)
    assert counter.total / of_forward(D, (xr, xf)) == pytest.approx(7.0, abs=0.01)


@pytest.mark.slow
def test_compiled_second_order_costs_seven_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    D, (xr, xf, _) = make("conv", torch.float32), batch("conv", dtype=torch.float32)
    before_and_after: list[int] = []
    original = zero_flow.ZeroFlow.__call__

    def measured(self: zero_flow.ZeroFlow, graph: fx.Graph) -> None:
        before_and_after.append(of_graph(graph))
        original(self, graph)
        before_and_after.append(of_graph(graph))

    monkeypatch.setattr(zero_flow.ZeroFlow, "__call__", measured)
    # A graph found in the cache would not be counted.
    inductor, autograd = torch._inductor.config, torch._functorch.config
    with inductor.patch(fx_graph_cache=False), autograd.patch(enable_autograd_cache=False):
        fastdat.dat_step(D, xr, xf, DATConfig(second_order=True)).backward()
    before, after = (n / of_forward(D, (xr, xf)) for n in before_and_after)
    assert before > 8
    assert after == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("batchnorm", "smooth")])
def test_eager_gradients_are_those_of_the_full_computation(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: what is left out adds exact zeros."""
    D, (xr, xf, args) = make(kind), batch(kind)
    full = copy.deepcopy(D)
    fastdat.dat_step(D, xr, xf, SECOND, "gan", compile=False, **args).backward()
    monkeypatch.setattr("fastdat.engine.passes.zero_flow._Skipping._is_zero", lambda self, arg: False)
    fastdat.dat_step(full, xr, xf, SECOND, "gan", compile=False, **args).backward()
    assert torch.equal(gradients(D), gradients(full))


# --- gradient penalties --------------------------------------------------------------------------------------------


def test_gradient_penalty_in_a_graph() -> None:
    """3 forward passes where PyTorch takes 5: forward, input gradient, and each differentiated once."""
    D, (x, _, _) = make("conv"), batch("conv")
    params = [p.detach() for p in D.parameters()]
    full = traced(penalty_gradients(D, x), *params)
    short = pruned(full)
    assert of_graph(short.graph) < 0.75 * of_graph(full.graph)
    torch.testing.assert_close(short(*params), full(*params), rtol=0, atol=0)


@pytest.mark.slow
def test_gradient_penalty_compiled_and_eager() -> None:
    D, (x, _, _) = make("conv", torch.float32), batch("conv", dtype=torch.float32)
    params = [p.detach() for p in D.parameters()]
    function = penalty_gradients(D, x)
    expected = function(*params)
    with CountFlops() as full:
        function(*params)
    with CountFlops() as short, zero_flow.skipping():
        found = function(*params)
    assert short.total < 0.75 * full.total
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    compiled = torch.compile(function, fullgraph=True, options=passes.options())
    torch.testing.assert_close(compiled(*params), expected, rtol=1e-5, atol=1e-6)


# --- what must be kept ---------------------------------------------------------------------------------------------


def test_smooth_networks_keep_their_second_derivative() -> None:
    """tanh and softplus bend: nothing of their second derivative is zero, and none is lost."""
    D = Smooth().double()
    params = [p.detach() for p in D.parameters()]
    x = torch.rand(5, 2, dtype=torch.float64)
    full = traced(penalty_gradients(D, x), *params)
    short = pruned(full)
    assert of_graph(short.graph) == of_graph(full.graph)
    torch.testing.assert_close(short(*params), full(*params), rtol=0, atol=0)
    with zero_flow.skipping():
        torch.testing.assert_close(penalty_gradients(D, x)(*params), full(*params), rtol=0, atol=0)


class Mixed(nn.Module):
    """Piecewise linear layers with a smooth one between: some zeros flow, and some that look like it do not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.a(x), 0.2)
        h = F.max_pool2d(F.relu(self.b(torch.tanh(h))), 2)
        return self.c(F.adaptive_avg_pool2d(h, 1).flatten(1)).squeeze(1)


def test_a_smooth_layer_among_piecewise_linear_ones() -> None:
    D = Mixed().double()
    params = [p.detach() for p in D.parameters()]
    x = torch.rand(3, 3, 10, 10, dtype=torch.float64)
    full = traced(penalty_gradients(D, x), *params)
    short = pruned(full)
    assert of_graph(short.graph) < of_graph(full.graph)
    torch.testing.assert_close(short(*params), full(*params), rtol=0, atol=0)


# --- the rules, one by one -----------------------------------------------------------------------------------------


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape)


PROGRAMS: dict[str, Callable[[Tensor], Any]] = {
    "views": lambda x: torch.zeros_like(x).t().reshape(-1)[2:].unsqueeze(0).expand(3, -1) + 1,
    "sum of zero and x": lambda x: (torch.zeros_like(x) + x) * 2,
    "x minus zero": lambda x: (x - torch.zeros_like(x)) * 2,
    "zero minus x": lambda x: (torch.zeros_like(x) - x) * 2,
    "sum with alpha": lambda x: torch.add(torch.zeros_like(x), x, alpha=3) * 2,
    "sum that widens": lambda x: (x + torch.zeros(2, *x.shape)) * 2,
    "sum that changes type": lambda x: (x + torch.zeros_like(x, dtype=torch.float64)) * 2,
    "x as a result": lambda x: x + torch.zeros_like(x),
    "a view of x as a result": lambda x: (x.view(-1) + torch.zeros(x.numel())).view(2, -1),
    "a part of x as a result": lambda x: (x + torch.zeros_like(x) * x).chunk(2)[0],
    "windows of x as a result": lambda x: (x + torch.zeros_like(x) * x).unfold(0, 2, 1),
    "one result twice": lambda x: (x * 2, x * 2 + torch.zeros_like(x)),
    "zero as a result": lambda x: (torch.zeros_like(x) * x, x.sum()),
    "transposed zero as a result": lambda x: torch.zeros_like(x).t() * x.t(),
    "matrix products": lambda x: (x @ torch.zeros_like(x).t(), torch.zeros_like(x).t() @ x, x + 1),
    "bias of a product of zero": lambda x: torch.addmm(ones(5), x, torch.zeros(x.shape[1], 5)),
    "zero bias": lambda x: torch.addmm(torch.zeros(5), torch.zeros_like(x), ones(x.shape[1], 5)) + 1,
    "division of zero by zero": lambda x: torch.zeros_like(x) / torch.zeros_like(x),
    "division by a number": lambda x: torch.zeros_like(x) / 3 + 1,
    "zero to the power zero": lambda x: torch.zeros_like(x) ** 0,
    "where": lambda x: torch.where(x > 0, torch.zeros_like(x), 1.0),
    "padding with ones": lambda x: F.pad(torch.zeros_like(x), (1, 1), value=1.0),
    "cat": lambda x: torch.cat([torch.zeros_like(x), x]) * 2,
    "cat of zeros": lambda x: torch.cat([torch.zeros_like(x), x * 0.0]) + 1,
    "times zero, a number": lambda x: x * 0 + 1,
    "exp of zero": lambda x: torch.exp(torch.zeros_like(x)),
    "cosine of zero": lambda x: torch.cos(torch.zeros_like(x)),
    "filled with one": lambda x: torch.full_like(x, 1.0) * x,
    "split": lambda x: torch.zeros_like(x).chunk(2)[0] + x.chunk(2)[1],
    "comparison with zero": lambda x: torch.zeros_like(x) >= 0,
    "zero bias of a convolution": lambda x: F.conv1d(torch.zeros(1, 2, 6), ones(3, 2, 3), torch.arange(3.0)),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_rule_keeps_the_result(program: str) -> None:
    """Values, shapes, types, and which results share memory, pruned and in eager mode."""
    function = PROGRAMS[program]
    x = torch.randn(4, 6)
    expected = function(x)
    short = pruned(traced(function, x))
    with zero_flow.skipping():
        eager = function(x)
    for found in (short(x), eager):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, check_stride=True)
        results = found if isinstance(found, tuple) else (found,)
        assert len({r.untyped_storage().data_ptr() for r in (x, *results)}) == 1 + len(results)


SUMS = [name for name in PROGRAMS if "sum" in name or "x as a result" in name or "minus" in name]


@pytest.mark.parametrize("program", SUMS)
def test_a_sum_with_zero_goes_where_its_result_is_the_other_summand(program: str) -> None:
    module = traced(PROGRAMS[program], torch.randn(4, 6))
    sums = [sum(node.target in zero_rules.SUMS for node in m.graph.nodes) for m in (module, pruned(module))]
    assert sums == [1, 0 if program in ("sum of zero and x", "x minus zero") else 1]


@pytest.mark.parametrize("zero", ["grad", "input", "weight"])
def test_a_convolution_backward_leaves_out_each_part(zero: str) -> None:
    tensors = {
        "grad": torch.randn(2, 4, 6, 6),
        "input": torch.randn(2, 3, 6, 6),
        "weight": torch.randn(4, 3, 3, 3),
    }

    def function(x: Tensor) -> Any:
        grad, input, weight = (torch.zeros_like(t) if name == zero else t * x for name, t in tensors.items())
        convolution = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, True))
        return aten.convolution_backward(grad, input, weight, [4], *convolution)

    x = torch.tensor(1.5)
    full = traced(function, x)
    short = pruned(full)
    expected = function(x)
    with CountFlops() as counter, zero_flow.skipping():
        eager = function(x)
    for found in (short(x), eager):
        torch.testing.assert_close(found, expected)
    assert of_graph(short.graph) <= of_graph(full.graph) / 2
    assert counter.total <= of_graph(full.graph) / 2


def test_a_tensor_that_was_zero_is_forgotten_when_written_to() -> None:
    weight = torch.randn(6, 3)
    with zero_flow.skipping():
        x = torch.zeros(4, 6)
        view = x.view(4, 6)
        x += 1
        torch.testing.assert_close(x @ weight, torch.ones(4, 6) @ weight)
        torch.testing.assert_close(view @ weight, torch.ones(4, 6) @ weight)


class FillsBehindTheScenes(torch.autograd.Function):
    """Writes its results as an extension's kernel does: into zeros, without PyTorch's knowing."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out.data.copy_(x * 2)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return FillsBehindTheScenes.apply(grad)


class WithExtension(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixing = torch.zeros(8, 8, dtype=x.dtype)
        mixing.data.fill_diagonal_(1.5)
        return self.b(FillsBehindTheScenes.apply(F.relu(self.a(x)) @ mixing))


def test_zeros_that_an_extension_fills_are_no_zeros() -> None:
    D, (xr, xf, _) = WithExtension().double(), batch("mlp")
    assert_step_matches(D, xr, xf, SECOND, "gan", tolerance=1e-12)
    with zero_flow.skipping():
        x = torch.randn(3, 4)
        z = torch.zeros(4, 4)
        z.numpy()[:] = 1.0
        torch.testing.assert_close(x @ z, x.sum(1, keepdim=True).expand(3, 4))


def test_results_with_a_place_of_their_own() -> None:
    out = torch.ones(3, 3)
    with zero_flow.skipping():
        torch.mm(torch.zeros(3, 3), torch.randn(3, 3), out=out)
    assert torch.equal(out, torch.zeros(3, 3))


def test_shapes_that_are_not_known() -> None:
    """Where the compiler knows a shape by name only, zeros stay as they are."""

    def function(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        convolution = ((1,), (1,), (1,), False, (0,), 1, (True, True, True))
        grads = aten.convolution_backward(torch.ones_like(x), torch.zeros_like(x), weight, [3], *convolution)
        return grads[0] * 2, grads[1] * grads[1], grads[2] + 1

    x, weight = torch.randn(5, 3, 7), torch.randn(3, 3, 3)
    compiled = torch.compile(function, dynamic=True, fullgraph=True, options=passes.options())
    torch.testing.assert_close(compiled(x, weight), function(x, weight))


def test_a_zero_without_memory_gets_some() -> None:
    """The second derivative of abs is a tensor without storage, which kernels on the CPU read all the same."""

    def function(x: Tensor) -> Tensor:
        return torch.exp(torch._efficientzerotensor((8,))) + x

    x = torch.randn(8)
    full = traced(function, x)
    short = pruned(full)
    lacking = aten._efficientzerotensor.default
    assert [node.target for node in full.graph.nodes].count(lacking) == 1
    assert [node.target for node in short.graph.nodes].count(lacking) == 0
    assert torch.equal(short(x), 1 + x)


class WithAbs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).abs())


@pytest.mark.slow
def test_a_discriminator_with_abs_compiles_in_second_order() -> None:
    """Without the pass such a step can read a null pointer."""
    xr, xf, _ = batch("mlp", dtype=torch.float32)
    assert_step_matches(WithAbs(), xr, xf, SECOND, "gan", tolerance=1e-5, compile=True)


def test_one_sided_second_order_attack() -> None:
    """Only the attacked side is differentiated twice."""
    D, (xr, xf, _) = make("conv"), batch("conv")
    plain = copy.deepcopy(D)
    config = replace(SECOND, fake=False)
    fastdat.dat_step(D, xr, xf, config, "gan", compile=False).backward()
    fastdat.reference.dat_step(plain, xr, xf, config, "gan").backward()
    assert relative_error(gradients(D), gradients(plain)) < 1e-12
