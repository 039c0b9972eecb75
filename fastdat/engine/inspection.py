"""What a step must know of D before it is traced. It is found by running D, not by looking at its type."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Traits:
    """How D treats a batch and its layers; the fields are those of ``StepSpec``."""

    independent: bool
    joint: bool
    moving: tuple[str, ...]
    spectral: tuple[SpectralWeight, ...] = ()


def inspect(D: nn.Module, spec: StepSpec, inputs: StepInputs, aux_loss: AuxLoss | None) -> Traits:
    """Run a bypassed D on the batch, and on poisoned copies of it, without leaving a trace in it.

    A D treats its samples independently if NaN in all others leaves a sample's logit alone: exact, whatever D is
    made of, where a list of known layers would miss a user's minibatch statistics.

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
        called = _Poisoned(D, spec, weights, buffers, samples, args)
        independent = all(called.alone(keep) for keep in (0, -1))
        if args_join:
            independent = independent and called.gives_rows_like(out)
        outputs_join = isinstance(out, Tensor) or all(
            e.ndim > 0 and e.shape[0] == batch.xr.shape[0] for e in out
        )
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
    moved = {name: buffer.clone() for name, buffer in buffers.items()}
    out: Any = torch.func.functional_call(D, {**weights, **moved}, (x, *args), tie_weights=False)
    return out, _changed(buffers, moved)


def _changed(before: Tensors, after: Tensors) -> set[str]:
    """Compares values, since batch norm moves its statistics without increasing their version counters."""
    return {name for name in before if not torch.equal(before[name], after[name])}


class _Poisoned:
    """Calls of a bypassed D on ``x`` where all samples but one are NaN.

    So are the other rows of an argument that has a row for each sample. It may be one for all of them, such as
    prototypes, and have as many rows by chance: then a logit depends on all rows, and a batch cannot be split.
    """

    def __init__(
        self,
        D: nn.Module,
        spec: StepSpec,
        weights: Tensors,
        buffers: Tensors,
        x: Tensor,
        args: tuple[object, ...],
    ) -> None:
        self._D, self._spec, self._weights, self._buffers, self._x, self._args = (
            D,
            spec,
            weights,
            buffers,
            x,
            args,
        )
        self._outputs: list[Tensor] = []

    def alone(self, keep: int) -> bool:
        """Whether sample ``keep`` has numbers in its row of all that D returns, and that regularizers see of it."""
        count = len(self._x)
        args = tuple(
            _poisoned(arg, keep)
            if isinstance(arg, Tensor) and arg.is_floating_point() and arg.shape[:1] == (count,)
            else arg
            for arg in self._args
        )
        try:
            with captured(dict(self._D.named_modules()), self._spec.captures):
                out, _ = _run(self._D, self._weights, self._buffers, _poisoned(self._x, keep), args)
                seen = [found for capture in self._spec.captures for found in capture.found]
        except Exception:  # a D that checks its input: it ran on the clean batch, so take the careful path
            return False
        self._outputs = _all_of(out)
        of_samples = [
            tensor
            for tensor in (*self._outputs, *seen)
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.shape[:1] == (count,)
        ]
        return not any(bool(tensor[keep].isnan().any()) for tensor in of_samples)

    def gives_rows_like(self, out: object) -> bool:
        """Whether each output has a row for each sample if it has one in ``out``, of another number of samples; a table
        may have as many rows by chance."""
        count = len(self._x)
        pairs = zip(self._outputs, _all_of(out), strict=True)
        return all(
            now.shape[:1] == (count,) and now.shape[1:] == then.shape[1:] for now, then in pairs if then.ndim
        )


def _all_of(out: object) -> list[Tensor]:
    return [*out] if isinstance(out, (tuple, list)) else [out]  # type: ignore[list-item]  # check_output has seen it


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
