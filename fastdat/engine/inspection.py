"""What a step must know of D before it is traced. It is found by running D, not by looking at its type."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.engine import checks
from fastdat.engine.copies import Copies
from fastdat.engine.discriminator import call_aux, split_outputs
from fastdat.engine.explain import explained
from fastdat.engine.features import captured
from fastdat.engine.gradient_paths import paths_of
from fastdat.engine.spectral.normalise import SpectralWeight, cast_nowhere, cast_where_called
from fastdat.engine.types import AuxLoss, Batch, StepInputs, StepSpec, Tensors
from fastdat.engine.weights import Weights
from fastdat.losses import AnyLoss, is_pair

_LOGGER = logging.getLogger("fastdat")


@dataclass(frozen=True, slots=True)
class Traits:
    """How D treats a batch and its layers; the fields are those of ``StepSpec``."""

    independent: bool
    joint: bool
    moving: tuple[str, ...]
    spectral: tuple[SpectralWeight, ...] = ()


def inspect(D: nn.Module, spec: StepSpec, inputs: StepInputs, aux_loss: AuxLoss | None) -> Traits:
    """Run a bypassed D on the batch, and on poisoned copies of it, without leaving a trace in it.

    A D treats its samples independently if NaN in all others leaves a sample's logit alone. This sees a user's own
    minibatch statistics too, where a list of known layers would not; not those that leave NaN out (``nanmean``).

    Raises:
        TypeError, ValueError: D's output, or aux_loss's, is not what a step needs; D cannot take these samples and
            arguments, or changes them in place.
    """
    copies = Copies(inputs.batch)
    batch = copies.batch
    # D may turn autocast off around some layers.
    own, spec = spec, replace(spec, spectral=cast_nowhere(spec.spectral))
    with torch.no_grad(), _random_state_kept(batch.xr):
        weights, buffers = _tensors(spec, inputs)
        with (
            explained(D, {**weights, **buffers}, batch.xr, batch.args_real, "real"),
            cast_where_called(D, own.spectral, batch.xr.device.type) as spectral,
        ):
            out, moving = _run(D, weights, buffers, batch.xr, batch.args_real)
        copies.check(values=True)
        checks.check_output(out, batch.xr.shape[0])
        if batch.args_fake:
            with explained(D, {**weights, **buffers}, batch.xf, batch.args_fake, "fake"):
                of_fake, moved = _run(D, weights, buffers, batch.xf, batch.args_fake)
            copies.check(values=True)
            checks.check_output(of_fake, batch.xf.shape[0])
            moving |= moved
        with torch.enable_grad():  # statistics may move only where gradients are recorded
            moving |= _run(D, weights, buffers, batch.xr, batch.args_real)[1]
            if batch.args_fake:
                moving |= _run(D, weights, buffers, batch.xf, batch.args_fake)[1]
        _check_loss(spec.loss, split_outputs(out)[0])
        checks.check_extras(len(out) - 1 if isinstance(out, (tuple, list)) else 0, spec.terms)
        if spec.captures:
            _check_features(D, spec, weights, buffers, batch)
        if aux_loss is not None:
            with torch.enable_grad():  # a gradient penalty differentiates D
                value, after = call_aux(D, aux_loss, weights, buffers, batch)
            copies.check("aux_loss", values=True)
            _check_aux(value)
            moving |= _changed(buffers, after)
        args_join = batch.is_joinable()
        samples, args = batch.joined() if args_join else (batch.xr, batch.args_real)
        _, further = split_outputs(out)
        # The shapes where it is called on these samples; None for an output that has no row for each.
        shapes = [
            (len(samples), *e.shape[1:]) if e.shape[:1] == batch.xr.shape[:1] else None for e in further
        ]
        independent = all(_alone(D, spec, weights, buffers, samples, args, keep, shapes) for keep in (0, -1))
        outputs_join = None not in shapes
        _check_moving(D, moving, buffers)
    names = tuple(name for name in buffers if name in moving)
    joint = independent and args_join and outputs_join and not names
    return Traits(independent, joint, names, tuple(spectral))


def check_gradients(
    D: nn.Module,
    spec: StepSpec,
    inputs: StepInputs,
    aux_loss: AuxLoss | None,
    microbatch: int | None,
    traced: bool,
) -> None:
    """Run a bypassed D on the reals, at most ``microbatch`` of them, and look where the gradient of its logits goes.

    Raises:
        ValueError: it does not go where a step needs it, or to tensors that would get none.
        NotImplementedError: D calls what cannot be differentiated exactly in a step that is ``traced`` or not.
    """
    with _random_state_kept(inputs.batch.xr):
        weights, buffers = _tensors(spec, inputs)
        paths = paths_of(D, weights, buffers, inputs, aux_loss, microbatch)
    takes_gradients = any(spec.attacked) or spec.differentiates_gradient or spec.needs.loss_gradient
    checks.check_reach(paths.to_samples, paths.to_weights, takes_gradients)
    if paths.is_fp16:
        _LOGGER.warning(
            "D computes in fp16. Its gradients are computed within the step, before a GradScaler or a factor of the "
            "loss can make them larger: small ones become zero. Use bf16, or fp32."
        )
    checks.check_functions(paths.functions, paths.has_hooks, traced and spec.differentiates_gradient)
    if inputs.trainable or spec.inputs_wanted:
        checks.check_strangers(paths.strangers)


def _random_state_kept(x: Tensor) -> AbstractContextManager[None]:
    """Within it, D may draw random numbers on the device of ``x``: afterwards none are missing."""
    return torch.random.fork_rng([x.device] if x.is_cuda else [])


def _tensors(spec: StepSpec, inputs: StepInputs) -> tuple[Tensors, Tensors]:
    """The weights of a bypassed D as constants, and the buffers that it may read or move."""
    weights = Weights(spec, {**inputs.frozen, **inputs.trainable}, inputs.buffers).next(False)
    of_spectral = {name for s in spec.spectral for name in (s.u, s.v)}
    return weights, {name: buffer for name, buffer in inputs.buffers.items() if name not in of_spectral}


def _run(
    D: nn.Module, weights: Tensors, buffers: Tensors, x: Tensor, args: tuple[object, ...]
) -> tuple[Any, set[str]]:
    before = {**weights, **buffers}
    given = {name: tensor.clone() for name, tensor in before.items()}
    for name, *further in _names(D).values():
        if name in buffers:
            given |= dict.fromkeys(further, given[name])
    out: Any = torch.func.functional_call(D, given, (x, *args), tie_weights=False)
    return out, _changed(before, given)


def _names(D: nn.Module) -> dict[int, list[str]]:
    """Tensors of D by their id -> the names that modules have for them, most often one."""
    names: dict[int, list[str]] = {}
    for path, module in D.named_modules():
        for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                names.setdefault(id(tensor), []).append(f"{path}.{leaf}" if path else leaf)
    return names


def _check_moving(D: nn.Module, moving: set[str], buffers: Tensors) -> None:
    """Raises ValueError where D moves what a step cannot move."""
    for name in sorted(moving):
        if name not in buffers:
            raise ValueError(
                f"D changes its parameter '{name}' while it is called, and a step calls D several times with the same "
                "parameters. If D initialises it from its first batch, call D(xr) once before the first step; if D "
                "keeps an average in it, register it as a buffer"
            )
    for name, *further in _names(D).values():
        if further and name in moving:
            raise ValueError(
                f"D moves '{name}', and '{further[0]}' is the same tensor: which of them a step should move is not "
                "known. Give each layer its own"
            )


def _changed(before: Tensors, after: Tensors) -> set[str]:
    """Compares values, since batch norm moves its statistics without increasing their version counters."""
    return {name for name in before if not _equal(before[name], after[name])}


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, of which NaN is one."""
    if a.layout is not torch.strided:
        a, b = a.to_dense(), b.to_dense()
    if a.shape != b.shape or torch.equal(a, b):
        return a.shape == b.shape
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _alone(
    D: nn.Module,
    spec: StepSpec,
    weights: Tensors,
    buffers: Tensors,
    x: Tensor,
    args: tuple[object, ...],
    keep: int,
    shapes: list[tuple[int, ...] | None],
) -> bool:
    """Whether sample ``keep`` stays a number, in all that D returns and regularizers see of it, when every other sample
    is NaN, and the further outputs have these ``shapes``: a table may have as many rows as there were samples before.

    So are the other rows of an argument that has a row for each sample. It may be one for all of them, such as
    prototypes, and have as many rows by chance: then a logit depends on all rows, and a batch cannot be split.
    """
    among = tuple(
        _poisoned(arg, keep)
        if isinstance(arg, Tensor) and arg.is_floating_point() and arg.shape[:1] == x.shape[:1]
        else arg
        for arg in args
    )
    try:
        with captured(dict(D.named_modules()), spec.captures):
            out, _ = _run(D, weights, buffers, _poisoned(x, keep), among)
            rows = [capture.found[-1] for capture in spec.captures]
    except Exception:  # a D that checks its input: it ran on the clean batch, so take the careful path
        return False
    logits, further = split_outputs(out)
    for output, shape in zip(further, shapes, strict=True):
        if shape is not None:
            if output.shape != shape:
                return False
            rows.append(output)
    return not any(
        bool(of_all[keep].isnan().any()) for of_all in (logits, *rows) if of_all.is_floating_point()
    )


