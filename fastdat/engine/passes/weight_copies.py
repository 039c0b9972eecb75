"""Copies of weights that double backward makes before a convolution.

On a GPU, ``_convolution_double_backward`` calls ``weight.contiguous()`` before it convolves with a weight once more.
In a graph of channels_last this is a copy to a layout that inductor changes back for the convolution: a launch for each
layer, which writes what is there already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

aten = torch.ops.aten


class WeightCopies(CustomGraphPass):
    """Lets convolutions of images in channels_last take the weights that were copied for them."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=aten.convolution.default):
            x, weight, *rest = node.args
            if (
                weight.target is aten.clone.default
                and _is_channels_last(x)
                and _is_channels_last(weight.args[0])
            ):
                node.args = (x, weight.args[0], *rest)
        graph.eliminate_dead_code()

    def uuid(self) -> Any:
        return get_hash_for_files((__file__,))


def _is_channels_last(node: fx.Node) -> bool:
    value = node.meta["val"]
    return bool(value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last))
