"""Spectral norm as a transform of D's parameters: all layers at once, before D is called.

A hook or parametrization per layer normalises inside every call of D, mutating u and v as it goes, which no
functional transform can follow. Here the weights are normalised first and D runs on the results: ``bypassed``
silences D's own machinery meanwhile. Buffers, their order of updates and sigma are those of torch, so a D trained
here goes on anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm as _SpectralNormHook

State = tuple[Tensor, Tensor]
"""u (rows,) and v (columns,), unit vectors of one weight as a matrix."""


@dataclass(frozen=True, slots=True)
class SpectralWeight:
    """One spectrally normalised weight of D, by its names in D."""

    original: str
    """Parameter before normalisation."""
    target: str
    """Name under which the normalised weight is put into a bypassed D."""
    u: str | None
    v: str | None
    """Buffers; None where the weight is a vector, whose norm needs no iteration."""
    dim: int
    """Dimension of the weight that gives the rows of its matrix."""
    iterations: int
    """Power iterations of one advance; 0 in eval mode."""
    eps: float
    u_first: bool
    """Order inside an iteration: torch's parametrization updates u then v, its older hook v then u."""


def spectral_weights(modules: Mapping[str, nn.Module]) -> tuple[SpectralWeight, ...]:
    """All spectrally normalised weights among D's modules by path: torch's parametrization and torch's older hook.

    Raises:
        NotImplementedError: spectral norm chained with another parametrization of the same weight.
    """
    found = []
    for path, module in modules.items():
        prefix = path + "." if path else ""
        if isinstance(module, ParametrizationList) and any(isinstance(p, _SpectralNorm) for p in module):
            found.append(_of_parametrization(prefix, module))
        elif module._forward_pre_hooks:
            hooks = [
                hook for hook in module._forward_pre_hooks.values() if isinstance(hook, _SpectralNormHook)
            ]
            found += [_of_hook(prefix, module, hook) for hook in hooks]
    return tuple(found)


def _of_parametrization(prefix: str, module: ParametrizationList) -> SpectralWeight:
    if len(module) != 1:
        raise NotImplementedError(
            f"'{prefix[:-1]}' chains spectral norm with {len(module) - 1} other parametrization(s): dat_step needs "
            "spectral norm alone on a weight; fold the others into the module, or use fastdat.reference.dat_step"
        )
    norm: Any = module[0]
    is_vector = module.original.ndim == 1
    return SpectralWeight(
        original=prefix + "original",
        target=prefix + "original",
        u=None if is_vector else prefix + "0._u",
        v=None if is_vector else prefix + "0._v",
        dim=0 if is_vector else norm.dim,
        iterations=norm.n_power_iterations if norm.training and not is_vector else 0,
        eps=norm.eps,
        u_first=True,
    )


def _of_hook(prefix: str, module: nn.Module, hook: _SpectralNormHook) -> SpectralWeight:
    return SpectralWeight(
        original=prefix + hook.name + "_orig",
        target=prefix + hook.name,
        u=prefix + hook.name + "_u",
        v=prefix + hook.name + "_v",
        dim=hook.dim,
        iterations=hook.n_power_iterations if module.training else 0,
        eps=hook.eps,
        u_first=False,
    )


def _matrix(weight: Tensor, dim: int) -> Tensor:
    """Weight as a matrix (rows, columns), in fp32 or wider."""
    if weight.dtype in (torch.float16, torch.bfloat16):
        weight = weight.float()
    return weight.movedim(dim, 0).flatten(1)


def advance(spec: SpectralWeight, weight: Tensor, state: State) -> State:
    """One advance of the power iteration, ``u = Wv / ||Wv||``, ``v = W'u / ||W'u||`` in the layer's own order."""
    W = _matrix(weight, spec.dim)
    u, v = (s.to(W.dtype) for s in state)
    for _ in range(spec.iterations):
        if spec.u_first:
            u = F.normalize(W.mv(v), dim=0, eps=spec.eps)
            v = F.normalize(W.mH.mv(u), dim=0, eps=spec.eps)
        else:
            v = F.normalize(W.mH.mv(u), dim=0, eps=spec.eps)
            u = F.normalize(W.mv(v), dim=0, eps=spec.eps)
    return u.to(state[0].dtype), v.to(state[1].dtype)


def normalise(spec: SpectralWeight, weight: Tensor, state: State | None) -> Tensor:
    """``W / sigma`` with ``sigma = u' W v``; u and v are constants, W is not. Shape and dtype of ``weight``."""
    if state is None:
        return F.normalize(weight, dim=0, eps=spec.eps)
    W = _matrix(weight, spec.dim)
    u, v = (s.to(W.dtype) for s in state)
    return (weight / torch.vdot(u, W.mv(v))).to(weight.dtype)


@contextmanager
def bypassed(modules: Mapping[str, nn.Module], weights: Sequence[SpectralWeight]) -> Iterator[None]:
    """Within it D takes the weights it is given under ``target`` as they are. D is as before afterwards."""
    identity = _IDENTITY
    swapped: list[tuple[nn.Module, Any]] = []
    hooked: list[tuple[nn.Module, str, list[tuple[int, Any]], Tensor]] = []
    try:
        for spec in weights:
            path, _, name = spec.target.rpartition(".")
            module = modules[path]
            if isinstance(module, ParametrizationList):
                swapped.append((module, module._modules["0"]))
                module._modules["0"] = identity
            else:
                hooks = list(module._forward_pre_hooks.items())
                hooked.append((module, name, hooks, module.__dict__.pop(name)))
                for key, hook in hooks:
                    if isinstance(hook, _SpectralNormHook) and hook.name == name:
                        del module._forward_pre_hooks[key]
                module._parameters[name] = module._parameters[name + "_orig"]
        yield
    finally:
        for module, norm in swapped:
            module._modules["0"] = norm
        for module, name, hooks, stale in reversed(hooked):
            del module._parameters[name]
            module.__dict__[name] = stale
            module._forward_pre_hooks.clear()
            module._forward_pre_hooks.update(hooks)


# One object for all, since compiled steps are guarded by what they find in D.
_IDENTITY = nn.Identity()
