"""The C++ compiler is made ready beside the first compilation for a CPU, once, and its failure stops nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._inductor.codecache import CppPythonBindingsCodeCache

import fastdat
from fastdat.engine import cpp_compiler


def test_an_empty_kernel_compiles() -> None:
    """By inductor's own way to the compiler, whose changes must not go unseen: here it raises."""
    cpp_compiler._compile_empty_kernel()


def test_once_and_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(*args: object) -> None:
        calls.append(args)
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(CppPythonBindingsCodeCache, "load_pybinding", broken)
    cpp_compiler.prepare.cache_clear()
    for _ in range(2):
        cpp_compiler.prepare().join()
    assert len(calls) == 1
    cpp_compiler.prepare.cache_clear()


@pytest.mark.parametrize("mode", [False, True], ids=["eager", "compiled"])
def test_where_a_step_is_compiled(mode: bool, monkeypatch: pytest.MonkeyPatch, own_engines: object) -> None:
    prepared = []
    monkeypatch.setattr(cpp_compiler, "prepare", lambda: prepared.append(True))
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    D, x = nn.Linear(3, 1), torch.rand(4, 3)
    fastdat.dat_step(D, x, -x, compile=mode)
    assert bool(prepared) is mode
