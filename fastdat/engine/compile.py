"""Prepares steps: for each kind of request D is inspected once and the step is compiled once.

The result is kept as an :class:`Engine`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastdat.engine import checks, microbatch, objective, passes
from fastdat.engine.discriminator import Structure
from fastdat.engine.inspection import autograd_functions, inspect
from fastdat.engine.spectral.normalise import bypassed
from fastdat.engine.types import AuxLoss, StepInputs, StepResult, StepSpec
from fastdat.kernels.inductor import introduce_operators


@dataclass(frozen=True, slots=True)
class Request:
    """One call of ``dat_step`` apart from its samples: arguments checked, D taken apart."""

    D: nn.Module
    structure: Structure
    spec: StepSpec
    aux_loss: AuxLoss | None
    mode: str | None
    """Of torch.compile; None for eager."""
    microbatch: int | None
    fold: bool
    """Whether the compiled graph may reorder convolutions and pools."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A step made ready for one kind of request."""

    spec: StepSpec
    """The request's spec, completed by what the inspection of D found."""
    buffers: tuple[str, ...]
    """Those of D's buffers that the step reads or moves."""
    step: Callable[..., StepResult]
    attack_pass: microbatch.AttackPass


# --- one engine for each kind of request ---------------------------------------------------------------------------

# A cache of compiled steps for each D. It is dropped together with D, since engines hold no reference to D.
_ENGINES: WeakKeyDictionary[nn.Module, dict[Hashable, Engine]] = WeakKeyDictionary()


def engine_for(request: Request, inputs: StepInputs) -> Engine:
    """The engine of requests like this one, made when the first of them comes."""
    engines = _ENGINES.setdefault(request.D, {})
    key = _key(request, inputs)
    if key not in engines:
        engines[key] = _new_engine(request, inputs)
    return engines[key]


def _new_engine(request: Request, inputs: StepInputs) -> Engine:
    """Inspect D and make its step ready; compilation itself waits for the first run."""
    spec, structure = request.spec, request.structure
    with bypassed(structure.modules, spec.spectral):
        traits = inspect(request.D, spec, inputs, request.aux_loss)
        if request.mode is not EAGER and spec.config.second_order:
            checks.check_functions(autograd_functions(request.D, spec, inputs, request.aux_loss))
    if request.microbatch is not None:
        checks.check_splittable(structure.modules, traits.independent, traits.moving)
    joint = traits.joint and spec.config.power_iterations == "once"
    spec = replace(
        spec,
        independent=traits.independent,
        joint=joint,
        moving=traits.moving,
        traced=request.mode is not EAGER,
    )
    of_spectral = [name for s in spec.spectral for name in (s.u, s.v) if name]
    buffers = (*of_spectral, *spec.moving)
    functions: tuple[Callable[..., Any], ...] = (objective.step, microbatch.attack_pass)
    if request.mode is not EAGER:
        functions = tuple(compiled(f, request.mode, request.fold) for f in functions)
    return Engine(spec, buffers, *functions)


def _key(request: Request, inputs: StepInputs) -> Hashable:
    """What an engine depends on. Anything else that D's forward reads is guarded by torch.compile itself."""
    batch = inputs.batch
    device = batch.xr.device
    return (
        request.spec,
        request.mode,
        request.microbatch,
        request.fold,
        tuple(inputs.trainable),
        batch.xr.shape,
        batch.xr.dtype,
        device,
        tuple(map(_signature, (*batch.args_real, *batch.args_fake))),
        batch.is_joinable(),  # two equal numbers may share a call of D, two unequal ones may not
        getattr(request.aux_loss, "__code__", request.aux_loss),
        torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None,
        tuple([(type(m), m.training) for m in request.structure.modules.values()]),
    )


def _signature(arg: Any) -> object:
    return (arg.shape, arg.dtype, arg.device) if isinstance(arg, Tensor) else type(arg)


# --- one graph for each engine -------------------------------------------------------------------------------------

EAGER = None
"""The mode of a step that is not compiled."""


def compile_mode(compile: bool | str) -> str | None:
    """The argument ``compile`` of ``dat_step`` as a mode of torch.compile, ``EAGER`` for none.

    Raises:
        ValueError: torch.compile has no such mode.
    """
    if isinstance(compile, bool):
        return "default" if compile else EAGER
    modes = sorted(torch._inductor.list_mode_options())
    if compile not in modes:
        raise ValueError(
            f"compile must be True, False or one of {', '.join(map(repr, modes))}, got {compile!r}"
        )
    return compile


def compiled(function: Callable[..., Any], mode: str, fold: bool) -> Callable[..., Any]:
    """``function`` as one graph, with a cache of its own."""
    introduce_operators()
    # torch.compile keeps its compiled variants with the code object, and only a few: give each engine its own.
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    own.__defaults__ = function.__defaults__
    graph = torch.compile(own, fullgraph=True, dynamic=False, options=passes.options(mode, fold))
    replayed = mode in ("reduce-overhead", "max-autotune")

    def run(*args: Any) -> Any:
        if replayed:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            with _torch_func_as_it_was():
                result = graph(*args)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            raise RuntimeError(f"{_advice(error)}\n{error}") from error
        # A replayed CUDA graph overwrites its outputs; a loss must live until its backward.
        return tree_map_only(Tensor, Tensor.clone, result) if replayed else result

    return run


@contextmanager
def _torch_func_as_it_was() -> Iterator[None]:
    """A compilation that fails may stop within ``torch.func``, whose state would break every later step."""
    level = torch._C._functorch.get_dynamic_layer_stack_depth()
    hooks_are_off = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message()
    try:
        yield
    except BaseException:
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(level)
        if hooks_are_off is None:
            torch._C._autograd._saved_tensors_hooks_enable()
        raise


def _advice(error: Exception) -> str:
    """What to do about an error of torch.compile."""
    if "saved tensor hooks" in str(error):
        return (
            "D uses activation checkpointing, or another hook on saved tensors, which cannot be compiled into the "
            "step. Call dat_step(..., compile=False), or leave the checkpointing out and pass microbatch, which saves "
            "memory, too:"
        )
    if isinstance(error, torch._dynamo.exc.FailOnRecompileLimitHit):
        return (
            "D's step was compiled too many times: something that D's forward reads (a Python number, say) changes "
            "from call to call. Keep it in a buffer, or call dat_step(..., compile=False)."
        )
    if isinstance(error, (torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        return (
            "D (or aux_loss, or the loss) cannot be compiled into one graph. Call dat_step(..., compile=False), "
            "or change what torch.compile stumbles over:"
        )
    return (
        "torch.compile failed on the step. Where D (or aux_loss, or the loss) is the cause, change it or call "
        "dat_step(..., compile=False):"
    )
