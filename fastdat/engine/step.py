"""``dat_step``: the DAT step as a loss, computed with its gradients in one compiled graph.

A custom ``autograd.Function`` runs the graph in its forward pass, where the parameter gradients of both orders are
already in it, keeps these, and in its backward pass multiplies them by the incoming scalar. That is what lets a
doubly differentiated step compile: torch.compile cannot differentiate a compiled graph twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only

from fastdat.config import DATConfig
from fastdat.engine import checks, objective
from fastdat.engine import microbatch as parts
from fastdat.engine.anatomy import Anatomy, anatomy
from fastdat.engine.attack import attacked_names
from fastdat.engine.distributed import batch_group, run_inside, unwrap
from fastdat.engine.inspection import inspect, joinable
from fastdat.engine.objective import StepResult
from fastdat.engine.passes import zero_flow
from fastdat.engine.spectral import normalise as spectral
from fastdat.engine.types import Args, AuxLoss, Inputs, StepSpec, Tensors
from fastdat.info import DATInfo
from fastdat.kernels.inductor import introduce_operators
from fastdat.losses import Loss, get_loss


@overload
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = ...,
    loss: str | Loss = ...,
    *,
    args_real: Args = ...,
    args_fake: Args = ...,
    aux_loss: AuxLoss | None = ...,
    compile: bool | str = ...,
    microbatch: int | None = ...,
    with_info: Literal[False] = ...,
    check_finite: bool = ...,
) -> Tensor: ...
@overload
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = ...,
    loss: str | Loss = ...,
    *,
    args_real: Args = ...,
    args_fake: Args = ...,
    aux_loss: AuxLoss | None = ...,
    compile: bool | str = ...,
    microbatch: int | None = ...,
    with_info: Literal[True],
    check_finite: bool = ...,
) -> tuple[Tensor, DATInfo]: ...
def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = None,
    loss: str | Loss = "hinge",
    *,
    args_real: Args = (),
    args_fake: Args = (),
    aux_loss: AuxLoss | None = None,
    compile: bool | str = True,
    microbatch: int | None = None,
    with_info: bool = False,
    check_finite: bool = False,
) -> Tensor | tuple[Tensor, DATInfo]:
    """D's loss on adversarially perturbed samples (Eqs. 8-10, Algorithm 1), in place of D's usual loss::

        loss = fastdat.dat_step(D, xr, xf)
        loss.backward()

    It works wherever a loss works: accumulation, clipping, any optimizer, ``no_grad``, autocast in bf16, D under
    DistributedDataParallel (the batch is then that of all ranks). D's mode and ``.grad`` stay as they were; u, v and
    running statistics move as they do in a plain step of D. Random numbers are drawn only if D draws them, anew in
    each pass. The first call for a D, config and shape inspects D and compiles; a parameter the loss does not reach
    gets a gradient of zeros.

    Args:
        D: any module (N, ...) -> logits (N,) or (N, 1), or a tuple of tensors with the logits first.
        xr: real samples (m, ...), floating point in the range of ``config.bounds``.
        xf: fake samples, shape, dtype and device of ``xr``. Detach them from G unless their gradient is wanted.
        config: the step's settings; ``DATConfig()`` where None.
        loss: ``"hinge"``, ``"gan"``, ``"lsgan"``, ``"wgan"`` or an object with g1 and g2 (``fastdat.Loss``).
        args_real, args_fake: further arguments of D (labels, say) for each side.
        aux_loss: function (D, xr, xf) -> scalar, added to the loss in the same graph; it sees the clean batch and
            the weights of D's last call.
        compile: True, a mode of torch.compile, or False for eager, which in second order waits for the device.
        microbatch: samples a side at a time; the loss and gradient stay those of the whole batch.
        with_info: return (loss, DATInfo) too.
        check_finite: refuse NaN and Inf in xr, xf. Synchronises with the device.

    Returns:
        loss, a scalar whose ``backward()`` accumulates the gradients; differentiable once.

    Raises:
        TypeError, ValueError: bad input; the message says what was given, expected, and what to do.
        NotImplementedError: a D that cannot be stepped exactly.
        RuntimeError: D could not be compiled as one graph.
    """
    config = DATConfig() if config is None else config
    if not isinstance(config, DATConfig):
        raise TypeError(f"config must be a fastdat.DATConfig, got {type(config).__name__}")
    x = Inputs(xr, xf, args_real, args_fake)
    module, ddp = unwrap(D)
    group, world_size = batch_group(ddp)
    checks.check_discriminator(module)
    checks.check_batch(x, world_size)
    checks.check_args(x)
    checks.check_autocast(xr.device)
    checks.check_microbatch(microbatch, aux_loss is not None)
    if check_finite:
        checks.check_finite(x)
    body = anatomy(module)
    checks.check_layers(body.modules, world_size)
    checks.check_device(body.params, x)
    loss = get_loss(loss)
    spec = StepSpec(
        config,
        loss,
        spectral=spectral.spectral_weights(body.modules),
        aliases=body.aliases,
        batch=xr.shape[0] * world_size,
        group=group,
        with_info=with_info,
        attacked=attacked_names(config, loss),
    )
    call = _StepCall(module, body, spec, x, aux_loss, _compile_mode(compile), microbatch)
    info: dict[str, Any] = {}

    def evaluate() -> Tensor:
        return _differentiable_loss(call, info)

    value = evaluate() if ddp is None else run_inside(ddp, evaluate, xr)
    return (value, DATInfo(**info)) if with_info else value


# --- the autograd.Function ---------------------------------------------------------------------------------------


class _Step(torch.autograd.Function):
    """A loss whose gradients are known: they come with it."""

    @staticmethod
    def forward(ctx: Any, evaluate: Callable[[], tuple[Tensor, list[Tensor]]], *wanted: Tensor) -> Tensor:
        loss, grads = evaluate()
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(ctx.saved_tensors, grad_loss)


@dataclass(frozen=True, slots=True)
class _StepCall:
    """One call of dat_step, its arguments checked and its D taken apart."""

    D: nn.Module
    body: Anatomy
    spec: StepSpec
    x: Inputs
    aux_loss: AuxLoss | None
    mode: str | None
    microbatch: int | None


def _differentiable_loss(call: _StepCall, info: dict[str, Any]) -> Tensor:
    """The step's loss, attached to the parameters and inputs that want gradients; fills ``info``."""
    wanted: Tensors = {}
    of_inputs: tuple[str, ...] = ()
    if torch.is_grad_enabled():
        wanted = {name: p for name, p in call.body.params.items() if p.requires_grad}
        of_inputs = tuple(name for name in ("xr", "xf") if getattr(call.x, name).requires_grad)
        wanted |= {name: getattr(call.x, name) for name in of_inputs}

    def evaluate() -> tuple[Tensor, list[Tensor]]:
        with _weights_cast_anew(call.x.xr.device), torch.no_grad():
            result = _run(call, of_inputs, with_grads=bool(wanted))
            if result.buffers:
                old = [call.body.buffers[name] for name in result.buffers]
                torch._foreach_copy_(old, list(result.buffers.values()))
        info.update(result.info)
        return result.loss, [result.grads[name] for name in wanted]

    if not wanted:
        return evaluate()[0]
    loss: Tensor = _Step.apply(evaluate, *wanted.values())  # type: ignore[no-untyped-call]
    return loss


