"""The repeated call of ``dat_step``: what its first call has found out and made, kept while it is true.

The first call checks its arguments, takes D apart and chooses an engine. A later one with equal arguments, samples of
the same kind and an unchanged D does none of this again.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.utils.weak import WeakIdKeyDictionary

from fastdat.config import AttackConfig, Wiring
from fastdat.engine import checks, sample_checks
from fastdat.engine.announce import announced, reason_for, remember
from fastdat.engine.compile import (
    EAGER,
    REPLAYED,
    Engine,
    NotCompiledError,
    Request,
    compile_mode,
    engine_for,
    kind_of_args,
    same_function,
)
from fastdat.engine.copies import Copies
from fastdat.engine.distributed import batch_group
from fastdat.engine.features import captured, captures_of
from fastdat.engine.microbatch import microbatched_step
from fastdat.engine.objective import attention_for
from fastdat.engine.spectral.normalise import bypassed, reads_of, spectral_weights
from fastdat.engine.structure import Snapshot, structure_of
from fastdat.engine.threads import SHARED
from fastdat.engine.types import (
    AuxLoss,
    Batch,
    StepInputs,
    StepNeeds,
    StepResult,
    StepSpec,
    Tensors,
    TermInputs,
)
from fastdat.engine.weight_norm import left_out, normed_weights
from fastdat.losses import AnyLoss, get_loss
from fastdat.regularizers.term import Term


class Call(NamedTuple):
    """The arguments of one call of ``dat_step`` or ``generator_step`` apart from D and the samples."""

    config: AttackConfig
    loss: str | AnyLoss
    terms: tuple[Term, ...]
    """The regularizers whose turn it is, their names, and which of them have a tensor as their weight."""
    term_names: tuple[str, ...]
    weighed: tuple[bool, ...]
    aux_loss: AuxLoss | None
    compile: bool | str
    fold: bool
    microbatch: int | None
    with_info: bool
    wiring: Wiring | None = None
    """Of a step of G; None for a step of D."""


class CallsOf:
    """What is kept for one D, and the lock under which its steps run."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.has_seen_values = False
        """The samples of its first step were looked at (``sample_checks.tell_values``)."""
        self.prepared: dict[Hashable, Prepared] = {}


# Dropped together with D: a prepared step keeps nothing of D alive.
_CALLS: MutableMapping[nn.Module, CallsOf] = WeakIdKeyDictionary()  # two D may compare as equal
KINDS_OF_CALL = 64
"""Prepared steps that are kept for one D."""


def calls_of(D: nn.Module) -> CallsOf:
    """What is kept for D, the same for every thread."""
    return _CALLS.get(D) or _CALLS.setdefault(D, CallsOf())


def prepared_step(
    D: nn.Module, calls: CallsOf, ddp: DistributedDataParallel | None, call: Call, batch: Batch
) -> Prepared:
    """The prepared step of calls like this one, made when the first of them comes, or when D has changed.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as ``dat_step``.
    """
    group, world_size = batch_group(ddp)
    key = _key(call, group, batch)
    try:
        prepared = calls.prepared.get(key)
    except TypeError:  # an option that cannot be hashed is none
        return Prepared(D, call, batch, group, world_size)
    if prepared is None or not prepared.is_current():
        calls.prepared.pop(key, None)
        prepared = Prepared(D, call, batch, group, world_size)
        if len(calls.prepared) >= KINDS_OF_CALL:
            del calls.prepared[next(iter(calls.prepared))]
        calls.prepared[key] = prepared
    return prepared


def _key(call: Call, group: Any, batch: Batch) -> Hashable:
    """What the checks and the choice of an engine depend on, apart from D."""
    xr, xf, device = batch.xr, batch.xf, batch.xr.device.type
    return (
        call._replace(aux_loss=None),
        same_function(call.aux_loss),
        group,
        xr.shape, xf.shape, xr.dtype, xf.dtype, xr.device, xf.device, xr.requires_grad, xf.requires_grad,
        kind_of_args(batch),
        torch.is_grad_enabled(),
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
    )  # fmt: skip


