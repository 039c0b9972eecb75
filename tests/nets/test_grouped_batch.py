"""Several batches in one pass: the numbers of separate passes, and a view that follows its net."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastdat.nets import (
    ConditionalSNGANGenerator,
    DCGANGenerator,
    InfoMaxGANGenerator,
    MLPGenerator,
    R3GANGenerator,
    SNGANGenerator,
    SSGANGenerator,
    Table3Generator,
)
from fastdat.nets.conditional import ConditionalBatchNorm2d
from fastdat.nets.grouped_batch import InGroups, NotGroupedError
from tests.noted_operations import NotedOperations

NZ, GROUPS, B, CLASSES = 5, 5, 3, 7

GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "sngan": lambda: SNGANGenerator(32, ngf=4, nz=NZ),
    "ssgan": lambda: SSGANGenerator(32, ngf=4, nz=NZ),
    "infomaxgan": lambda: InfoMaxGANGenerator(48, ngf=8, nz=NZ),
    "dcgan": lambda: DCGANGenerator(28, ngf=3, nz=NZ),
    "conditional": lambda: ConditionalSNGANGenerator(32, CLASSES, ngf=4, nz=NZ),
    "table3": lambda: Table3Generator(ngf=3, nz=NZ),
    "r3gan": lambda: R3GANGenerator(32, ngf=16, nz=NZ),
    "mlp": lambda: MLPGenerator(NZ, hidden=6, layers=2),
}


def moved(net: nn.Module) -> nn.Module:
    """Without the zeros and ones of a fresh net, behind which much could hide."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def inputs_of(net: nn.Module, groups: int = GROUPS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """z, and labels for a conditional net. Each batch has its own scale and centre."""
    own = torch.arange(groups, dtype=dtype).repeat_interleave(B)[:, None]
    z = torch.randn(groups * B, NZ, dtype=dtype) * (1 + 0.3 * own) + 0.2 * own
    return (z, torch.randint(CLASSES, (groups * B,))) if hasattr(net, "classes") else (z,)


def separately(net: nn.Module, inputs: tuple[Tensor, ...], groups: int = GROUPS) -> Tensor:
    """One pass a batch, one after another."""
    return torch.cat([net(*batch) for batch in zip(*(x.chunk(groups) for x in inputs), strict=True)])


def assert_same_state(net: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, one), two in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


class Small(nn.Module):
    """Batch norm of vectors, of sequences, of maps with and without weights, conditional, and without statistics."""

    classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NZ, 24)
        self.norm1 = nn.BatchNorm1d(24)
        self.norm2 = nn.BatchNorm1d(6, momentum=0.3)
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(6, affine=False, eps=0.1),
                ConditionalBatchNorm2d(6, CLASSES),
                nn.BatchNorm2d(6, track_running_stats=False),
            ]
        )
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h = self.norm2(self.norm1(self.linear(z)).unflatten(1, (6, 4))).unflatten(2, (2, 2))
        plain, conditional, untracked = self.norms
        h = conditional(self.conv(plain(self.conv(h))), labels)
        return torch.tanh(untracked(self.conv(h)))


@pytest.mark.parametrize("name", GENERATORS)
def test_numbers_of_separate_passes(name: str) -> None:
    G = moved(GENERATORS[name]()).double()
    other = copy.deepcopy(G)
    together = InGroups(G, GROUPS)
    for _ in range(3):
        inputs = inputs_of(G)
        with torch.no_grad():
            torch.testing.assert_close(together(*inputs), separately(other, inputs), rtol=1e-12, atol=1e-12)
        assert_same_state(G, other, rtol=1e-12, atol=1e-12)


def compiled(net: nn.Module) -> Callable[..., Tensor]:
    return torch.compile(net, fullgraph=True)


def traced(net: nn.Module) -> Callable[..., Tensor]:
    """Compiled but for the kernels: seconds instead of a minute."""
    return torch.compile(net, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("compiler", [traced, pytest.param(compiled, marks=pytest.mark.slow)])
def test_compiled(
    compiler: Callable[[nn.Module], Callable[..., Tensor]], compile_counters: dict[str, Counter[str]]
) -> None:
    G = moved(Small()).double()
    other = copy.deepcopy(G)
    together = InGroups(G, GROUPS, compiler=compiler)
    for _ in range(3):
        inputs = inputs_of(G)
        with torch.no_grad():
            torch.testing.assert_close(together(*inputs), separately(other, inputs), rtol=1e-12, atol=1e-12)
        assert_same_state(G, other, rtol=1e-12, atol=1e-12)
    assert compile_counters["stats"]["unique_graphs"] == 1  # the view stays what it was compiled for
    for net in (G, other):
        net.eval()  # the norm without running statistics takes those of each batch in this mode too
    with torch.no_grad():
        torch.testing.assert_close(together(*inputs), separately(other, inputs), rtol=1e-12, atol=1e-12)
    assert_same_state(G, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("compiler", [None, traced])
def test_bf16(compiler: Callable[[nn.Module], Callable[..., Tensor]] | None) -> None:
    G = moved(Small())
    other = copy.deepcopy(G)
    inputs = inputs_of(G, dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        one, two = InGroups(G, GROUPS, compiler=compiler)(*inputs), separately(other, inputs)
    assert one.dtype == two.dtype
    # Of tanh's values, after layers that each round to 8 bits.
    torch.testing.assert_close(one.float(), two.float(), rtol=0, atol=0.05)
    assert (one - two).abs().mean() < 0.01
    assert_same_state(G, other, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("compiler", [None, compiled])
def test_the_layout_stays_and_statistics_are_a_batchs_own(
    compiler: Callable[[nn.Module], Callable[..., Tensor]] | None,
) -> None:
    norm = nn.BatchNorm2d(4, momentum=0.25).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(6, 4, 5, 3, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    x[2:4] += 10
    x[4:] *= 3
    with torch.no_grad():
        out = InGroups(norm, 3, compiler=compiler)(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()
    mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for batch, result in zip(x.split(2), out.split(2), strict=True):
        values = batch.transpose(0, 1).flatten(1)  # (C, B * H * W)
        scale, shift = norm.weight / (values.var(1, correction=0) + norm.eps).sqrt(), norm.bias
        expected = (values - values.mean(1)[:, None]) * scale[:, None] + shift[:, None]
        torch.testing.assert_close(result.transpose(0, 1).flatten(1), expected, rtol=1e-12, atol=1e-12)
        mean, var = 0.75 * mean + 0.25 * values.mean(1), 0.75 * var + 0.25 * values.var(1, correction=1)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.running_var, var, rtol=1e-12, atol=1e-12)
    assert norm.num_batches_tracked == 3


def test_eagerly_a_norm_is_exact_in_every_bit() -> None:
    norm = nn.BatchNorm3d(4)
    other = copy.deepcopy(norm)
    x = torch.randn(8, 4, 2, 3, 5)
    assert torch.equal(InGroups(norm, 4)(x), separately(other, (x,), 4))
    assert_same_state(norm, other, rtol=0, atol=0)


def test_gradients() -> None:
    G = moved(Small()).double()
    other = copy.deepcopy(G)
    inputs = inputs_of(G)
    InGroups(G, GROUPS)(*inputs).square().sum().backward()
    separately(other, inputs).square().sum().backward()
    for one, two in zip(G.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-11)


class Scaled(nn.Module):
    """A net whose own forward depends on its mode and on an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.layers = nn.Sequential(nn.Linear(NZ, 4), nn.BatchNorm1d(4))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z)
        return out * self.scale + (1.0 if self.training else 0.0)


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def _evaluate(net: Scaled) -> None:
    net.eval()


