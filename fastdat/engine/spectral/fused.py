"""Spectral norm for whole discriminators: all layers normalised in one operation before D's forward runs.

``dat_step`` does this by itself, whichever spectral norm D has. This module serves D's other calls: G's step,
evaluation, a loop without ``dat_step``. The layers keep torch's parametrization, or torch's older hook, with its
buffers, so a state_dict of one kind loads into the other. A layer that is called outside of D's forward normalises
itself as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.utils.parametrizations
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _SpectralNormHook

from fastdat.engine.spectral import normalise as spectral
from fastdat.engine.spectral.normalise import Norm, SpectralWeight, State
from fastdat.engine.structure import Bypassed

Module = TypeVar("Module", bound=nn.Module)


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """Spectral norm on one layer, as ``torch.nn.utils.parametrizations.spectral_norm``; ``fuse_spectral_norm(D)`` then
    normalises all layers of D at once.

    Args:
        module: a layer.
        name: its weight.
        n_power_iterations, eps, dim: as torch's.

    Returns:
        module.

    Raises:
        ValueError: as torch's.
    """
    torch.nn.utils.parametrizations.spectral_norm(module, name, n_power_iterations, eps, dim)
    parametrizations: Any = module.parametrizations
    _make_fused(parametrizations[name][-1], FusedSpectralNorm)
    return module


def fuse_spectral_norm(D: Module) -> Module:
    """Let every call of D normalise all its spectrally normalised weights in one operation.

    D is changed in place. Its parameters, buffers and state_dict keep their names and values; its outputs, its
    gradients and the moves of u and v stay the same up to rounding. Every layer is normalised once in each
    forward of D, even if D calls the layer twice or never. Call this function again after adding layers. A fused
    D does not support activation checkpointing of a part of D, nor ``torch.func`` transforms over a D in training
    mode, which torch's norms do.

    Args:
        D: a module whose layers have torch's spectral norm (parametrization or older hook) or fastdat's.

    Returns:
        D.

    Raises:
        ValueError: D has no spectral norm.
        NotImplementedError: spectral norm chained with another parametrization of the same weight.
    """
    modules = dict(D.named_modules())
    spectral.spectral_weights(modules)  # raises for weights that cannot be fused
    for module in modules.values():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [
                key for key, hook in hooks.items() if isinstance(hook, (_NormaliseBefore, _ReleaseAfter))
            ]:
                del hooks[key]
    layers = []
    for found in spectral.norms(modules):
        if found.parametrization is None:
            _make_fused(found.norm, FusedSpectralNormHook)
            layers.append(_Layer(found))
        elif found.parametrization.original.ndim > 1:  # a vector's norm needs no iteration
            _make_fused(found.norm, FusedSpectralNorm)
            layers.append(_Layer(found))
    if not layers:
        raise ValueError(
            f"{type(D).__name__} has no spectral norm to fuse: put fastdat.spectral_norm on its layers first"
        )
    fusion = _Fusion(layers)
    D.register_forward_pre_hook(_NormaliseBefore(fusion), prepend=True)  # before a norm that is on D itself
    D.register_forward_hook(_ReleaseAfter(fusion), always_call=True)
    return D


def is_fused(D: nn.Module) -> bool:
    """Whether D, or a part of it, was given to :func:`fuse_spectral_norm`."""
    return any(
        isinstance(hook, _NormaliseBefore) for m in D.modules() for hook in m._forward_pre_hooks.values()
    )


@contextmanager
def normalised_once(D: nn.Module) -> Iterator[None]:
    """Within this context all calls of a fused D share the normalised weights of the first call; u moves once.

    Use it where D's weights do not change: G's step over several micro-batches, evaluation. If D is frozen
    (``requires_grad_(False)``) the calls can be differentiated one by one, otherwise only all at once.

    Raises:
        ValueError: D is not fused.
    """
    fusions = [
        hook.fusion
        for m in D.modules()
        for hook in m._forward_pre_hooks.values()
        if isinstance(hook, _NormaliseBefore)
    ]
    if not fusions:
        raise ValueError(f"{type(D).__name__} is not fused: call fastdat.fuse_spectral_norm(D) first")
    outside = [fusion.keeps for fusion in fusions]
    try:
        for fusion in fusions:
            fusion.keeps = True
        yield
    finally:
        for fusion, kept in zip(fusions, outside, strict=True):
            fusion.keeps = kept
            fusion.release()


def _make_fused(norm: Any, kind: type) -> None:
    """Turn torch's object into ours in place, since other objects refer to it and its buffers belong to D."""
    norm.__class__ = kind
    norm.ready = None


