"""Repeated calls of a compiled step: quick where nothing has changed, and right whatever has."""

from __future__ import annotations

import copy
import gc
import types
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import fastdat
from fastdat import DATConfig
from fastdat.engine import compile as engines
from fastdat.engine import prepared
from tests.compare import gradients, relative_error
from tests.slow_cases import slow_except

CONFIG = DATConfig(eps=4.0, second_order=True)
GAIN = 1.0
"""A global that D's forward reads."""


pytestmark = pytest.mark.usefixtures("only_traced")


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.slope = 0.2

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.linear(x), self.slope)


class Net(nn.Module):
    """Reads everything that a forward pass can read."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(fastdat.spectral_norm(nn.Linear(4, 3)), Layer(), nn.Tanh())
        self.head = nn.Linear(3, 1)
        self.register_buffer("shift", torch.tensor([0.3, -0.2, 0.1]))
        self.options = types.SimpleNamespace(gain=1.0, couples=False)
        self.gains = [1.0, 2.0]
        self.couples = False
        self.activation = torch.sin
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.layers(x)) * GAIN * self.factor * self.options.gain + self.shift
        h = h * self.gains[0] + (h.square() if self.training else 0)
        if hasattr(self, "extra"):
            h = h * self.extra
        if self.couples or self.options.couples:
            h = h + 3 * h.mean(0)
        return self.head(h)


def net() -> Net:
    torch.manual_seed(3)
    D = Net()
    for _ in range(20):
        D(torch.randn(2, 4))  # u and v
    return D


def samples(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(6, 4, generator=generator), torch.rand(6, 4, generator=generator) - 0.5


def step(D: nn.Module, seed: int = 0, compile: bool = True, config: DATConfig = CONFIG) -> Tensor:
    D.zero_grad()
    loss = fastdat.dat_step(D, *samples(seed), config, compile=compile)
    if loss.requires_grad:
        loss.backward()
    return loss.detach()


def assert_right(D: nn.Module, seed: int = 0) -> None:
    """The compiled step of D equals the reference on a copy of it."""
    twin = copy.deepcopy(D)
    twin.zero_grad()
    expected = fastdat.reference.dat_step(twin, *samples(seed), CONFIG)
    expected.backward()
    found = step(D, seed)
    assert relative_error(found, expected.detach()) < 1e-5
    assert relative_error(gradients(D), gradients(twin)) < 1e-5


def scale(factor: float) -> Callable[..., Tensor]:
    return lambda module, inputs, output: output * factor


class Scale:
    """A hook with a state."""

    def __init__(self) -> None:
        self.by = 1.5

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * self.by


def with_a_hook() -> Net:
    D = net()
    D.layers[1].register_forward_hook(scale(1.5))
    return D


def hook_of(D: Net) -> dict[int, Any]:
    hooks: dict[int, Any] = D.layers[1]._forward_hooks
    return hooks


def with_a_state() -> Net:
    D = net()
    D.layers[1].register_forward_hook(Scale())
    return D


def replace_hook(D: Net) -> None:
    (key,) = hook_of(D)
    hook_of(D)[key] = scale(0.5)


CHANGES: dict[str, tuple[Callable[[], Net], Callable[[Net], object]]] = {
    "a hook is added": (net, lambda D: D.layers[1].register_forward_hook(scale(1.5))),
    "a hook is removed": (with_a_hook, lambda D: hook_of(D).clear()),
    "a hook is replaced": (with_a_hook, replace_hook),
    "a hook's state": (with_a_state, lambda D: setattr(next(iter(hook_of(D).values())), "by", 0.5)),
    "a table of hooks is replaced": (
        net,
        lambda D: setattr(D.layers[1], "_forward_hooks", {7: scale(1.5)}),
    ),
    "a pre-hook is added": (net, lambda D: D.head.register_forward_pre_hook(lambda m, x: (2 * x[0],))),
    "a hook on D": (net, lambda D: D.register_forward_hook(scale(2.0))),
    "a pre-hook on D": (net, lambda D: D.register_forward_pre_hook(lambda m, x: (2 * x[0],))),
    "a layer of another kind": (net, lambda D: D.layers.__setitem__(2, nn.ReLU())),
    "a layer of the same kind": (net, lambda D: setattr(D, "head", nn.Linear(3, 1))),
    "a layer is added": (net, lambda D: D.layers.append(nn.Sigmoid())),
    "a layer is removed": (net, lambda D: D.layers.__delitem__(2)),
    "an attribute": (net, lambda D: setattr(D.layers[1], "slope", 0.7)),
    "an attribute of another type": (net, lambda D: setattr(D.options, "gain", True)),
    "a new attribute": (net, lambda D: setattr(D, "extra", 1.7)),
    "a nested attribute": (net, lambda D: setattr(D.options, "gain", 2.5)),
    "an item of a list": (net, lambda D: D.gains.__setitem__(0, 3.0)),
    "a function": (net, lambda D: setattr(D, "activation", torch.cos)),
    "samples are coupled": (net, lambda D: setattr(D, "couples", True)),
    "samples are coupled, nested": (net, lambda D: setattr(D.options, "couples", True)),
    "D's mode": (net, lambda D: D.eval()),
    "a layer's mode": (net, lambda D: D.layers[0].eval()),
    "a parameter is replaced": (net, lambda D: setattr(D.head, "weight", nn.Parameter(torch.ones(1, 3)))),
    "a parameter's memory": (net, lambda D: setattr(D.head.weight, "data", torch.tensor([[1.0, 2, 3]]))),
    "a parameter's values": (net, lambda D: D.head.weight.data.mul_(2)),
    "a parameter is frozen": (net, lambda D: D.head.requires_grad_(False)),
    "a buffer is replaced": (net, lambda D: setattr(D, "shift", torch.tensor([2.0, 1.0, 0.0]))),
    "a buffer's memory": (net, lambda D: setattr(D.shift, "data", torch.tensor([2.0, 1.0, 0.0]))),
    "the memory of v": (
        net,
        lambda D: setattr(
            D.layers[0].parametrizations.weight[0]._v, "data", torch.tensor([0.0, 0.6, -0.8, 0])
        ),
    ),
    "a buffer of another shape": (net, lambda D: setattr(D, "shift", torch.tensor([2.0]))),
    "a forward of its own": (
        net,
        lambda D: setattr(D.layers[2], "forward", types.MethodType(lambda self, x: 2 * x, D.layers[2])),
    ),
    "power iterations": (
        net,
        lambda D: setattr(D.layers[0].parametrizations.weight[0], "n_power_iterations", 3),
    ),
    "spectral norm is removed": (net, lambda D: parametrize.remove_parametrizations(D.layers[0], "weight")),
}


@pytest.mark.parametrize("change", slow_except(list(CHANGES)[::3], CHANGES))  # neighbours are alike
def test_a_change_is_noticed(change: str) -> None:
    make, apply = CHANGES[change]
    D = make()
    step(D)
    step(D)
    apply(D)
    assert_right(D)
    assert_right(D, seed=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_discriminator_that_begins_to_change_its_input_is_refused(seed: int) -> None:
    """However often it is asked: neither does the caller's batch change, nor is a graph of it kept."""
    D = net()
    step(D)
    step(D)
    D.register_forward_pre_hook(lambda module, x: (x[0].mul_(0.5),))
    xr, xf = samples(seed)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"changes its input in place"):
            fastdat.dat_step(D, xr, xf, DATConfig(real=False, fake=False))
        with pytest.raises(ValueError, match=r"changes its input in place"):
            fastdat.dat_step(D, xr, xf, CONFIG)
        torch.testing.assert_close((xr, xf), samples(seed), rtol=0, atol=0)


