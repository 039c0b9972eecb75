"""D under DistributedDataParallel: one batch over all ranks, gradients averaged by DDP itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def unwrap(D: nn.Module) -> tuple[nn.Module, DistributedDataParallel | None]:
    """The user's module inside ``torch.compile`` and DistributedDataParallel wrappers, and the latter."""
    ddp: DistributedDataParallel | None = None
    while True:
        inner = getattr(D, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            D = inner
        elif isinstance(D, DistributedDataParallel):
            ddp = D
            D = ddp.module
        else:
            return D, ddp


def batch_group(ddp: DistributedDataParallel | None) -> tuple[dist.ProcessGroup | None, int]:
    """Ranks that share the batch, None where it is one process, and how many they are."""
    if ddp is None:
        return None, 1
    group: dist.ProcessGroup = ddp.process_group
    size = dist.get_world_size(group)
    return (group, size) if size > 1 else (None, 1)


def data_parallel(D: nn.Module) -> DistributedDataParallel:
    """D under DistributedDataParallel, which sends no buffers: u and v of spectral norm, and statistics that all ranks
    share, come out the same on all of them."""
    parameters = inspect.signature(DistributedDataParallel).parameters
    option = (
        "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    )  # until torch 2.12
    settings: dict[str, Any] = {option: False}
    return DistributedDataParallel(D, **settings)


class _Runner(nn.Module):
    """Replaces DDP's module: it runs a function, and shows DDP the buffers of the module, which DDP broadcasts."""

    def __init__(self, function: Callable[[], Tensor], module: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.named_buffers = module.named_buffers  # type: ignore[method-assign]

    def forward(self, _: Tensor) -> Tensor:
        return self.function()


def run_inside(ddp: DistributedDataParallel, function: Callable[[], Tensor], x: Tensor) -> Tensor:
    """Run ``function`` as DDP's forward pass, so that DDP prepares its reducer and averages the gradients that the
    backward pass of the result accumulates: with its own buckets, hooks, ``no_sync`` and buffer broadcasts."""
    module = ddp.module
    ddp._modules["module"] = _Runner(function, module)
    try:
        loss: Tensor = ddp(x)
    finally:
        ddp._modules["module"] = module
    return loss
