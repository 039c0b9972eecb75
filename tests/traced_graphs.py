"""Functions as ATen graphs: traced, and rewritten by a pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx.experimental.proxy_tensor import make_fx


def traced(function: Callable[..., Any], *args: Tensor) -> fx.GraphModule:
    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*args)


def rewritten(module: fx.GraphModule, rewrite: CustomGraphPass) -> fx.GraphModule:
    """A copy of ``module`` to which ``rewrite`` has been applied."""
    module = copy.deepcopy(module)
    rewrite(module.graph)
    module.recompile()
    return module


def penalty_gradients(D: nn.Module, x: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """Function of D's parameters, in order: the gradient of ``E (||dD/dx|| - 1)^2`` (GP, Table III)."""
    names = [name for name, _ in D.named_parameters()]

    def penalty(*params: Tensor) -> Tensor:
        weights = dict(zip(names, params, strict=True))
        gradient = torch.func.grad(lambda x: torch.func.functional_call(D, weights, (x,)).sum())(x)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    return torch.func.grad(penalty, argnums=tuple(range(len(names))))
