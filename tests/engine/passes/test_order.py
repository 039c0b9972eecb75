"""Graph passes run in the order of their list, and the key of inductor's cache contains each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass

from fastdat.engine import passes
from fastdat.engine.passes import upsample_gradient
from fastdat.engine.passes.conv_layout import ConvLayout
from fastdat.engine.passes.pool_gradient import PoolGradient
from fastdat.engine.passes.pool_input import PoolInput
from fastdat.engine.passes.pooled_conv import PooledConv
from fastdat.engine.passes.upsample_gradient import UpsampleGradient, upsampled
from fastdat.engine.passes.weight_copies import WeightCopies
from fastdat.engine.passes.weight_gradient import WeightGradient
from fastdat.engine.passes.zero_flow import ZeroFlow
from fastdat.kernels.differentiable import Functions
from fastdat.kernels.inductor import cacheable


class Noting(CustomGraphPass):
    def __init__(self, name: str, noted: list[str]) -> None:
        self._name, self._noted = name, noted

    def __call__(self, graph: fx.Graph) -> None:
        self._noted.append(self._name)

    def uuid(self) -> Any:
        return self._name


def test_passes_run_first_to_last() -> None:
    noted: list[str] = []
    one, other = Noting("one", noted), Noting("other", noted)
    passes.InOrder((one, other))(fx.Graph())
    assert noted == ["one", "other"]
    assert passes.InOrder((one, other)).uuid() != passes.InOrder((other, one)).uuid()


def test_steps_are_compiled_with_every_pass() -> None:
    options = passes.options("max-autotune")
    for stage, of_stage in (
        ("pre_grad_custom_pass", passes.BEFORE_DIFFERENTIATION),
        ("post_grad_custom_pre_pass", passes.AFTER_DIFFERENTIATION),
    ):
        assert options.pop(stage).uuid() == tuple(p.uuid() for p in of_stage)
    # A graph of D's fused spectral norm, such as G's step has, is found again too.
    known = options.pop("unsafe_marked_cacheable_functions")
    assert known == cacheable() | upsample_gradient.cacheable()
    assert f"{upsampled.__module__}.{upsampled.__name__}" in known
    assert f"{Functions.__module__}.spectral_norm" in cacheable()
    assert options == torch._inductor.list_mode_options("max-autotune")
    assert [type(p) for p in passes.BEFORE_DIFFERENTIATION] == [PooledConv, UpsampleGradient]
    # Zeros first: what they leave out is never rewritten. Layouts when the convolutions are what they will be.
    names = [ZeroFlow, WeightGradient, WeightCopies, ConvLayout, PoolGradient, PoolInput]
    assert [type(p) for p in passes.AFTER_DIFFERENTIATION] == names
