"""Engines: for each kind of request D is inspected once and the step is compiled once, for all equal discriminators."""

from __future__ import annotations

import difflib
import traceback
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._dynamo import convert_frame
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastdat.config import NO_ATTACK
from fastdat.engine import checks, cpp_compiler, microbatch, objective, passes
from fastdat.engine.guards import Guards
from fastdat.engine.inspection import check_gradients, inspect
from fastdat.engine.module_state import Touched, attributes_kept
from fastdat.engine.spectral.normalise import bypassed
from fastdat.engine.structure import Reads, Same, Structure, is_constant, signature_of
from fastdat.engine.threads import SHARED
from fastdat.engine.types import AuxLoss, Batch, StepInputs, StepResult, StepSpec, Tensors
from fastdat.engine.weight_norm import left_out
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


@dataclass(slots=True, eq=False)
class Engine:
    """A step made ready for one kind of request. It keeps no discriminator alive."""

    kind: Hashable
    """The kind of request apart from the number of samples."""
    family: Hashable
    """The kind apart from the numbers in the config, too."""
    spec: StepSpec
    """The request's spec, completed by what the inspection of D found."""
    buffers: tuple[str, ...]
    """Those of D's buffers that the step reads or moves."""
    step: Callable[..., StepResult]
    passes: microbatch.Passes
    """The functions of which a step in parts consists, ``step`` among them."""
    guards: Guards
    inspected_at: int = 0
    """Graphs that there were when D was last inspected."""

    def tracing(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """Within it the step may be traced, with a D of these modules by path."""
        return self.guards.tracing(modules)

    def run_again(self, D: nn.Module, inputs: StepInputs, aux_loss: AuxLoss | None) -> StepResult | None:
        """The step by a graph that there is; None if it has to be traced, for which D is not ready."""
        try:
            return self.step(D, self.spec, inputs, aux_loss)
        except NotCompiledError:
            return None

    def fits(self, request: Request, inputs: StepInputs, failed: bool = False) -> bool:
        """Whether the engine is still right for this D, after its step was run, or could not be compiled.

        A graph that is made after D was inspected is made because something that D reads has changed: then D may treat
        a batch differently, too. An engine that does not fit is forgotten.
        """
        graphs, before = self.guards.compilations, self.inspected_at
        self.inspected_at = graphs
        if before == 0 or (before == graphs and not failed):
            return True
        fits = False
        try:
            fits = _inspected(request, inputs)[0] == self.spec
        finally:  # D may be wrong now
            if not fits:
                self.forget()
        return fits

    def forget(self) -> None:
        """Serve no later request."""
        with SHARED:
            for engines in _ENGINES.values():
                if self in engines:
                    engines.remove(self)


# --- one engine for each kind of request ---------------------------------------------------------------------------

_ENGINES: OrderedDict[Hashable, list[Engine]] = OrderedDict()
"""Engines by kind of request, those used last at the end. Several of one kind serve discriminators whose modules have
different values in an attribute."""
KINDS = 32
"""Kinds of requests whose engines are kept. An engine lives on while a D uses it."""


def engine_for(request: Request, inputs: StepInputs) -> Engine:
    """The engine of requests like this one, made when the first of them comes.

    Raises:
        RuntimeError: an attribute that D reads has had too many values.
    """
    key = _key(request, inputs)
    with SHARED:
        engines = _ENGINES.setdefault(key, [])
        _ENGINES.move_to_end(key)
        for engine in engines:
            if engine.guards.reads.hold_for(request.structure.modules):
                return engine
        if request.mode is EAGER:
            engines.clear()
        elif len(engines) >= torch._dynamo.config.recompile_limit:  # torch.compile's own for one function
            raise RuntimeError(_TOO_MANY_GRAPHS)
        engine = _new_engine(request, inputs, key)
        engines.append(engine)
        while len(_ENGINES) > KINDS:
            _ENGINES.popitem(last=False)
        return engine


def _new_engine(request: Request, inputs: StepInputs, key: _Key) -> Engine:
    """Inspect D and make its step ready; compilation itself waits for the first run."""
    if request.mode is not EAGER and inputs.batch.xr.device.type == "cpu":
        cpp_compiler.prepare()
    spec, touched = _inspected(request, inputs)
    of_spectral = [name for s in spec.spectral for name in (s.u, s.v) if name]
    buffers = (*of_spectral, *spec.moving)
    guards = Guards()
    functions: list[Callable[..., Any]] = [objective.step, microbatch.attack_pass, microbatch.term_pass]
    if request.mode is EAGER:
        guards.reads = Reads.everything(request.structure, touched)
    else:
        functions = [compiled(f, request.mode, request.fold, guards) for f in functions]
    made = microbatch.Passes(*functions)
    return Engine(key.kind, key.family, spec, buffers, functions[0], made, guards)


def _inspected(request: Request, inputs: StepInputs) -> tuple[StepSpec, Touched]:
    """The request's spec, completed, and the attributes that each call of D changes."""
    spec, structure = request.spec, request.structure
    with (
        attributes_kept(structure.modules) as touched,
        left_out(structure.modules),
        bypassed(structure.modules, spec.spectral),
    ):
        traits = inspect(request.D, spec, inputs, request.aux_loss)
        if request.microbatch is not None:
            checks.check_splittable(structure.modules, traits.independent, traits.moving)
        traced = request.mode is not EAGER
        spec = replace(spec, spectral=traits.spectral)
        check_gradients(request.D, spec, inputs, request.aux_loss, request.microbatch, traced)
    spec = replace(
        spec,
        independent=traits.independent,
        joint=traits.joint and spec.config.power_iterations == "once",
        moving=traits.moving,
        traced=traced,
    )
    return spec, touched


class _Key(NamedTuple):
    """What an engine depends on. What else D's forward reads is found when it is traced (``Guards``)."""

    sizes: tuple[int, int]
    """Samples a side: of this process, of all ranks."""
    kind: tuple[Hashable, ...]
    """All the rest, the spec first."""

    @property
    def family(self) -> Hashable:
        """The kind, apart from the numbers in the config."""
        spec, *others = self.kind
        assert isinstance(spec, StepSpec)
        settings = [
            (f.name, float if isinstance(value := getattr(spec.config, f.name), float) else value)
            for f in fields(cast(Any, spec.config))
        ]
        return replace(spec, config=NO_ATTACK), type(spec.config), tuple(settings), *others


def _key(request: Request, inputs: StepInputs) -> _Key:
    batch = inputs.batch
    device = batch.xr.device
    kind = (
        replace(request.spec, batch=0),
        request.mode,
        request.microbatch,
        request.fold,
        tuple(inputs.trainable),
        batch.xr.shape[1:],
        batch.xr.dtype,
        device,
        kind_of_args(batch, values=request.mode is EAGER),
        same_function(request.aux_loss),
        torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None,
        signature_of(request.structure),
    )
    return _Key((batch.xr.shape[0], request.spec.batch), kind)


def kind_of_args(batch: Batch, *, values: bool = False) -> Hashable:
    """What an engine has to know of D's further arguments, apart from the number of samples.

    Args:
        batch: with the arguments.
        values: of flags, integers and names too: a flag may turn minibatch statistics on. The guards of a graph notice
            this by themselves.
    """
    args = (*batch.args_real, *batch.args_fake)
    if not args:
        return ()
    m = batch.xr.shape[0]
    kinds = [_kind_of_arg(arg, m, values) for arg in args]
    # Two equal numbers may share a call of D, two unequal ones may not.
    return (batch.is_joinable(), *kinds)


def _kind_of_arg(arg: object, m: int, values: bool) -> Hashable:
    if isinstance(arg, Tensor):
        return _shape(arg, m), arg.dtype, arg.device, arg.requires_grad
    # A real number, such as the weight of a layer that is faded in, may be another one in every step.
    return type(arg), arg if values and is_constant(arg) and not isinstance(arg, float) else None


def _shape(arg: Tensor, m: int) -> tuple[int | None, ...]:
    """None in place of the number of samples."""
    shape = tuple(arg.shape)
    return (None, *shape[1:]) if shape[:1] == (m,) else shape


def same_function(function: Callable[..., Any] | None) -> Hashable:
    """Equal for functions of one definition, such as a lambda in a loop, whose variables torch.compile guards."""
    if isinstance(function, partial):
        return partial, same_function(function.func), len(function.args), tuple(sorted(function.keywords))
    code: Hashable = getattr(function, "__code__", None)
    return code if code is not None or function is None else Same(function)


# --- one graph for each engine -------------------------------------------------------------------------------------

EAGER = None
"""The mode of a step that is not compiled."""
REPLAYED = ("reduce-overhead", "max-autotune")
"""The modes in which a GPU replays the step as a CUDA graph."""


def compile_mode(compile: bool | str) -> str | None:
    """The argument ``compile`` of ``dat_step`` as a mode of torch.compile, ``EAGER`` for none.

    Raises:
        ValueError: torch.compile has no such mode.
    """
    if isinstance(compile, bool):
        return "default" if compile else EAGER
    modes = sorted(torch._inductor.list_mode_options())
    if compile not in modes:
        near = difflib.get_close_matches(compile, modes, 1, 0.5)
        raise ValueError(
            f"compile must be True, False or one of {', '.join(map(repr, modes))}, got {compile!r}"
            + (f": did you mean {near[0]!r}?" if near else "")
        )
    return compile


class NotCompiledError(RuntimeError):
    """torch.compile has made no graph of a step. The message says what to do."""


def compiled(function: Callable[..., Any], mode: str, fold: bool, guards: Guards) -> Callable[..., Any]:
    """``function`` as one graph, with a cache of its own."""
    introduce_operators()
    # torch.compile keeps its compiled variants with the code object, and only a few: give each engine its own.
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    own.__defaults__ = function.__defaults__
    options = {**passes.options(mode, fold), "guard_filter_fn": guards}
    graph = torch.compile(own, fullgraph=True, dynamic=False, options=options)
    replayed = mode in REPLAYED

    def run(*args: Any) -> Any:
        if replayed:
            torch.compiler.cudagraph_mark_step_begin()
        with torch._C._PreserveDispatchKeyGuard():
            try:
                with _torch_func_as_it_was():
                    result = graph(*args)
            except Exception as error:
                if not _is_of_compilation(error):  # of the graph that runs: no memory is left, say
                    raise
                _let_go(error)
                raise NotCompiledError(f"{_advice(error)}\n{error}") from error
        return _out_of_graph(result) if replayed else result

    return run


def _out_of_graph(result: Any) -> Any:
    """A replayed CUDA graph overwrites its outputs, and a loss must live until its backward. New values of buffers are
    not copied: they are put into the buffers at once."""
    buffers: Tensors = {}
    if isinstance(result, StepResult):
        buffers, result = result.buffers, result._replace(buffers={})
    leaves, spec = tree_flatten(result)
    of_dtypes: dict[torch.dtype, list[int]] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            of_dtypes.setdefault(leaf.dtype, []).append(i)
    for places in of_dtypes.values():
        old = [leaves[i] for i in places]
        new = [torch.empty_like(tensor) for tensor in old]
        torch._foreach_copy_(new, old)
        for i, tensor in zip(places, new, strict=True):
            leaves[i] = tensor
    copied = tree_unflatten(leaves, spec)
    return copied._replace(buffers=buffers) if isinstance(copied, StepResult) else copied


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


_TOO_MANY_GRAPHS = (
    "D's step was compiled too many times: something that D's forward, the loss or a regularizer reads (a Python "
    "number, say) changes from call to call. Keep it in a buffer, the weight of a regularizer in a tensor, or call "
    "dat_step(..., compile=False)."
)


def _is_of_compilation(error: Exception) -> bool:
    """Whether an error comes from making a graph: torch.compile lets some errors through as they are."""
    if isinstance(error, (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit)):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename == convert_frame.__file__ for frame, _ in frames)


