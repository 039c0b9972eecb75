"""Convolutions beside pools and up-samplings: exact in both orders, for fewer FLOPs, and only where it is exact."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fastdat
from fastdat import DATConfig, passes
from fastdat.engine import compile as engines
from fastdat.engine.passes.pooled_conv import PooledConv
from fastdat.experiments.step_counters import CountFlops
from tests.compare import assert_step_matches, gradients, relative_error
from tests.residual_discriminators import KINDS
from tests.slow_cases import slow_except

FIRST = DATConfig(eps=30.0, delta_clip=0.3)
SECOND = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)
ORDERS = pytest.mark.parametrize("config", slow_except([FIRST], [FIRST, SECOND]), ids=["first", "second"])


class Rewriting:
    """A backend of torch.compile that applies the pass to Dynamo's graph, and runs the graph as it then is."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[str] = []
        self.flops = 0

    def __call__(self, module: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.before += operations(module.graph)
        PooledConv()(module.graph)
        module.recompile()
        self.after += operations(module.graph)

        def run(*args: Any) -> Any:
            with CountFlops() as counter:
                out = module.forward(*args)
            self.flops = counter.total
            return out

        return run

    def compile(self, function: Callable[..., Any], *args: object) -> Callable[..., Any]:
        """In place of ``fastdat.engine.compile.compiled``."""
        torch.compiler.reset()
        return torch.compile(function, backend=self, fullgraph=True, dynamic=False)


def operations(graph: fx.Graph) -> list[str]:
    return [getattr(n.target, "__name__", str(n.target)) for n in graph.nodes if n.op.startswith("call")]


def derivatives(net: nn.Module) -> Callable[..., Any]:
    """Function (weights, x) -> result, gradients of ``E (||dy/dx|| - 1)^2 + E y^2`` for x and the parameters."""

    def loss(x: Tensor, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        def total(x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.func.functional_call(net, weights, (x,))
            # A gradient that differs from sample to sample, position to position and channel to channel.
            return (y * y).sum() / 2 + torch.tanh(y).sum(), y

        gradient, y = torch.func.grad(total, has_aux=True)(x)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean() + y.square().mean(), y

    return torch.func.grad(loss, argnums=(0, 1), has_aux=True)


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters()}


class Form(nn.Module):
    """A function of an image, of the image's convolution by ``conv``, of one more layer ``other``."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def pooled(**conv: Any) -> Callable[..., Form]:
    """A convolution of 4 to 6 channels, then an average pool."""

    def form(*pool: Any, **arguments: Any) -> Form:
        settings = {"kernel_size": 3, **conv}
        return Form(
            lambda self, x: F.avg_pool2d(self.conv(x), *pool, **arguments), conv=nn.Conv2d(4, 6, **settings)
        )

    return form


def resized(mode: str, k: float, **conv: Any) -> Form:
    """An up-sampling, then a convolution of 4 to 6 channels."""
    align = {} if mode in ("nearest", "nearest-exact", "area") else {"align_corners": False}
    layer = nn.Conv2d(4, 6, **conv)
    return Form(lambda self, x: self.conv(F.interpolate(x, scale_factor=k, mode=mode, **align)), conv=layer)


def add_in_place(y: Tensor, z: Tensor) -> Tensor:
    y += z
    return y


SIZE = (3, 4, 9, 7)

# Net, size of its input, largest share of the forward FLOPs that may be left.
EXACT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "3x3, even size": (lambda: pooled(padding=1)(2), (3, 4, 8, 10), 0.25),
    "3x3, odd size": (lambda: pooled(padding=1)(2), SIZE, 0.20),
    "3x3, no padding": (lambda: pooled()(2), SIZE, 0.25),
    "3x3, no bias": (lambda: pooled(padding=1, bias=False)(2), SIZE, 0.25),
    "4x4": (lambda: pooled(kernel_size=4, padding=1)(2), SIZE, 0.25),
    "5x5, wide padding": (lambda: pooled(kernel_size=5, padding=2)(2), SIZE, 0.25),
    "5x3, padding (2, 1)": (lambda: pooled(kernel_size=(5, 3), padding=(2, 1))(2), SIZE, 0.25),
    "same": (lambda: pooled(padding="same")(2), SIZE, 0.25),
    "valid": (lambda: pooled(padding="valid")(2), SIZE, 0.25),
    "circular padding": (lambda: pooled(padding=1, padding_mode="circular")(2), SIZE, 0.25),
    "groups": (lambda: pooled(padding=1, groups=2)(2), SIZE, 0.25),
    "dilation": (lambda: pooled(padding=2, dilation=2)(2), SIZE, 0.25),
    "pool 3": (lambda: pooled(padding=1)(3), (3, 4, 9, 7), 0.12),
    "pool 6": (lambda: pooled(padding=1)(6), (3, 4, 14, 12), 0.04),
    "pool (2, 3)": (lambda: pooled(padding=1)((2, 3)), (3, 4, 9, 7), 0.17),
    "pool 3, stride 2": (lambda: pooled(padding=1)(3, 2), SIZE, 0.25),
    "pool by keywords": (lambda: pooled(padding=1)(kernel_size=2, stride=2, padding=0), SIZE, 0.25),
    "ceil_mode where nothing is over": (lambda: pooled(padding=1)(2, ceil_mode=True), (3, 4, 8, 6), 0.25),
    "another divisor, no bias": (lambda: pooled(bias=False)(2, divisor_override=3), SIZE, 0.25),
    "windows that cost 99 % of what they save": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2, groups=4), nn.AvgPool2d(2)),
        (3, 4, 10, 30),
        0.25,
    ),
    "a module": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(2)), SIZE, 0.25),
    "adaptive": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AdaptiveAvgPool2d((4, 3))),
        (3, 4, 8, 9),
        0.17,
    ),
    "1x1": (lambda: pooled(kernel_size=1)(2), SIZE, 0.25),
    "1x1, groups": (lambda: pooled(kernel_size=1, groups=2)(2), SIZE, 0.25),
    "1x1, ceil_mode": (lambda: pooled(kernel_size=1)(2, ceil_mode=True), SIZE, 0.35),
    "1x1, pool's padding not counted": (
        lambda: pooled(kernel_size=1)(3, 2, 1, count_include_pad=False),
        SIZE,
        0.35,
    ),
    "1x1, pool's padding counted, no bias": (lambda: pooled(kernel_size=1, bias=False)(3, 2, 1), SIZE, 0.35),
    "3x3 and 1x1 and pool": (
        lambda: nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 6, 1), nn.AvgPool2d(2)),
        SIZE,
        0.25,
    ),
    "a sum": (
        lambda: Form(
            lambda self, x: F.avg_pool2d(self.conv(torch.sin(x)) + self.other(x), 2),
            conv=nn.Conv2d(4, 6, 3, padding=1),
            other=nn.Conv2d(4, 6, 1),
        ),
        SIZE,
        0.25,
    ),
    "a sum in place, with a summand that is no convolution": (
        lambda: Form(
            lambda self, x: F.avg_pool2d(add_in_place(self.conv(x), torch.sin(x)), 2),
            conv=nn.Conv2d(4, 4, 3, padding=1),
        ),
        SIZE,
        0.25,
    ),
    "1x1 after bilinear": (lambda: resized("bilinear", 2, kernel_size=1), SIZE, 0.25),
    "1x1 after bicubic by 1.5": (lambda: resized("bicubic", 1.5, kernel_size=1, bias=False), SIZE, 0.50),
    "1x1 after nearest": (lambda: resized("nearest", 2, kernel_size=1, groups=2), SIZE, 0.25),
    "3x3 after nearest": (lambda: resized("nearest", 2, kernel_size=3, padding=1), SIZE, 0.25),
    "3x3 after nearest, no padding": (lambda: resized("nearest", 2, kernel_size=3), SIZE, 0.35),
    "3x3 after nearest-exact": (lambda: resized("nearest-exact", 2, kernel_size=3, padding=1), SIZE, 0.25),
    "5x3 after nearest, groups": (
        lambda: resized("nearest", 2, kernel_size=(5, 3), padding=(2, 1), groups=2, bias=False),
        SIZE,
        0.25,
    ),
    "4x4 after nearest": (lambda: resized("nearest", 2, kernel_size=4, padding=1), SIZE, 0.29),
    "5x5 after nearest by 4": (lambda: resized("nearest", 4, kernel_size=5, padding=1), SIZE, 0.08),
    "3x3 after nn.Upsample((18, 14))": (
        lambda: nn.Sequential(nn.Upsample((18, 14)), nn.Conv2d(4, 6, 3, padding=1)),
        SIZE,
        0.25,
    ),
}


@pytest.mark.parametrize("form", EXACT)
def test_values_and_both_derivatives_are_exact(form: str) -> None:
    make, size, share = EXACT[form]
    net, x = make().double(), torch.randn(size, dtype=torch.float64)
    backend = Rewriting()
    found = backend.compile(derivatives(net))(x, parameters(net))
    assert backend.after != backend.before
    torch.testing.assert_close(found, derivatives(net)(x, parameters(net)), rtol=1e-11, atol=1e-13)
    with torch.no_grad():
        backend.compile(net)(x)
        with CountFlops() as full:
            net(x)
    assert backend.flops <= share * full.total


# --- what must be left alone ---------------------------------------------------------------------------------------


def used_twice(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    return F.avg_pool2d(y, 2) + y.mean()


def sum_used_twice(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x) + torch.sin(x)
    return F.avg_pool2d(y, 2) + y.mean()


def across_no_grad(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = self.conv(x)
    return F.avg_pool2d(y, 2) + x.mean()


def sum_across_no_grad(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = self.conv(x) + torch.sin(x)
    return F.avg_pool2d(y, 2) + x.mean()


def across_autocast(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        return F.avg_pool2d(y, 2)


def across_a_functorch_level(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    return torch.func.grad(lambda s: (F.avg_pool2d(y, 2) * s).sum())(x.mean()) + x.mean((1, 2, 3))


def written_to_in_between(self: Any, x: Tensor) -> Tensor:
    z = x * 1.0
    y = F.interpolate(z, scale_factor=2)
    z.mul_(3.0)
    return self.conv(y) + z.mean()


def sum_with_one_row(self: Any, x: Tensor) -> Tensor:
    return F.avg_pool2d(self.conv(x) + x[:, :1, :1, :1], 2)


def in_place_sum_of_a_view(self: Any, x: Tensor) -> Tensor:
    z = x * 1.0
    y = z.view(z.shape)
    y += self.conv(x)
    return F.avg_pool2d(y, 2) + z.mean()


def conv(**settings: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": 1, **settings})


LEFT_ALONE: dict[str, Callable[[], nn.Module]] = {
    "a result used twice": lambda: Form(used_twice, conv=conv()),
    "a stride": lambda: pooled(padding=1, stride=2)(2),
    "a pool with padding": lambda: pooled(padding=1)(2, padding=1),
    "a pool with stride 1": lambda: pooled(padding=1)(2, 1),
    "ceil_mode with a part of a window": lambda: pooled(padding=1)(2, ceil_mode=True),
    "another divisor and a bias": lambda: pooled(padding=1)(2, divisor_override=3),
    "1x1 with a bias, and padding that counts": lambda: pooled(kernel_size=1)(3, 2, 1),
    "uneven padding": lambda: pooled(kernel_size=4, padding="same")(2),
    "max pool": lambda: nn.Sequential(conv(), nn.MaxPool2d(2)),
    "a nonlinearity between": lambda: nn.Sequential(conv(), nn.ReLU(), nn.AvgPool2d(2)),
    "an adaptive pool that does not divide": lambda: nn.Sequential(conv(), nn.AdaptiveAvgPool2d(2)),
    "windows that cost as much as they save": lambda: Form(
        lambda self, x: F.avg_pool2d(self.conv(x[:, :, :4, :10]), 2), conv=nn.Conv2d(4, 4, 3, groups=4)
    ),
    "3x3 after bilinear": lambda: resized("bilinear", 2, kernel_size=3, padding=1),
    "3x3 after nearest by 3": lambda: resized("nearest", 3, kernel_size=5, padding=1),
    "3x3 after nearest by 1.5": lambda: resized("nearest", 1.5, kernel_size=3, padding=1),
    "3x3 after nearest by 2.05, which gives the size of 2": lambda: resized(
        "nearest", 2.05, kernel_size=3, padding=1
    ),
    "stride after nearest": lambda: resized("nearest", 2, kernel_size=3, padding=1, stride=2),
    "wide padding after nearest": lambda: resized("nearest", 2, kernel_size=3, padding=2),
    "1x1 after down-sampling": lambda: resized("nearest", 0.5, kernel_size=1),
    "across no_grad": lambda: Form(across_no_grad, conv=conv()),
    "across autocast": lambda: Form(across_autocast, conv=conv()),
    "across a functorch level": lambda: Form(across_a_functorch_level, conv=conv()),
    "an image written to in between": lambda: Form(written_to_in_between, conv=conv()),
    "a sum that repeats a summand": lambda: Form(sum_with_one_row, conv=conv()),
    "an in-place sum of a view": lambda: Form(in_place_sum_of_a_view, conv=conv()),
    "a sum without a convolution": lambda: Form(
        lambda self, x: F.avg_pool2d(torch.sin(x) + torch.tanh(x), 2)
    ),
    "a sum used twice": lambda: Form(sum_used_twice, conv=conv()),
    "a sum across no_grad": lambda: Form(sum_across_no_grad, conv=conv()),
    "a transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.AvgPool2d(2)),
    "three dimensions": lambda: Form(
        lambda self, x: F.avg_pool3d(self.conv(x.unsqueeze(2)), (1, 2, 2)), conv=nn.Conv3d(4, 4, (1, 3, 3))
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("form", LEFT_ALONE)
def test_what_is_not_exactly_such_a_form_is_left_alone(form: str) -> None:
    net, x = LEFT_ALONE[form](), torch.randn(SIZE[0], 4, 9, 11)
    backend = Rewriting()
    found = backend.compile(net)(x)
    assert backend.after == backend.before
    torch.testing.assert_close(found, net(x))


# --- the step ------------------------------------------------------------------------------------------------------


def images(dtype: torch.dtype, m: int = 5) -> tuple[Tensor, Tensor]:
    xr, xf = (torch.rand(2, m, 3, 9, 11, dtype=dtype) * 2 - 1).unbind()
    return xr, xf * 0.8 + 0.1


@ORDERS
@pytest.mark.parametrize("kind", slow_except(["spectral"], KINDS))
def test_steps_are_those_of_the_reference(
    kind: str, config: DATConfig, monkeypatch: pytest.MonkeyPatch, own_engines: None
) -> None:
    backend = Rewriting()
    monkeypatch.setattr("fastdat.engine.compile.compiled", lambda f, *_: backend.compile(f))
    args = {}
    if kind == "conditional":
        args = {"args_real": (torch.randint(5, (5,)),), "args_fake": (torch.randint(5, (5,)),)}
    D, (xr, xf) = KINDS[kind]().double().train(), images(torch.float64)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=1e-12, compile=True, **args)
    calls = backend.before.count("conv2d") // 4
    assert calls >= 2
    # The pool of a sum has become a strided convolution and a 1x1 of a pooled image; nearest has gone.
    assert Counter(backend.after)["interpolate"] == 0
    assert Counter(backend.after)["conv_transpose2d"] == calls
    assert Counter(backend.after)["avg_pool2d"] == 3 * calls


@ORDERS
def test_bf16_is_as_exact_as_before(
    config: DATConfig, monkeypatch: pytest.MonkeyPatch, own_engines: None
) -> None:
    """Autocast rounds the averaged images where it rounded the convolution's results."""
    D, (xr, xf) = KINDS["spectral"](), images(torch.float32)
    exact = copy.deepcopy(D).double()
    fastdat.reference.dat_step(exact, xr.double(), xf.double(), config).backward()
    errors = []
    for rewrite in (lambda graph: None, PooledConv().__call__):
        monkeypatch.setattr(PooledConv, "__call__", lambda self, graph, rewrite=rewrite: rewrite(graph))
        backend, ours = Rewriting(), copy.deepcopy(D)
        monkeypatch.setattr(
            "fastdat.engine.compile.compiled", lambda f, *_, backend=backend: backend.compile(f)
        )
        with torch.autocast("cpu", torch.bfloat16):
            fastdat.dat_step(ours, xr, xf, config).backward()
        errors.append(relative_error(gradients(ours), gradients(exact)))
        engines._ENGINES.clear()
    assert errors[0] != errors[1]
    assert errors[1] <= 1.5 * errors[0]


@pytest.mark.slow
def test_a_compiled_step_is_folded() -> None:
    """Through inductor. Its FLOPs are pinned in tests/bench/test_flops.py."""
    D, (xr, xf) = KINDS["spectral"](), images(torch.float32)
    assert_step_matches(D, xr, xf, SECOND, "gan", tolerance=1e-5, compile=True)


def test_folding_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, own_engines: None) -> None:
    asked: list[bool] = []

    def noted(function: Any, mode: str, fold: bool, _: object) -> Any:
        asked.append(fold)
        return function

    monkeypatch.setattr("fastdat.engine.compile.compiled", noted)
    D, (xr, xf) = KINDS["plain"](), images(torch.float32)
    for fold in (True, False):  # each has an engine of its own
        fastdat.dat_step(D, xr, xf, fold=fold)
    assert asked == [True] * 3 + [False] * 3  # the step, and the two passes of one in parts
    assert "pre_grad_custom_pass" in passes.options()
    assert "pre_grad_custom_pass" not in passes.options(fold=False)