def _weights_cast_anew(device: torch.device) -> AbstractContextManager[Any]:
    """Ambient autocast without its cache of cast weights, which would serve one pass's weights to the next."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.get_autocast_dtype(device.type), cache_enabled=False)


# --- compiled once for a D, config and shape -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Engine:
    """A step made ready for one kind of call."""

    spec: StepSpec
    buffers: tuple[str, ...]
    """Those that the step reads or moves as inputs."""
    step: Callable[..., StepResult]
    attack_pass: Callable[..., parts.Pass]


# A memo, not state: what is compiled for a D, forgotten with it. Engines hold no reference to D.
_ENGINES: WeakKeyDictionary[nn.Module, dict[Hashable, _Engine]] = WeakKeyDictionary()


def _run(call: _StepCall, of_inputs: tuple[str, ...], with_grads: bool) -> StepResult:
    """The step, on the engine made for calls like this one."""
    D, body, x = call.D, call.body, call.x.detached()
    trainable: Tensors = {}
    frozen: Tensors = {}
    for name, p in body.params.items():
        (trainable if with_grads and p.requires_grad else frozen)[name] = p.detach()
    engines = _ENGINES.setdefault(D, {})
    key = _key(call, (*trainable, *of_inputs))
    if key not in engines:
        engines[key] = _engine(call, {**frozen, **trainable})
    engine = engines[key]
    tensors = (trainable, frozen, {name: body.buffers[name] for name in engine.buffers})
    with spectral.bypassed(body.modules, engine.spec.spectral):
        if call.microbatch is not None and call.microbatch < x.xr.shape[0]:
            return parts.microbatched_step(
                D, engine.spec, *tensors, x, of_inputs, call.microbatch, engine.step, engine.attack_pass
            )
        return engine.step(D, engine.spec, *tensors, x, call.aux_loss, None, of_inputs)


def _engine(call: _StepCall, params: Tensors) -> _Engine:
    """Inspect D and make its step ready; compilation itself waits for the first run."""
    spec, modules = call.spec, call.body.modules
    with spectral.bypassed(modules, spec.spectral):
        traits = inspect(call.D, spec, params, call.body.buffers, call.x.detached(), call.aux_loss)
    if call.microbatch is not None:
        checks.check_splittable(modules, traits.independent, traits.moving)
    joint = traits.joint and spec.config.power_iterations == "once"
    spec = replace(spec, independent=traits.independent, joint=joint, moving=traits.moving)
    of_spectral = [name for s in spec.spectral for name in (s.u, s.v) if name]
    step, attack_pass = (_compiled(function, call.mode) for function in (objective.step, parts.attack_pass))
    return _Engine(spec, (*of_spectral, *spec.moving), step, attack_pass)


def _key(call: _StepCall, wanted: tuple[str, ...]) -> Hashable:
    """What an engine depends on; anything else that D's forward reads is guarded by torch.compile itself."""
    x, device = call.x, call.x.xr.device
    return (
        call.spec,
        call.mode,
        call.microbatch,
        wanted,
        x.xr.shape,
        x.xr.dtype,
        device,
        tuple(map(_signature, (*x.args_real, *x.args_fake))),
        joinable(x),  # two equal numbers may share a call of D, two unequal ones may not
        getattr(call.aux_loss, "__code__", call.aux_loss),
        torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None,
        tuple([(type(m), m.training) for m in call.body.modules.values()]),
    )


