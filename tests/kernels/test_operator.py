"""One declaration makes an operator: its schema, its shapes without a launch, and its arguments by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastdat.kernels import formulas, ops
from fastdat.kernels.formulas import Limits
from fastdat.kernels.logit_functions import IDENTITY, LogitFunction
from tests.kernels.noted_operators import NotedOperators

pytest.importorskip("triton")

import fastdat.kernels.attack_coefficients
import fastdat.kernels.perturb_clip
import fastdat.kernels.spectral_norm  # noqa: F401

SCHEMAS = {
    "perturb_clip": "(Tensor x, Tensor grad, Tensor coefficient, float? delta_clip, float[]? bounds, SymInt clip_from, "
    "ScalarType? out_dtype) -> Tensor",
    "perturb_clip_backward": "(Tensor upstream, Tensor x, Tensor grad, Tensor coefficient, float? delta_clip, "
    "float[]? bounds, SymInt clip_from) -> (Tensor, Tensor, Tensor)",
    "perturb_clip_stats": "(Tensor x, Tensor grad, Tensor coefficient, float? delta_clip, float[]? bounds, "
    "SymInt clip_from, ScalarType? out_dtype) -> (Tensor, Tensor)",
    "spectral_norm_backward": "(Tensor[] grads, Tensor[] weights, Tensor state, Tensor sigma, Tensor grad_sigma) "
    "-> Tensor[]",
    "attack_coefficients": "(Tensor clean, Tensor now, Tensor? targets, str attacked_real, str attacked_fake, "
    "str reduction, float scale) -> (Tensor, Tensor, Tensor)",
    "spectral_norm": "(Tensor[] weights, Tensor[] us, Tensor[] vs, SymInt iterations, float eps, bool u_first, "
    "ScalarType out_dtype) -> (Tensor[], Tensor, Tensor)",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(name: str) -> None:
    """The fields of ``Limits`` are arguments of their own, in their order."""
    schema = str(getattr(torch.ops.fastdat, name).default._schema)
    assert schema == f"fastdat::{name}{SCHEMAS[name]}"


@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_shapes_come_without_a_launch(kind: str) -> None:
    """In the layout of x, also where torch.compile asks; a launch would need memory."""
    mode = FakeTensorMode() if kind == "fake" else torch.device("meta")
    with mode:
        x = torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)
        given = (x, torch.empty(2, 3, 4, 5), torch.empty(2), 0.5, (-1.0, 1.0), 1)
        x_hat, stats = torch.ops.fastdat.perturb_clip_stats(*given, torch.bfloat16)
        dx, dg, dc = torch.ops.fastdat.perturb_clip_backward(x, *given)
        outs, state, sigma = torch.ops.fastdat.spectral_norm(
            [torch.empty(4, 3)], [torch.empty(4)], [torch.empty(3)], 1, 1e-12, True, torch.float32
        )
    assert x_hat.dtype == torch.bfloat16
    assert x_hat.is_contiguous(memory_format=torch.channels_last)
    assert dg.shape == x.shape
    assert dx.stride() == x.stride()
    assert [tuple(t.shape) for t in (stats, dc, outs[0], state, sigma)] == [(2, 2), (2,), (4, 3), (7,), (1,)]


@pytest.mark.parametrize(
    "name", ["perturb_clip", "perturb_clip_stats", "attack_coefficients", "spectral_norm"]
)
def test_dispatch_keeps_signature_and_documentation(name: str) -> None:
    formula, operation = getattr(formulas, name), getattr(ops, name)
    assert inspect.signature(operation) == inspect.signature(formula)
    assert operation.__doc__ == formula.__doc__
    assert operation.__name__ == name


def by_name(device: str) -> dict[str, dict[str, Any]]:
    """Arguments of every operation, the first one last."""
    logits = torch.tensor([[1.0, 2.0, -0.5], [0.5, -1.0, 0.25]], device=device)
    return {
        "perturb_clip": {
            "limits": Limits(1.0, (-1.0, 1.0), 1),
            "out_dtype": torch.float64,
            "coefficient": torch.ones(3, device=device),
            "grad": torch.randn(3, 4, device=device),
            "x": torch.rand(3, 4, device=device),
        },
        "attack_coefficients": {
            "attacked": (IDENTITY, IDENTITY),
            "reduction": "batch",
            "scale": 0.5,
            "targets": None,
            "now": logits + 0.5,
            "clean": logits,
        },
        "spectral_norm": {
            "iterations": 1,
            "eps": 1e-12,
            "u_first": True,
            "out_dtype": torch.float32,
            "vs": [torch.ones(3, device=device) / 3**0.5],
            "us": [torch.ones(2, device=device) / 2**0.5],
            "weights": [torch.randn(2, 3, device=device)],
        },
    }


@pytest.mark.parametrize("name", ["perturb_clip", "attack_coefficients", "spectral_norm"])
def test_arguments_by_name_reach_the_kernel(name: str, device: str) -> None:
    named = by_name(device)[name]
    with NotedOperators() as noted:
        found = getattr(ops, name)(**named)
    assert noted.names == {name}
    torch.testing.assert_close(found, getattr(formulas, name)(**named), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", ["unknown", "twice", "missing"])
def test_wrong_arguments_are_refused(wrong: str, device: str) -> None:
    named = by_name(device)["perturb_clip"]
    x = named.pop("x")
    if wrong == "unknown":
        named["outdtype"] = named.pop("out_dtype")
    elif wrong == "twice":
        named["x"] = x
    else:
        del named["limits"]
    with pytest.raises(
        TypeError, match=r"^perturb_clip\(x, grad, coefficient, limits, out_dtype\) was called with 1 "
    ):
        ops.perturb_clip(x, **named)


def test_a_function_that_only_looks_like_one_of_the_table_takes_the_formula(device: str) -> None:
    clean = torch.randn(2, 5, device=device)
    impostor = (LogitFunction("hinge.g1", torch.tanh), IDENTITY)
    with NotedOperators() as noted:
        found = ops.attack_coefficients(clean, clean + 0.5, None, impostor, "batch", 1.0)
    assert noted.names == set()
    expected = formulas.attack_coefficients(clean, clean + 0.5, None, (torch.tanh, IDENTITY), "batch", 1.0)
    torch.testing.assert_close(found, expected)