def _evaluate_the_norm(net: Scaled) -> None:
    net.layers[1].eval()


def _load(net: Scaled) -> None:
    net.load_state_dict({k: v + 0.5 if v.is_floating_point() else v for k, v in net.state_dict().items()})


def _replace_parameter(net: Scaled) -> None:
    net.layers[1].weight = nn.Parameter(torch.tensor([1.0, 2.0, -3.0, 4.0], dtype=torch.float64))


def _replace_buffer(net: Scaled) -> None:
    net.layers[1].running_mean = torch.tensor([1.0, 2.0, -3.0, 4.0], dtype=torch.float64)


def _replace_norm(net: Scaled) -> None:
    net.layers[1] = nn.BatchNorm1d(4, eps=0.5, dtype=torch.float64)


def _append(net: Scaled) -> None:
    net.layers.append(nn.BatchNorm1d(4, affine=False, dtype=torch.float64))


def _set_attribute(net: Scaled) -> None:
    net.scale = 3.0


def _parametrize(net: Scaled) -> None:
    parametrize.register_parametrization(net.layers[1], "weight", Halved())


class Doubled(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _change_class(net: Scaled) -> None:
    net.layers[1].__class__ = Doubled


def _cast(net: Scaled) -> None:
    net.float().double()


CHANGES = [
    _evaluate,
    _evaluate_the_norm,
    _load,
    _replace_parameter,
    _replace_buffer,
    _replace_norm,
    _append,
    _set_attribute,
    _parametrize,
    _change_class,
    _cast,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_net_are_seen(change: Callable[[Scaled], None]) -> None:
    net = Scaled().double()
    together = InGroups(net, GROUPS)
    z = torch.randn(GROUPS * B, NZ, dtype=torch.float64) * torch.arange(1.0, 1 + GROUPS * B)[:, None]
    together(z)
    change(net)
    other = copy.deepcopy(net)
    torch.testing.assert_close(together(z), separately(other, (z,)), rtol=1e-12, atol=1e-12)
    assert_same_state(net, other, rtol=1e-12, atol=1e-12)
    # And the net itself is as it was: its own passes still join the whole batch.
    if net.layers[1].training:
        assert not torch.allclose(net(z), separately(other, (z,)))


def test_the_net_is_not_changed_and_one_group_is_the_net() -> None:
    net = moved(Small()).double()
    other = copy.deepcopy(net)
    one = InGroups(net, 1)
    inputs = inputs_of(net)
    with NotedOperations() as ours:
        out = one(*inputs)
    with NotedOperations() as theirs:
        expected = other(*inputs)
    assert torch.equal(out, expected)
    assert ours.found == theirs.found, "and it costs nothing more"
    assert [type(module) for module in net.modules()] == [type(module) for module in other.modules()]
    assert_same_state(net, other, rtol=0, atol=0)
    assert list(one.view.state_dict()) == list(net.state_dict())


def test_a_net_compiled_in_place_is_not_called() -> None:
    net = Scaled().double()
    other = copy.deepcopy(net)
    net.compile(backend="eager")
    z = torch.randn(GROUPS * B, NZ, dtype=torch.float64)
    torch.testing.assert_close(InGroups(net, GROUPS)(z), separately(other, (z,)))


def test_errors() -> None:
    net = Scaled()
    with pytest.raises(ValueError, match="groups must be at least 1; got groups=0"):
        InGroups(net, 0)
    with pytest.raises(ValueError, match="input 0 has 7 rows, which are not 5 batches of one size"):
        InGroups(net, 5)(torch.randn(7, NZ))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        InGroups(net, 5)(torch.randn(5, NZ))
    net.layers[1].momentum = None
    with pytest.raises(NotGroupedError, match=r"BatchNorm1d at 'layers.1' of Scaled has momentum=None"):
        InGroups(net, 5)
    with pytest.raises(NotGroupedError, match="OptimizedModule itself has its own `forward` as an attribute"):
        InGroups(torch.compile(Scaled()), 5)
