"""Activation checkpointing: what D must hold while autograd runs backward, so that its parts can be run again.

``torch.utils.checkpoint`` keeps no activations of a part of D. It runs that part again during the backward pass, long
after the call of D, when D has its own tensors back: weights before spectral norm, and buffers that moved. So D holds
the tensors of the call during every backward pass of an eager step. A pass through one call holds the tensors of that
call. The last pass goes through all calls at once, and this module says what D holds there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastdat.engine.types import StepSpec, Tensors
from fastdat.engine.weights import Weights


def held_in_last_backward(D: nn.Module, spec: StepSpec, weights: Weights, moving: Tensors) -> Tensors:
    """Tensors by name, with the values that they had in every differentiated call of D.

    A tensor that had another value in each call cannot be given. In its place stands one whose use raises
    NotImplementedError.
    """
    held = dict(weights.last())
    if spec.config.power_iterations == "per_forward":
        for s in spec.spectral:
            if s.iterations:
                held[s.target] = _unusable(
                    f"'{s.original}' has another sigma in each call of D: use DATConfig(power_iterations='once')"
                )
    for name, buffer in moving.items():
        if _is_only_written(D.get_submodule(name.rpartition(".")[0])):
            held[name] = buffer.clone()  # running the layer again must not move the statistics again
        else:
            held[name] = _unusable(
                f"the buffer '{name}' moves in each call of D, and what the part computes may depend on it: keep "
                "that layer out of the checkpointed part"
            )
    return held


_NORMS = frozenset(
    kind.forward
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d)
)


def _is_only_written(module: nn.Module) -> bool:
    """Whether a layer with moving buffers computes its output without them: torch's batch norm in training does, and
    one that says so (``fastdat.nets.share_batch``)."""
    return type(module).forward in _NORMS or getattr(type(module), "only_writes_statistics", False)


class _Unusable(Tensor):
    """Any use raises NotImplementedError."""

    reason: str

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reasons = [leaf.reason for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, cls)]
        raise NotImplementedError(
            "activation checkpointing runs a part of D again during the backward pass, but "
            + (reasons or ["a tensor of D has changed since"])[0]
            + ", or run D without checkpointing (dat_step's microbatch saves memory, too)"
        )


def _unusable(reason: str) -> Tensor:
    tensor = torch.empty(0).as_subclass(_Unusable)
    tensor.reason = reason
    return tensor