def _let_go(error: BaseException | None) -> None:
    """Clear the local variables in the traceback of an error. One that is cleared later, with the error, may be a
    context that then puts the dispatcher back to what it was inside ``torch.func``: PyTorch would crash."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _advice(error: Exception) -> str:
    """What to do about an error of torch.compile."""
    if "saved tensor hooks" in str(error):
        return (
            "D uses activation checkpointing, or another hook on saved tensors, which cannot be compiled into the "
            "step. Call dat_step(..., compile=False), or leave the checkpointing out and pass microbatch, which saves "
            "memory, too:"
        )
    if "storage of TensorWrapper" in str(error):
        return (
            "D keeps a tensor of its forward pass in an attribute or a list of its own (self.features = h, say), which "
            "cannot leave the compiled step. Return it as a further output, (logits, features), or call "
            "dat_step(..., compile=False):"
        )
    if "Tensor.requires_grad_()" in str(error):
        return (
            "D or aux_loss sets requires_grad on a tensor, for torch.autograd.grad perhaps, which cannot be compiled "
            "into the step. Take the derivative with torch.func.grad, or call dat_step(..., compile=False):"
        )
    if isinstance(error, torch._dynamo.exc.FailOnRecompileLimitHit):
        return _TOO_MANY_GRAPHS
    if isinstance(error, (torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        return (
            "D (or aux_loss, or the loss) cannot be compiled into one graph. Call dat_step(..., compile=False), "
            "or change what torch.compile stumbles over:"
        )
    return (
        "torch.compile failed on the step. Where D (or aux_loss, or the loss) is the cause, change it or call "
        "dat_step(..., compile=False):"
    )
