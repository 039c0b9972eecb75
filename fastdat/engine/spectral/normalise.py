"""Spectral norm as a transform of D's parameters: all layers at once, before D is called.

torch's hook or parametrization normalises each layer inside every call of D. It mutates u and v, which no functional
transform can follow, and it takes a dozen launches a layer. Here all weights are normalised first, in one operation,
and D runs on the results, while ``bypassed`` turns off D's own normalisation. Buffers, the order of their updates and
sigma are those of torch, so a D that was trained here can be trained further anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm as _SpectralNormHook

from fastdat.engine.structure import Bypassed, Reads
from fastdat.kernels import ops

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
    castable: bool
    """Autocast would cast the weight anyway, so it may be written in the lower precision directly."""
    layer: str
    """Path of the layer whose weight it is."""


class Norm(NamedTuple):
    """One of torch's spectral norms and its place in D."""

    path: str
    """Path of the module that holds its tensors: the ParametrizationList, or the layer."""
    owner: nn.Module
    """The layer whose weight it is."""
    parametrization: ParametrizationList | None
    """None for the older hook."""
    norm: Any

    def weight(self, prefix: str) -> SpectralWeight:
        """The normalised weight, with the names of its tensors after ``prefix``."""
        if self.parametrization is not None:
            return _of_parametrization(prefix, self.parametrization, self.owner)
        return _of_hook(prefix, self.owner, self.norm)


def norms(modules: Mapping[str, nn.Module]) -> Iterator[Norm]:
    """All spectral norms among D's modules by path: torch's parametrization and torch's older hook."""
    for path, module in modules.items():
        if isinstance(module, ParametrizationList):
            for norm in module:
                if isinstance(norm, _SpectralNorm):
                    yield Norm(path, modules[path.rpartition(".parametrizations.")[0]], module, norm)
        elif module._forward_pre_hooks:
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, _SpectralNormHook):
                    yield Norm(path, module, None, hook)


def spectral_weights(modules: Mapping[str, nn.Module]) -> tuple[SpectralWeight, ...]:
    """All spectrally normalised weights among D's modules by path: torch's parametrization and torch's older hook.

    Raises:
        NotImplementedError: spectral norm chained with another parametrization of the same weight.
    """
    return tuple([found.weight(found.path + "." if found.path else "") for found in norms(modules)])


def _of_parametrization(prefix: str, module: ParametrizationList, owner: nn.Module | None) -> SpectralWeight:
    """The weight under torch's parametrization in ``module``, which belongs to the layer ``owner``."""
    if len(module) != 1:
        raise NotImplementedError(
            f"'{prefix[:-1]}' chains spectral norm with {len(module) - 1} other parametrization(s): fastdat needs "
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
        castable=_is_cast_by_autocast(owner),
        layer=f".{prefix}".rpartition(".parametrizations.")[0][1:],
    )


def _of_hook(prefix: str, module: nn.Module, hook: _SpectralNormHook) -> SpectralWeight:
    """The weight under torch's older hook on the layer ``module``."""
    return SpectralWeight(
        original=prefix + hook.name + "_orig",
        target=prefix + hook.name,
        u=prefix + hook.name + "_u",
        v=prefix + hook.name + "_v",
        dim=hook.dim,
        iterations=hook.n_power_iterations if module.training else 0,
        eps=hook.eps,
        u_first=False,
        castable=_is_cast_by_autocast(module),
        layer=prefix[:-1],
    )


