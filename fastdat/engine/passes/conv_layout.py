"""One layout for all convolutions of a graph on a CPU.

Inductor lets a CPU's forward convolutions compute in channels_last, whatever layout D was given, and wants the tensors
of ``convolution_backward`` in the strides that were traced. Where these are contiguous, every large activation is
copied from one layout to the other, and the pointwise kernels between, pools among them, read one layout and write the
other, which C++ cannot vectorise. This pass lets ``convolution_backward`` have its tensors in channels_last too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

aten = torch.ops.aten


class ConvLayout(CustomGraphPass):
    """Changes the strides that are noted for the gradients and images of ``convolution_backward`` on a CPU."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=aten.convolution_backward.default):
            for arg in node.args[:2]:
                if isinstance(arg, fx.Node) and _may_change(arg):
                    arg.meta["val"] = arg.meta["val"].contiguous(memory_format=torch.channels_last)

    def uuid(self) -> Any:
        return get_hash_for_files((__file__,))


def _may_change(node: fx.Node) -> bool:
    """Whether a node is an image on a CPU that is neither given to the graph nor one of its results."""
    value = node.meta["val"]
    return (
        node.op == "call_function"
        and isinstance(value, Tensor)
        and value.ndim == 4
        and value.device.type == "cpu"
        and not any(user.op == "output" for user in node.users)
    )