class Prepared:
    """A step of one D, ready to run.

    Args:
        D: the user's module, without wrappers.
        call, batch: of the first call.
        group, world_size: as ``batch_group`` gives them.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``dat_step``.
    """

    def __init__(self, D: nn.Module, call: Call, batch: Batch, group: Any, world_size: int) -> None:
        self._of_G = call.wiring is not None
        gradients = torch.is_grad_enabled()
        checks.check_options(call.config, call.compile, call.fold, call.with_info, call.aux_loss)
        sample_checks.check_batch(batch, world_size)
        sample_checks.check_args(batch, gradients)
        checks.check_autocast(batch.xr.device)
        checks.check_precision(call.terms, batch.xr)
        checks.check_microbatch(call.microbatch, call.aux_loss is not None, call.terms)
        loss = get_loss(call.loss)
        checks.check_seed(call.config, loss, attacks=self._of_G or call.config.attacks)
        structure = structure_of(D)
        checks.check_layers(structure.modules, world_size)
        checks.check_parameters(structure.params, structure.buffers)
        checks.check_device(structure.params, batch)
        spectral = spectral_weights(structure.modules)
        if call.microbatch is not None and spectral:
            checks.check_one_sigma(call.config, call.terms)
        samples = (("xf", batch.xf),) if self._of_G else (("xr", batch.xr), ("xf", batch.xf))
        self._spec = StepSpec(
            call.config,
            loss,
            call.terms,
            call.term_names,
            call.weighed,
            StepNeeds.of(call.terms),
            captures_of([t.needs.features for t in call.terms if t.needs.features], structure.modules),
            spectral=spectral,
            normed=normed_weights(structure.modules),
            aliases=structure.aliases,
            batch=batch.xr.shape[0] * world_size,
            group=group,
            inputs_wanted=tuple([name for name, x in samples if gradients and x.requires_grad]),
            with_info=call.with_info,
            wiring=call.wiring,
        )
        self._mode, self._fold, self._microbatch = compile_mode(call.compile), call.fold, call.microbatch
        self._of_D = [ref(t) for t in (*structure.params.values(), *structure.buffers.values())]
        self._require_grad = [p.requires_grad for p in structure.params.values()]
        params: Tensors = {name: p.detach() for name, p in structure.params.items()}
        buffers: Tensors = {name: b.detach() for name, b in structure.buffers.items()}
        self._own = [*params.values(), *buffers.values()]
        # Some keep in a frozen parameter what should be a buffer, and move it in each call: an average, or u.
        frozen = {name: params[name] for name, p in structure.params.items() if not p.requires_grad}
        self._buffers: Tensors = {**buffers, **frozen}
        if self._mode in REPLAYED:  # a CUDA graph then reads D's memory itself, and copies nothing before
            for tensor in self._own:
                torch._dynamo.mark_static_address(tensor, guard=False)
        self._exact = any(term.in_full_precision for term in call.terms)
        trains = gradients and not self._of_G
        self._at = [i for i, requires in enumerate(self._require_grad) if requires and trains]
        self._trainable = {name: params[name] for name in [list(params)[i] for i in self._at]}
        self._frozen = {name: p for name, p in params.items() if name not in self._trainable}
        self.wanted = (*self._trainable, *self._spec.inputs_wanted)
        """Names of everything whose gradient the step computes."""
        self._engine: Engine | None = None
        self._moved: Tensors = {}
        """The buffers that the engine reads or moves."""
        self._snapshot: Snapshot | None = None

    def leaves(self, batch: Batch) -> list[Tensor]:
        """The tensors of these names, whose ``.grad`` is to be filled."""
        params: list[Any] = [self._of_D[i]() for i in self._at]
        return [*params, *[getattr(batch, name) for name in self._spec.inputs_wanted]]

    def is_current(self) -> bool:
        """Whether D is as it was when the step was prepared."""
        if self._snapshot is None or not self._snapshot.holds():
            return False
        tensors: list[Any] = [tensor() for tensor in self._of_D]
        if [p.requires_grad for p in tensors[: len(self._require_grad)]] != self._require_grad:
            return False
        try:  # nobody has given a tensor other memory or another shape (``.data``)
            return all(map(Tensor.is_set_to, self._own, tensors))
        except RuntimeError:  # on another device
            return False

    def run(self, D: nn.Module, batch: Batch, aux_loss: AuxLoss | None, of_terms: TermInputs) -> StepResult:
        """The step on these samples; moves D's buffers, and what the terms keep."""
        inputs = StepInputs(self._trainable, self._frozen, self._buffers, batch, terms=of_terms)
        # An eager step shares nothing but its engine, the captures of features and, in second order, a switch
        # (``attention_for``).
        spec = self._spec
        alone = self._mode is EAGER and not (spec.differentiates_gradient or spec.captures or self._exact)
        shared, precision = (
            nullcontext() if alone else SHARED,
            _without_tf32() if self._exact else nullcontext(),
        )
        with shared, precision, _parametrized_anew(), _weights_cast_anew(), torch.no_grad():
            result: StepResult | None = None
            if self._engine is not None:
                captures = spec.captures  # a graph looks for the hooks that it was traced with
                with captured(
                    {capture.path: D.get_submodule(capture.path) for capture in captures}, captures
                ):
                    result = self._engine.run_again(D, inputs._replace(buffers=self._moved), aux_loss)
            if result is None:
                with attention_for(spec):
                    result = self._run_traceable(D, inputs, aux_loss)
            if result.buffers:
                own = [self._buffers[name] for name in result.buffers]
                torch._foreach_copy_(own, list(result.buffers.values()))
            for state, new in zip(of_terms.states, result.states, strict=True):
                for name, tensor in new.items():
                    state[name].copy_(tensor)
        return result

    def _run_traceable(self, D: nn.Module, inputs: StepInputs, aux_loss: AuxLoss | None) -> StepResult:
        """The step with a D that may be called."""
        structure = structure_of(D)
        request = Request(D, structure, self._spec, aux_loss, self._mode, self._microbatch, self._fold)
        in_parts = self._microbatch is not None and self._microbatch < inputs.batch.xr.shape[0]
        while True:
            engine = engine_for(request, inputs)
            spec = engine.spec
            copies = Copies(inputs.batch)  # D, or what it has become, may change its input in place
            buffers = {name: inputs.buffers[name] for name in engine.buffers}
            own = inputs._replace(buffers=buffers, batch=copies.batch)
            try:
                with (
                    left_out(structure.modules),
                    bypassed(structure.modules, spec.spectral),
                    captured(structure.modules, spec.captures),
                    engine.tracing(structure.modules),
                    self._announced(D, engine, inputs.batch.xr, in_parts),
                ):
                    if in_parts and self._microbatch is not None:
                        result = microbatched_step(D, spec, own, self._microbatch, engine.passes)
                    else:
                        result = engine.step(D, spec, own, aux_loss)
            except NotCompiledError:
                if engine.fits(request, inputs, failed=True):
                    raise
                continue
            if engine.fits(request, inputs):
                break
        try:
            copies.check("D (or aux_loss)")
        except ValueError:
            engine.forget()
            raise
        if self._mode is not EAGER:
            remember(D, engine.kind, engine.family, inputs.batch.xr.shape[0])
        if self._mode is not EAGER and not in_parts:
            self._engine, self._moved = engine, own.buffers
            self._snapshot = Snapshot(structure, reads_of(structure.modules, engine.guards.reads))
        return result

    def _announced(
        self, D: nn.Module, engine: Engine, xr: Tensor, in_parts: bool
    ) -> AbstractContextManager[None]:
        """Within it, a compilation of the step is announced."""
        if self._mode is EAGER:
            return nullcontext()
        what = "G's loss on attacked fakes" if self._of_G else "D's step"
        if in_parts:
            what = f"D's step in parts of {self._microbatch}"
        has_graph = engine.guards.compilations > 0
        return announced(what, xr, *reason_for(D, engine.kind, engine.family, xr.shape[0], has_graph))


@contextmanager
def _parametrized_anew() -> Iterator[None]:
    """Without the cache of ``torch.nn.utils.parametrize.cached``, which would serve one pass's weights to the next."""
    depth = parametrize._cache_enabled
    parametrize._cache_enabled -= depth
    try:
        yield
    finally:
        parametrize._cache_enabled += depth


@contextmanager
def _without_tf32() -> Iterator[None]:
    """With fp32 that is fp32: on a GPU, PyTorch computes convolutions in TF32, which has 10 bits of mantissa as fp16,
    unless it is told otherwise."""
    cudnn: Any = torch.backends.cudnn
    backends: tuple[Any, ...] = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def _weights_cast_anew() -> Iterator[None]:
    """Without autocast's cache of cast weights, which would serve one pass's weights to the next. Where D itself turns
    autocast on, within a region that has it off, the cache would keep the weights of every step until that ends."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