def test_an_argument_that_begins_to_want_a_gradient_is_refused() -> None:
    class Scaled(Net):
        def forward(self, x: Tensor, by: Tensor) -> Tensor:
            return super().forward(x) * by

    D, by = Scaled(), torch.ones(6, 1)
    for _ in range(2):
        fastdat.dat_step(D, *samples(), CONFIG, args_real=(by,), args_fake=(by,))
    by.requires_grad_()
    with pytest.raises(ValueError, match=r"args_real\[0\] requires a gradient"):
        fastdat.dat_step(D, *samples(), CONFIG, args_real=(by,), args_fake=(by,))


@pytest.mark.slow
def test_coupled_samples_are_noticed_without_spectral_norm() -> None:
    D = net()
    parametrize.remove_parametrizations(D.layers[0], "weight")
    step(D)
    step(D)
    D.options.couples = True
    assert_right(D)
    assert_right(D, seed=1)


def test_a_class_attribute_and_a_global_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    D = net()
    step(D)
    monkeypatch.setattr(Net, "factor", 2.0)
    assert_right(D)
    monkeypatch.setitem(globals(), "GAIN", 3.0)
    assert_right(D)


@pytest.mark.slow
def test_a_discriminator_that_begins_to_normalise_over_the_batch() -> None:
    """It then moves its running statistics, too: another set of buffers."""

    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.head = fastdat.spectral_norm(nn.Linear(4, 1))
            self.options = types.SimpleNamespace(norm=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x) if self.options.norm else x)

    D = Normalising()
    step(D)
    step(D)
    D.options.norm = True
    before = D.norm.running_mean.clone()
    assert_right(D)
    assert not torch.equal(D.norm.running_mean, before)
    D.options.norm = False
    assert_right(D)


