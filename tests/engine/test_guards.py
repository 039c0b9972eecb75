"""Which of torch.compile's guards are left out, and what is noted in their place, without a compilation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from fastdat.engine.guards import Guards
from fastdat.engine.structure import frozen


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.factor = 2.5
        self.sizes = (4, 5)
        self.table = [6]


def entry(name: str, guard_type: str = "EQUALS_MATCH", attribute: str = "") -> Any:
    make = SimpleNamespace(keywords={"attr": attribute})
    return SimpleNamespace(name=name, guard_type=guard_type, orig_guard=SimpleNamespace(create_fn=make))


def traced(*entries: Any) -> tuple[list[bool], Guards]:
    D, guards = nn.Sequential(Scaled(), nn.Tanh()), Guards()
    with guards.tracing(dict(D.named_modules())):
        return guards(entries), guards


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        # of fastdat and torch
        ("G['_forward']", False),
        ("type(G['torch'])", False),
        ("G['__import_torch_dot_nn'].functional", False),
        ("G['__import_fastdat_dot_losses'].hinge", False),
        ("__import__('torch')", False),
        # of the file of D
        ("G['__import_mine'].slope", True),
        ("G['__import_torch'].float32", False),
        ("G['__import_torch_gan'].slope", True),
        ("G['__import_torch_utils_dot_ops'].slope", True),
        ("G['___unnamed_scope'].slope", True),
        # checked before a call
        ("L['spec'].eps", False),
        ("L['spec'].loss", True),
        ("L['spec'].terms[0].augment.strength", True),
        ("L['spec'].term_names", False),
        ("L['inputs'].trainable['0.layer.weight']", False),
        ("L['inputs'].noise", True),
        # attributes of D
        ("L['D']._modules['0'].factor", False),
        ("D._modules['0'].factor", False),
        ("D._modules['0'].factor[0]", True),
        ("D._modules['0'].sizes", False),
        ("D._modules['0'].sizes[1]", False),
        ("D._modules['0'].table", True),
        ("D._modules['0'].table[0]", True),
        ("D._modules['0'].of_the_class", True),
        ("D._modules['9'].factor", True),
        ("D._modules['0']", False),
        ("D._modules['9']", True),
        # its tables
        ("D._modules['0']._modules", False),
        ("D._modules['0']._modules['x'].y", True),
        ("list(dict.keys(D._modules['0']._modules))[0]", False),
        ("D._modules['0']._parameters['weight']", False),
        ("D._modules['0']._buffers", False),
        ("D._modules['0']._buffers['mean']", True),
        ("D._modules['0'].training", False),
        # its classes
        ("type(D._modules['0'])", True),
        ("dict(type(D._modules['0']))['eps']", True),
        ("type(D._modules['1'])", False),
        ("type(D)", False),
        ("type(D._modules['9'])", True),
        ("x", True),
    ],
)
def test_what_is_checked_in_every_call(name: str, kept: bool) -> None:
    assert traced(entry(name))[0] == [kept]


def test_what_was_read_is_noted() -> None:
    names = (
        "_modules['0'].factor",
        "_modules['0'].sizes[1]",
        "_modules['0'].table",
        "_modules['1'].training",
    )
    _, guards = traced(*(entry(f"L['D'].{name}") for name in names))
    assert guards.reads.values == {("0", "factor"): 2.5, ("0", "sizes"): frozen((4, 5))}
    assert guards.reads.absent == set()


def test_what_was_looked_for_in_vain_is_noted() -> None:
    kept, guards = traced(entry("D._modules['0']", "NOT_PRESENT_IN_GENERIC_DICT", "gain"))
    assert kept == [False]
    assert guards.reads.absent == {("0", "gain")}
    assert guards.reads.values == {}


def test_attributes_of_classes_of_torch_do_not_come_and_go() -> None:
    names = ("D._modules['0']", "D._modules['1']", "D._modules['0']._modules['layer']")
    assert traced(*(entry(name, "HASATTR") for name in names))[0] == [True, False, False]


def test_graphs_are_counted() -> None:
    assert traced()[1].compilations == 1


def test_a_graph_made_elsewhere_is_an_error() -> None:
    guards = traced()[1]
    with pytest.raises(RuntimeError, match="had not been made ready"):
        guards([entry("x")])
    assert guards.compilations == 1