def _signature(arg: Any) -> object:
    return (arg.shape, arg.dtype, arg.device) if isinstance(arg, Tensor) else type(arg)


_EAGER = None


def _compile_mode(compile: bool | str) -> str | None:
    """``compile`` as a mode of torch.compile, None for eager."""
    if isinstance(compile, bool):
        return "default" if compile else _EAGER
    modes = sorted(torch._inductor.list_mode_options())
    if compile not in modes:
        raise ValueError(
            f"compile must be True, False or one of {', '.join(map(repr, modes))}, got {compile!r}"
        )
    return compile


def _compiled(function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
    """``function`` as one graph, with a cache of its own; in eager mode ``function`` itself."""
    if mode is _EAGER:
        return partial(function, traced=False) if function is objective.step else function
    introduce_operators()
    # torch.compile keeps its compiled variants with the code object, and only a few: give each engine its own.
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    own.__defaults__ = function.__defaults__
    graph = torch.compile(own, fullgraph=True, dynamic=False, options=zero_flow.options(mode))
    replayed = mode in ("reduce-overhead", "max-autotune")

    def run(*args: Any) -> Any:
        if replayed:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            result = graph(*args)
        except (torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError) as error:
            raise RuntimeError(
                "D (or aux_loss, or the loss) cannot be compiled into one graph. Call dat_step(..., compile=False), "
                f"or change what torch.compile stumbles over:\n{error}"
            ) from error
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise RuntimeError(
                "D's step was compiled too many times: something that D's forward reads (a Python number, say) changes "
                f"from call to call. Keep it in a buffer, or call dat_step(..., compile=False).\n{error}"
            ) from error
        # A replayed CUDA graph overwrites its outputs; a loss must live until its backward.
        return tree_map_only(Tensor, Tensor.clone, result) if replayed else result

    return run