_CAST = frozenset(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _is_cast_by_autocast(layer: nn.Module | None) -> bool:
    # torch's own forward passes its weight on unchanged; a user's may do anything with it.
    return layer is not None and type(layer).forward in _CAST


def dtype_under_autocast(spec: SpectralWeight, weight: Tensor) -> torch.dtype:
    """The dtype in which the layer will use the normalised weight."""
    kind = weight.device.type
    if spec.castable and weight.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return weight.dtype


def cast_nowhere(weights: Sequence[SpectralWeight]) -> tuple[SpectralWeight, ...]:
    """The weights in their own precision, which every layer takes."""
    return tuple([replace(weight, castable=False) for weight in weights])


@contextmanager
def cast_where_called(
    D: nn.Module, weights: Sequence[SpectralWeight], kind: str
) -> Iterator[list[SpectralWeight]]:
    """Within it D is called on a device of this kind. Afterwards the list has the weights; those of layers around which
    D turned autocast off, or that it did not call, are not castable."""
    calls: dict[str, set[bool]] = {weight.layer: set() for weight in weights if weight.castable}

    def note(path: str) -> None:
        calls[path].add(torch.is_autocast_enabled(kind))

    found: list[SpectralWeight] = []
    hooks = [
        D.get_submodule(path).register_forward_pre_hook(lambda module, inputs, path=path: note(path))
        for path in calls
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    found += [replace(w, castable=w.castable and calls[w.layer] == {True}) for w in weights]


def normalise(
    specs: Sequence[SpectralWeight],
    weights: Sequence[Tensor],
    states: Sequence[State | None],
    dtypes: Sequence[torch.dtype],
) -> tuple[list[Tensor], list[State | None]]:
    """``W / sigma`` of every weight after its power iterations: differentiable in W, with u and v as constants.

    Args:
        specs, weights: what to normalise.
        states: u and v of each; None for a vector.
        dtypes: of the results.

    Returns:
        normalised weights, in the shapes of ``weights``; u and v after the iterations, in the dtypes of ``states``.
    """
    normalised: list[Any] = [None] * len(specs)
    advanced = list(states)
    groups: dict[Any, list[int]] = {}
    for i, (spec, weight, state, dtype) in enumerate(zip(specs, weights, states, dtypes, strict=True)):
        if state is None:
            normalised[i] = F.normalize(weight, dim=0, eps=spec.eps).to(dtype)
        else:
            alike = (spec.iterations, spec.eps, spec.u_first, weight.dtype, state[0].dtype, dtype)
            groups.setdefault(alike, []).append(i)
    with _without_autocast(weights[0].device.type if weights else "cpu"):  # sigma in fp32
        for (iterations, eps, u_first, _, of_state, dtype), members in groups.items():
            # torch's older hook takes a vector for a matrix of one column.
            matrices = [
                weights[i].movedim(specs[i].dim, 0) if weights[i].ndim > 1 else weights[i].unsqueeze(1)
                for i in members
            ]
            us, vs = zip(*[states[i] for i in members], strict=True)
            outs, us, vs, _ = ops.spectral_norm(matrices, us, vs, iterations, eps, u_first, dtype)
            for i, out, u, v in zip(members, outs, us, vs, strict=True):
                normalised[i] = out.movedim(0, specs[i].dim) if weights[i].ndim > 1 else out.squeeze(1)
                if iterations:
                    advanced[i] = (u.to(of_state), v.to(of_state))
    return normalised, advanced


def reads_of(modules: Mapping[str, nn.Module], reads: Reads) -> Reads:
    """``reads`` of a traced, bypassed D, and what ``spectral_weights`` reads of its norms."""
    values = dict(reads.values)
    for path, module in modules.items():
        if isinstance(module, _SpectralNorm):
            values |= {(path, name): getattr(module, name) for name in ("dim", "eps", "n_power_iterations")}
    # torch's older hook puts the weight there in each call; in a bypassed D there is none.
    absent = {(path, name) for path, name in reads.absent if name not in modules[path].__dict__}
    return Reads(values, absent)


def is_bypassed(D: nn.Module, weights: Sequence[SpectralWeight]) -> bool:
    """Whether D is run within ``bypassed``."""
    if not weights:
        return True
    path, _, name = weights[0].target.rpartition(".")
    module = D.get_submodule(path)
    if isinstance(module, ParametrizationList):
        return not isinstance(module._modules["0"], _SpectralNorm)
    return name in module._parameters


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Turns autocast off, and enters nothing where it is off: AOTAutograd keeps no graph that enters autocast."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


@contextmanager
def bypassed(modules: Mapping[str, nn.Module], weights: Sequence[SpectralWeight]) -> Iterator[None]:
    """Within this context D uses the weights that it is given under ``target`` unchanged; afterwards D is as before."""
    identity = _IDENTITY
    swapped: list[tuple[nn.Module, Any]] = []
    hooked: list[tuple[nn.Module, str, Tensor]] = []
    tables: list[tuple[dict[int, Any], list[tuple[int, Any]]]] = []
    try:
        for module in modules.values():
            for table in (module._forward_pre_hooks, module._forward_hooks):
                if any(isinstance(hook, (Bypassed, _SpectralNormHook)) for hook in table.values()):
                    tables.append((table, list(table.items())))
                    for key, hook in tables[-1][1]:
                        if isinstance(hook, (Bypassed, _SpectralNormHook)):
                            del table[key]
        for spec in weights:
            path, _, name = spec.target.rpartition(".")
            module = modules[path]
            if isinstance(module, ParametrizationList):
                swapped.append((module, module._modules["0"]))
                module._modules["0"] = identity
            else:
                hooked.append((module, name, module.__dict__.pop(name)))
                module._parameters[name] = module._parameters[name + "_orig"]
        yield
    finally:
        for module, norm in swapped:
            module._modules["0"] = norm
        for module, name, stale in reversed(hooked):
            del module._parameters[name]
            module.__dict__[name] = stale
        for table, items in tables:
            table.clear()
            table.update(items)


# One object for all, since compiled steps are guarded by what they find in D.
_IDENTITY = nn.Identity()
