"""Whether D is as it was, without a compilation: what a snapshot notices, and what makes two Ds alike."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, spectral_norm, weight_norm

from fastdat.engine.structure import Reads, Same, Snapshot, frozen, is_constant, signature_of, structure_of


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.factor = 2.5
        self.options = SimpleNamespace(power=2, names=["a", "b"])
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("nothing", None)


def net() -> nn.Sequential:
    return nn.Sequential(Scaled(), nn.BatchNorm1d(3), nn.Linear(3, 1))


def snapshot(D: nn.Module) -> Snapshot:
    structure = structure_of(D)
    return Snapshot(structure, Reads.everything(structure))


def scaled(D: nn.Sequential) -> Any:
    return D[0]


def hook(module: nn.Module, inputs: object, output: object = None) -> None:
    pass


def of_another_class(D: nn.Sequential) -> None:
    D[2].__class__ = type("Other", (nn.Linear,), {})


def replace_weight(D: nn.Sequential) -> None:
    D[2].weight = nn.Parameter(D[2].weight.detach())


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "a parameter is another object": replace_weight,
    "a parameter is gone": lambda D: D[2].register_parameter("bias", None),
    "a parameter more": lambda D: D[1].register_parameter("gain", nn.Parameter(torch.ones(3))),
    "a buffer is another object": lambda D: scaled(D).register_buffer("mean", torch.zeros(3)),
    "a buffer more": lambda D: scaled(D).register_buffer("nothing", torch.ones(2)),
    "a child is another one": lambda D: scaled(D).register_module("layer", nn.Linear(2, 3)),
    "a child more": lambda D: D.append(nn.Tanh()),
    "a class": of_another_class,
    "a mode": lambda D: D[1].eval(),
    "a hook": lambda D: D[2].register_forward_hook(hook),
    "a hook before": lambda D: D[2].register_forward_pre_hook(hook),
    "a hook of the gradient": lambda D: D[2].register_full_backward_hook(lambda *_: None),
    "an attribute": lambda D: setattr(scaled(D), "factor", 3.5),
    "an attribute of another type": lambda D: setattr(scaled(D), "factor", None),
    "an attribute is gone": lambda D: delattr(scaled(D), "factor"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_snapshot_notices(change: str) -> None:
    D = net()
    taken = snapshot(D)
    assert taken.holds()
    CHANGES[change](D)
    assert not taken.holds()
    assert snapshot(D).holds()


def test_hooks_of_all_modules_count() -> None:
    D = net()
    taken = snapshot(D)
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        assert not taken.holds()
    finally:
        handle.remove()
    assert taken.holds()


def test_what_changes_in_place_or_back_is_no_change() -> None:
    D = net()
    taken = snapshot(D)
    scaled(D).factor, D[1].training = 3.5, False
    scaled(D).factor, D[1].training = 2.5, True
    scaled(D).mean += 1
    scaled(D).unread = 7
    assert taken.holds()
    scaled(D).factor = 3.5
    assert not taken.holds()


def test_a_snapshot_keeps_nothing_alive() -> None:
    D = net()
    taken, alive = snapshot(D), weakref.ref(D[2].weight)
    del D
    gc.collect()
    assert alive() is None
    assert not taken.holds()


# --- what D consists of --------------------------------------------------------------------------------------------


def test_each_tensor_once_as_torch_names_them() -> None:
    D = net()
    D.append(D[2])  # one module under two paths
    D.append(nn.Linear(3, 1))
    D[4].weight = D[2].weight  # one parameter in two modules
    scaled(D).register_buffer("again", scaled(D).mean)
    found = structure_of(D)
    assert list(found.modules.items()) == list(D.named_modules())
    assert list(found.params.items()) == list(D.named_parameters())
    assert list(found.buffers.items()) == list(D.named_buffers())
    assert found.aliases == (("4.weight", "2.weight"),)


def test_alike_are_those_of_equal_tables_and_tensors() -> None:
    assert signature_of(structure_of(net())) == signature_of(structure_of(net()))


OF_ONE_D = ("attribute", "is another o")  # what attributes and identities say is compared elsewhere


@pytest.mark.parametrize("change", [name for name in CHANGES if not any(part in name for part in OF_ONE_D)])
def test_what_makes_another_signature(change: str) -> None:
    D = net()
    CHANGES[change](D)
    assert signature_of(structure_of(D)) != signature_of(structure_of(net()))


@pytest.mark.parametrize(
    "change",
    [
        lambda D: D.double(),
        lambda D: setattr(D[2], "weight", nn.Parameter(torch.ones(3, 1).t())),
        lambda D: setattr(D[2], "weight", nn.Parameter(torch.ones(1, 4))),
        lambda D: setattr(D[2], "bias", scaled(D).layer.bias),
    ],
    ids=["dtype", "stride", "shape", "shared"],
)
def test_tensors_that_one_graph_cannot_serve(change: Callable[[nn.Sequential], object]) -> None:
    D = net()
    change(D)
    assert signature_of(structure_of(D)) != signature_of(structure_of(net()))


def test_parametrized_layers_of_one_kind_are_alike() -> None:
    def parametrized() -> nn.Module:
        D = net()
        parametrize.register_parametrization(D[2], "weight", Double())
        return D

    class Double(nn.Module):
        def forward(self, w: torch.Tensor) -> torch.Tensor:
            return 2 * w

    assert signature_of(structure_of(parametrized())) == signature_of(structure_of(parametrized()))
    assert signature_of(structure_of(parametrized())) != signature_of(structure_of(net()))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_torchs_older_hooks_are_compared_by_their_settings() -> None:
    def with_hooks(steps: int, dim: int) -> nn.Module:
        return nn.Sequential(
            spectral_norm(nn.Linear(2, 3), n_power_iterations=steps), weight_norm(nn.Linear(3, 1), dim=dim)
        )

    first = signature_of(structure_of(with_hooks(1, 0)))
    assert first == signature_of(structure_of(with_hooks(1, 0)))
    assert first != signature_of(structure_of(with_hooks(2, 0)))
    assert hash(first) == hash(signature_of(structure_of(with_hooks(1, 0))))


# --- attributes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [1, 2.0, 1j, True, "a", b"a", None, int, torch.float16, torch.device("cpu"), len, hook, (1, ("a",))],
)
def test_constants(value: object) -> None:
    assert is_constant(value)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, (1, [2]), torch.zeros(1), nn.Tanh(), object()])
def test_no_constants(value: object) -> None:
    assert not is_constant(value)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        (float("nan"), float("nan"), True),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1, 2], (1, 2), False),
        ([1, 2], [1, 2, 3], False),
        ({1, 2}, {2, 1}, True),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [2]}, True),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [3]}, False),
        (SimpleNamespace(power=2), SimpleNamespace(power=2), True),
        (SimpleNamespace(power=2), SimpleNamespace(power=3), False),
        ([[[[1]]]], [[[[1]]]], True),
        (nn.Tanh(), nn.Tanh(), False),
        (torch.zeros(2), torch.zeros(2), False),
    ],
)
def test_attributes_by_value(a: object, b: object, equal: bool) -> None:
    reads = Reads({("", "value"): frozen(a)})
    module = nn.Module()
    object.__setattr__(module, "value", b)
    assert reads.hold_for({"": module}) == equal


def test_what_was_looked_for_in_vain_may_not_appear() -> None:
    reads, module = Reads(absent={("x", "gain")}), nn.Module()
    assert reads.hold_for({"x": module})
    assert not reads.of("y").absent
    module.gain = 2
    assert not reads.hold_for({"x": module})
    assert not reads.of("x").hold_for({"x": module})


def test_the_same_object() -> None:
    class Empty:
        pass

    first, second = Empty(), Empty()
    assert Same(first) == Same(first) != Same(second)
    assert hash(Same(first)) == hash(Same(first))
    assert Same(3) == Same(3)  # no weak reference is possible
    gone = Same(first)
    also = Same(first)
    del first
    assert gone != also
    assert gone == gone
    assert gone != "another type"