class FusedSpectralNorm(_SpectralNorm):
    """torch's parametrization; it returns the weight that the forward of D has normalised, if there is one."""

    ready: Tensor | None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"ready": None}  # a copy normalises its own weight

    def forward(self, weight: Tensor) -> Tensor:
        if self.ready is None:
            normalised: Tensor = super().forward(weight)
            return normalised
        if _fits(self.ready, weight):
            return self.ready
        # The fused pass has moved u and v: as in evaluation, they stay.
        training, self.training = self.training, False
        try:
            in_own_precision: Tensor = super().forward(weight)
        finally:
            self.training = training
        return in_own_precision


class FusedSpectralNormHook(_SpectralNormHook):
    """torch's older hook; it sets the weight that the forward of D has normalised, if there is one."""

    ready: Tensor | None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"ready": None}

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        if self.ready is None:
            super().__call__(module, inputs)
        elif _fits(self.ready, getattr(module, self.name + "_orig")):
            setattr(module, self.name, self.ready)
        else:
            setattr(module, self.name, self.compute_weight(module, do_power_iteration=False))


def _fits(ready: Tensor, weight: Tensor) -> bool:
    """Whether a layer can use the weight: not if it is cast to a lower precision, and D turned autocast off there."""
    return ready.dtype == weight.dtype or torch.is_autocast_enabled(weight.device.type)


class _Layer:
    """One normalised weight of a fused D."""

    def __init__(self, found: Norm) -> None:
        self._found = found
        self.owner, self.parametrization, self.norm = found.owner, found.parametrization, found.norm

    def is_bypassed(self) -> bool:
        """Whether a running step supplies the weights of D (see ``normalise.bypassed``)."""
        if self.parametrization is not None:
            return self.parametrization._modules["0"] is not self.norm
        return self.norm.name in self.owner._parameters

    def is_removed(self) -> bool:
        """Whether ``torch.nn.utils.remove_spectral_norm`` has removed the norm since."""
        return self.parametrization is None and self.norm.name + "_orig" not in self.owner._parameters

    def parts(self) -> tuple[SpectralWeight, Tensor, State]:
        spec = self._found.weight("")
        holder: Any = self.owner if self.parametrization is None else self.parametrization
        weight = getattr(holder, spec.original)
        if self.parametrization is not None:
            return spec, weight, (self.norm._u, self.norm._v)
        return spec, weight, (holder._buffers[spec.u], holder._buffers[spec.v])


class _Fusion:
    """All spectrally normalised weights of one D."""

    def __init__(self, layers: list[_Layer]) -> None:
        self.layers = layers
        self.keeps = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"keeps": False}  # a copy is in no ``normalised_once``

    def prepare(self) -> None:
        """Normalise every weight, and advance u and v."""
        layers = [layer for layer in self.layers if not layer.is_removed()]
        if not layers or any(layer.is_bypassed() for layer in layers):
            return
        specs, weights, states = zip(*[layer.parts() for layer in layers], strict=True)
        ready = [layer.norm.ready for layer in layers if layer.norm.ready is not None]
        wanted = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if ready and (any(weight.requires_grad for weight in ready) or not wanted):
            return  # one set for several calls
        if ready:  # the same weights once more, with gradients
            specs = tuple([replace(spec, iterations=0) for spec in specs])
        dtypes = [spectral.dtype_under_autocast(s, w) for s, w in zip(specs, weights, strict=True)]
        normalised, advanced = spectral.normalise(specs, weights, states, dtypes)
        with torch.no_grad():
            for spec, state, moved in zip(specs, states, advanced, strict=True):
                if spec.iterations and moved is not None:
                    state[0].copy_(moved[0])
                    state[1].copy_(moved[1])
        for layer, weight in zip(layers, normalised, strict=True):
            layer.norm.ready = weight

    def release(self) -> None:
        """Forget the normalised weights, so that the next call of D computes them again."""
        if self.keeps:
            return
        for layer in self.layers:
            layer.norm.ready = None


class _NormaliseBefore(Bypassed):
    """Forward pre-hook of a fused D."""

    def __init__(self, fusion: _Fusion) -> None:
        self.fusion = fusion

    def __call__(self, D: nn.Module, inputs: Any) -> None:
        self.fusion.prepare()


class _ReleaseAfter(Bypassed):
    """Forward hook of a fused D. It also runs after a forward that raised."""

    def __init__(self, fusion: _Fusion) -> None:
        self.fusion = fusion

    def __call__(self, D: nn.Module, inputs: Any, output: Any) -> None:
        self.fusion.release()
