"""What D keeps from call to call, held still or moved while the plain reference calls it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _SpectralNormHook

from fastdat.util.net_modes import frozen as frozen


@contextmanager
def power_iteration(D: nn.Module, on: bool) -> Iterator[None]:
    """Whether torch's spectral norms in D advance u when D is called."""
    if on:
        yield
        return
    norms = [m for m in D.modules() if isinstance(m, _SpectralNorm)]
    hooks = [
        h for m in D.modules() for h in m._forward_pre_hooks.values() if isinstance(h, _SpectralNormHook)
    ]
    modes, iterations = [n.training for n in norms], [h.n_power_iterations for h in hooks]
    try:
        for norm in norms:
            norm.training = False
        for hook in hooks:
            hook.n_power_iterations = 0
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training = mode
        for hook, n in zip(hooks, iterations, strict=True):
            hook.n_power_iterations = n


@contextmanager
def every_layer_advances(D: nn.Module) -> Iterator[None]:
    """A call of D within it advances u of the layers it leaves out, too: heads that only ``aux_loss`` calls."""
    norms = [
        (module, name, norm)
        for module in D.modules()
        if isinstance(kinds := getattr(module, "parametrizations", None), nn.ModuleDict)
        for name, kind in kinds.items()
        for norm in kind.children()
        if isinstance(norm, _SpectralNorm) and norm.training and hasattr(norm, "_u")
    ]
    before = [norm._u.clone() for _, _, norm in norms]
    yield
    for (module, name, norm), u in zip(norms, before, strict=True):
        if torch.equal(norm._u, u):
            with torch.no_grad():
                getattr(module, name)  # computing the weight is what advances u


@contextmanager
def running_statistics(D: nn.Module, move: bool) -> Iterator[None]:
    """Whether D's batch norms update their running statistics; the batch's own are used either way."""
    layers = [
        m for m in D.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
    ]
    if move or not layers:
        yield
        return
    before = [
        (m.momentum, m.num_batches_tracked.clone()) for m in layers if m.num_batches_tracked is not None
    ]
    try:
        for layer in layers:
            layer.momentum = 0.0  # new = (1 - 0) * old + 0 * batch
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)


@contextmanager
def evaluation_mode(D: nn.Module, on: bool) -> Iterator[None]:
    """D in evaluation mode, except that its spectral norms advance as they would in training."""
    hooked = [
        m
        for m in D.modules()
        if any(isinstance(hook, _SpectralNormHook) for hook in m._forward_pre_hooks.values())
    ]
    training = [m for m in D.modules() if m.training and not isinstance(m, _SpectralNorm) and m not in hooked]
    try:
        for module in training:
            module.training = not on
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def outputs_of(D: nn.Module, paths: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of D's submodules at ``paths`` in a call of D within it."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            found[path] = output.clone()  # an activation after it may work in place

        return hook

    handles = [D.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