def test_going_back_and_forth_compiles_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    D = net()
    for slope in (0.2, 0.7):
        D.layers[1].slope = slope
        step(D)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for slope in (0.2, 0.7, 0.2):
            D.layers[1].slope = slope
            assert_right(D)


def test_an_unchanged_discriminator_is_not_taken_apart_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where it counts its calls, or its plain forward pass has set attributes in between."""
    D = net()
    step(D)
    monkeypatch.setattr(prepared, "structure_of", None)
    monkeypatch.setattr(engines, "signature_of", None)
    for seed in range(3):
        D.calls += 1
        D(samples()[0]).sum().backward()
        D.train()
        step(D, seed)
    monkeypatch.undo()
    assert_right(D, seed=4)


def test_eager_steps_notice_that_samples_are_coupled() -> None:
    D = net()
    step(D, compile=False)
    D.options.couples = True
    twin = copy.deepcopy(D)
    twin.zero_grad()
    expected = fastdat.reference.dat_step(twin, *samples(), CONFIG)
    expected.backward()
    found = step(D, compile=False)
    assert relative_error(found, expected.detach()) < 1e-6
    assert relative_error(gradients(D), gradients(twin)) < 1e-5


def test_eager_steps_inspect_an_unchanged_discriminator_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's older spectral norm leaves another weight behind after each forward pass."""
    D = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 1))
    step(D, compile=False)
    D(samples()[0])
    monkeypatch.setattr(engines, "inspect", None)
    step(D, seed=1, compile=False)


def test_equal_discriminators_share_one_graph() -> None:
    Ds = []
    for seed in range(30):
        torch.manual_seed(seed)
        D = Net()
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            step(D)
        Ds.append(D)
    assert [len(of_kind) for of_kind in engines._ENGINES.values()] == [1]
    for D in Ds[::10]:
        assert_right(D)


def test_fused_discriminators_share_one_graph_too() -> None:
    first, second = fastdat.fuse_spectral_norm(net()), fastdat.fuse_spectral_norm(net())
    step(first)
    with torch._dynamo.config.patch(error_on_recompile=True):
        step(second)
    assert second._forward_hooks
    assert second._forward_pre_hooks


@pytest.mark.slow
def test_similar_discriminators_do_not_share() -> None:
    D, other = net(), net()
    other.layers[1].slope = 0.9
    step(D)
    assert_right(other)
    other.head = nn.Linear(3, 1, bias=False)
    assert_right(other)


def test_a_discriminator_with_hooks_on_itself_is_freed_at_once() -> None:
    """A hook that is a method of D would keep D alive if the step kept the hook."""

    class Noting(Net):
        def __init__(self) -> None:
            super().__init__()
            self.layers[1].register_forward_hook(self.note)

        def note(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            return output * 1.25

    D = Noting()
    step(D)
    assert_right(D)
    gone = ref(D)
    del D
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_two_hundred_discriminators_leave_nothing() -> None:
    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    freed = []
    for i in range(200):
        D = net()
        step(D)
        freed.append(ref(D))
        del D
        if i == 50:
            before = objects()
    assert objects() < before + 200
    assert not any(reference() for reference in freed)


@pytest.mark.slow
def test_memory_of_different_discriminators_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "KINDS", 2)
    for width in range(2, 6):
        step(nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1)))
    assert len(engines._ENGINES) == 2
