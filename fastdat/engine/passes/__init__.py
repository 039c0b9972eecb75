"""Rewrites of the compiled graph, one a file, and the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass

from fastdat.engine.passes import upsample_gradient
from fastdat.engine.passes.conv_layout import ConvLayout
from fastdat.engine.passes.pool_gradient import PoolGradient
from fastdat.engine.passes.pool_input import PoolInput
from fastdat.engine.passes.pooled_conv import PooledConv
from fastdat.engine.passes.upsample_gradient import UpsampleGradient
from fastdat.engine.passes.weight_copies import WeightCopies
from fastdat.engine.passes.weight_gradient import WeightGradient
from fastdat.engine.passes.zero_flow import ZeroFlow
from fastdat.kernels.inductor import cacheable

BEFORE_DIFFERENTIATION: tuple[CustomGraphPass, ...] = (PooledConv(), UpsampleGradient())
"""Passes over the graph as Dynamo has traced it, first to last; left out where ``fold`` is False."""

AFTER_DIFFERENTIATION: tuple[CustomGraphPass, ...] = (
    ZeroFlow(),
    WeightGradient(),
    WeightCopies(),
    ConvLayout(),
    PoolGradient(),
    PoolInput(),
)
"""Passes over the differentiated ATen graph with fake tensors in ``node.meta["val"]``, first to last."""


class InOrder(CustomGraphPass):
    """Several passes as one, which is what inductor takes."""

    def __init__(self, passes: Sequence[CustomGraphPass]) -> None:
        self._passes = tuple(passes)

    def __call__(self, graph: fx.Graph) -> None:
        for rewrite in self._passes:
            rewrite(graph)

    def uuid(self) -> Any:
        """Inductor's cache keeps graphs by this."""
        return tuple(rewrite.uuid() for rewrite in self._passes)


def options(mode: str = "default", fold: bool = True) -> dict[str, Any]:
    """``options`` of torch.compile that select its ``mode``, apply every pass and keep the graph in its caches::

        torch.compile(generator_loss, options=fastdat.passes.options())

    Args:
        mode: of torch.compile.
        fold: reorder convolutions, pools and up-samplings so that they take less work (``pooled_conv``,
            ``upsample_gradient``).
    """
    chosen: dict[str, Any] = {
        **torch._inductor.list_mode_options(mode),
        "post_grad_custom_pre_pass": InOrder(AFTER_DIFFERENTIATION),
        "unsafe_marked_cacheable_functions": cacheable() | upsample_gradient.cacheable(),
    }
    if fold:
        chosen["pre_grad_custom_pass"] = InOrder(BEFORE_DIFFERENTIATION)
    return chosen