def _poisoned(x: Tensor, keep: int) -> Tensor:
    """NaN in all rows but one."""
    poisoned = torch.full_like(x, torch.nan)
    poisoned[keep] = x[keep]
    return poisoned


def _check_aux(value: object) -> None:
    if not isinstance(value, Tensor) or value.ndim != 0 or not value.is_floating_point():
        raise ValueError(
            f"aux_loss(D, xr, xf) must return a floating-point scalar tensor, got {_described(value)}: take its mean"
        )


def _check_features(D: nn.Module, spec: StepSpec, weights: Tensors, buffers: Tensors, batch: Batch) -> None:
    with captured(dict(D.named_modules()), spec.captures):
        _run(D, weights, buffers, batch.xr, batch.args_real)
        found = {capture.path: (capture.found or [None])[-1] for capture in spec.captures}
    checks.check_features(found, batch.xr.shape[0])


def _check_loss(loss: AnyLoss, logits: Tensor) -> None:
    names, arguments = (("pair",), (logits, logits)) if is_pair(loss) else (("g1", "g2"), (logits,))
    for name in names:
        value: object = getattr(loss, name)(*arguments)
        if not isinstance(value, Tensor) or value.shape != logits.shape or not value.is_floating_point():
            raise ValueError(
                f"{type(loss).__name__}.{name} must give one value a logit, shape {tuple(logits.shape)}, got "
                f"{_described(value)}: leave the mean to dat_step"
            )


def _described(value: object) -> str:
    return (
        f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    )
