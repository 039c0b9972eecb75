"""One declaration makes an operator: its schema, its shapes without a launch, and its arguments by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastdat.kernels import formulas, ops
from fastdat.kernels.formulas import Limits

pytest.importorskip("triton")

import fastdat.kernels.attack_coefficients
import fastdat.kernels.perturb_clip
import fastdat.kernels.spectral_norm  # noqa: F401

SCHEMAS = {
    "perturb_clip": "(Tensor x, Tensor grad, Tensor coefficient, float? delta_clip, float[]? bounds, SymInt clip_from, "
    "ScalarType? out_dtype) -> Tensor",
    "perturb_clip_backward": "(Tensor upstream, Tensor x, Tensor grad, Tensor coefficient, float? delta_clip, "
    "float[]? bounds, SymInt clip_from) -> (Tensor, Tensor, Tensor)",
    "attack_coefficients": "(Tensor clean, Tensor now, Tensor? targets, str attacked_real, str attacked_fake, "
    "str reduction, float scale) -> (Tensor, Tensor, Tensor)",
    "spectral_norm": "(Tensor[] weights, Tensor[] us, Tensor[] vs, SymInt iterations, float eps, bool u_first, "
    "ScalarType out_dtype) -> (Tensor[], Tensor, Tensor)",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_the_formulas_signature(name: str) -> None:
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


def test_arguments_by_name(device: str) -> None:
    x, grad, coefficient = (
        torch.rand(3, 4, device=device),
        torch.randn(3, 4, device=device),
        torch.ones(3, device=device),
    )
    limits = Limits(0.25, (0.1, 0.9), 1)
    by_name = ops.perturb_clip(
        limits=limits, coefficient=coefficient, grad=grad, x=x, out_dtype=torch.float64
    )
    torch.testing.assert_close(by_name, ops.perturb_clip(x, grad, coefficient, limits, torch.float64))
    assert by_name.dtype == torch.float64
