"""``fastdat.capture``: a training iteration that a GPU replays as one CUDA graph.

At small batches the host takes longer to launch an iteration's hundreds of kernels than the GPU to run them. A captured
iteration is launched by one call. In return it does to the same memory the same things each time; what that excludes
is checked at every call.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_map, tree_unflatten

from fastdat.engine.cuda_graphs import CUDAGraphs, Recorder
from fastdat.engine.fixed import Fixed, Gradients, GradientsError, capturable, devices_of

P = ParamSpec("P")
R = TypeVar("R")

WARM_UP = 3
"""Calls before the capture: the first compile and allocate, and torch advises a few."""


class CaptureError(RuntimeError):
    """A function cannot be captured, or something has changed that its graph has built in."""


class ChangedError(CaptureError):
    """Something has changed that graphs have built in.

    Attributes:
        change: what, in words.
    """

    def __init__(self, change: str) -> None:
        super().__init__(f"{change}. {_AS_CAPTURED}")
        self.change = change


class KindsError(CaptureError):
    """A call differs from those that were captured in more than the values of its tensors."""


def capture(
    function: Callable[P, R],
    *,
    modules: nn.Module | Sequence[nn.Module],
    optimizers: Optimizer | Sequence[Optimizer] = (),
    warmup: int = WARM_UP,
    kinds: int = 1,
) -> Captured[P, R]:
    """Replay ``function`` as one CUDA graph from its fourth call on::

        def iteration(xr, z):
            loss = fastdat.dat_step(D, xr, G(z).detach())
            optD.zero_grad()
            loss.backward()
            optD.step()
            return loss

        iterate = fastdat.capture(iteration, modules=(G, D), optimizers=optD)
        for xr in loader:
            loss = iterate(xr.cuda(), torch.randn(64, 128, device="cuda"))

    The first ``warmup`` calls run ``function`` as it is; the next one captures and replays it. All of them train. Each
    call copies its tensors into those of the graph. On the CPU ``function`` always runs as it is, and the same is
    checked.

    A graph does the same things to the same memory each time. So these may not change between calls, and an error says
    which did:

    - shapes, dtypes, devices and strides of the tensors in the arguments; all other arguments; autocast and gradient
      mode;
    - where the parameters and buffers of ``modules`` and the states of ``optimizers`` lie; modes and ``requires_grad``.
      ``load_state_dict`` of a module copies in place; that of an optimizer does not: call ``iterate.reset()`` after it;
    - numbers of ``optimizers``. A rate that moves must be a tensor: ``Adam(..., lr=torch.tensor(2e-4, device="cuda"),
      fused=True)``; torch's schedulers then set it in place.

    ``zero_grad``, ``backward`` and ``step`` of one optimizer belong together inside of ``function``, or the gradients
    that it leaves are read outside; gradients that are added up over several calls must keep their memory,
    ``zero_grad(set_to_none=False)``.

    What cannot be checked: other Python numbers and branches in ``function`` stay as they were when it was captured,
    and what it prints or appends happens no more. Random numbers of torch's CUDA generator are new in each replay.
    ``function`` may not wait for the device (``.item()``, printing a tensor, a mask as an index).

    Args:
        function: takes tensors (in tuples, lists, dicts too) and returns tensors, or None. It may change in place
            whatever lies on the device, apart from its arguments, which are copies there. Compiled parts of it must be
            in torch.compile's default mode; ``"reduce-overhead"`` makes graphs of its own.
        modules: all nets that it uses.
        optimizers: all optimizers that it steps; those that can must have ``fused=True``.
        warmup: calls before the capture, at least 1.
        kinds: how many different kinds of arguments may come, each with a warm-up and a graph of its own.

    Returns:
        a function with the arguments of ``function``. The tensors that it returns are copies, without gradients.

    Raises:
        CaptureError: at a call; see above.
        TypeError, ValueError: arguments that are none.
    """
    for name, value in (("warmup", warmup), ("kinds", kinds)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    nets = _listed("modules", modules, nn.Module)
    stepped = _listed("optimizers", optimizers, Optimizer)
    if not callable(function):
        raise TypeError(f"function must be a function of tensors, got {type(function).__name__}")
    return Captured(function, nets, stepped, warmup=warmup, kinds=kinds)


_AS_CAPTURED = (
    "A captured graph has it built in. Undo the change, or have graphs made anew with reset(); a rate that moves must "
    'be a tensor, such as lr=torch.tensor(2e-4, device="cuda")'
)


class Captured(Generic[P, R]):
    """A function and its graphs; made by :func:`capture`.

    Args:
        function, modules, optimizers, warmup, kinds: as in :func:`capture`.
        recorder: makes the graphs; None: CUDA graphs where anything lies on a GPU, and none elsewhere.
    """

    def __init__(
        self,
        function: Callable[P, R],
        modules: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        *,
        warmup: int = WARM_UP,
        kinds: int = 1,
        recorder: Recorder | None = None,
    ) -> None:
        self._function, self._modules, self._optimizers = function, tuple(modules), tuple(optimizers)
        self._warmup, self._most = warmup, kinds
        self._given_recorder = self._recorder = recorder
        self._kinds: dict[Hashable, _Kind] = {}
        self._buffers: dict[Hashable, Tensor] = {}
        self._fixed: Fixed | None = None

    @property
    def graphs(self) -> int:
        """How many graphs there are."""
        return sum(kind.replay is not None for kind in self._kinds.values())

    def reset(self) -> None:
        """Drop all graphs; they are made anew by the next calls."""
        self._kinds, self._buffers, self._fixed = {}, {}, None
        self._recorder = self._given_recorder
        if self._recorder is not None:
            self._recorder.reset()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        leaves, structure = tree_flatten((args, kwargs))
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            raise CaptureError(
                "an argument of a captured function requires a gradient, which would not reach it, since its values "
                "are copied: pass it with .detach()"
            )
        key = (structure, tuple([_described(leaf) for leaf in leaves]), _ambient())
        try:
            kind = self._kinds.get(key)
        except TypeError as error:
            raise CaptureError(
                f"the arguments of a captured function must be tensors and hashable values: {error}"
            ) from None
        if kind is None:
            kind = self._new_kind(key, leaves, args, kwargs)
        changed = None if self._fixed is None else self._fixed.change()
        if changed is not None:
            raise ChangedError(changed)
        kind.calls += 1
        if self._recorder is None:
            if kind.calls > self._warmup and self._fixed is None:
                self._fixed = self._fixed_now()
            given: R = _given_out(self._function(*args, **kwargs))
            return given
        kind.fill(leaves)
        if kind.calls <= self._warmup:
            return self._warm_up(kind, self._recorder)
        if kind.replay is None:
            self._record(kind, self._recorder)
        assert kind.replay is not None
        try:
            kind.grads.check()
        except GradientsError as error:
            raise CaptureError(str(error)) from None
        kind.replay()
        kind.grads.put_back()
        result: R = tree_map(_copied, kind.result)
        return result

    def _new_kind(self, key: Hashable, leaves: list[Any], args: Any, kwargs: Any) -> _Kind:
        if len(self._kinds) >= self._most:
            raise KindsError(self._difference(key, args, kwargs))
        if self._recorder is None:
            self._recorder = _recorder(self._modules, leaves)
        if isinstance(self._recorder, CUDAGraphs):
            self._refuse_elsewhere(self._recorder.device, args, kwargs)
        made = _Kind(leaves, args, kwargs, self._buffers) if self._recorder is not None else _Kind()
        self._kinds[key] = made
        return made

    def _warm_up(self, kind: _Kind, recorder: Recorder) -> R:
        with warnings.catch_warnings():
            # An optimizer that is made with capturable=True warns where it steps uncaptured.
            warnings.filterwarnings(
                "ignore", "This instance was constructed with capturable=True", UserWarning
            )
            result = recorder.warm_up(lambda: self._function(*kind.args, **kind.kwargs))
        given: R = _given_out(result)
        return given

    def _record(self, kind: _Kind, recorder: Recorder) -> None:
        fixed = self._fixed_now()  # with the states of optimizers that only this kind of call steps
        grads = Gradients(self._modules, self._optimizers)
        try:
            groups = capturable(self._optimizers)
        except ValueError as error:
            raise CaptureError(str(error)) from None
        gc.collect()  # tensors of the warm-up in cycles, which would be freed while capturing
        for group in groups:
            group["capturable"] = True
        torch.clear_autocast_cache()  # a graph would read weights that were cast outside of it
        try:
            replay, result = recorder.record(lambda: _given_out(self._function(*kind.args, **kind.kwargs)))
        except Exception as error:
            text = (str(error).splitlines() or [""])[0]
            raise CaptureError(
                f"{_name(self._function)} cannot be captured as a CUDA graph: {type(error).__name__}: {text}. A graph "
                "cannot wait for the device, compile, or copy from the host: look for .item(), .cpu(), torch.tensor, "
                "printed tensors, masks as indices and branches on values"
            ) from error
        finally:
            torch.clear_autocast_cache()
            for group in groups:
                group["capturable"] = False
        changed = fixed.change() or fixed.growth(self._fixed_now())
        if changed is not None:
            raise CaptureError(
                f"{_name(self._function)} cannot be captured as a CUDA graph: it makes new tensors where it should "
                f"change those that there are: {changed}"
            )
        grads.hold()
        kind.replay, kind.result, kind.grads = replay, result, grads
        self._fixed = fixed

    def _refuse_elsewhere(self, device: torch.device, args: Any, kwargs: Any) -> None:
        """Refuse tensors that do not lie on the graph's device: their values would be built in.

        Raises:
            CaptureError: which one it is.
        """
        for path, leaf in tree_flatten_with_path((args, kwargs))[0]:
            if isinstance(leaf, Tensor) and leaf.device != device:
                raise CaptureError(
                    f"argument {keystr(path)} lies on {leaf.device}, and the graph runs on {device}: move it there "
                    "before the call"
                )
        others = [found for found in devices_of(self._modules) if found != device]
        if others:
            raise CaptureError(f"a parameter or buffer lies on {others[0]}, and the graph runs on {device}")

    def _fixed_now(self) -> Fixed:
        try:
            return Fixed(self._modules, self._optimizers)
        except ValueError as error:
            raise CaptureError(str(error)) from None

    def _difference(self, key: Any, args: Any, kwargs: Any) -> str:
        """How a call differs from the last new one, in words."""
        structure, described, ambient = key
        of_last: Any = list(self._kinds)[-1]
        many = f"{self._most} kinds" if self._most > 1 else "one kind"
        advice = f"This function was captured for {many} of arguments. "
        if structure != of_last[0]:
            return advice + "This call has other arguments, or others in their tuples, lists and dicts."
        if ambient != of_last[2]:
            return advice + "This call comes in another autocast or gradient mode."
        paths, _ = tree_flatten_with_path((args, kwargs))
        for (path, _), then, now in zip(paths, of_last[1], described, strict=True):
            if then != now:
                advice += f"Argument {keystr(path)} was {_words(then)} then, and is {_words(now)} now. "
                break
        return advice + (
            "Keep shapes the same (drop the last, incomplete batch) and pass a number that changes as a tensor on the "
            "device; or allow more kinds, each with a graph of its own: capture(..., kinds=2)"
        )


class _Kind:
    """Arguments in memory that stays, and the graph that reads them.

    Args:
        leaves: of ``args`` and ``kwargs``.
        buffers: those of all kinds, which are shared: two kinds never run at the same time.
    """

    def __init__(
        self, leaves: Sequence[Any] = (), args: Any = (), kwargs: Any = None, buffers: Any = None
    ) -> None:
        self.calls = 0
        self.replay: Callable[[], None] | None = None
        self.grads = Gradients()
        self.result: Any = None
        self._inputs: list[Tensor] = []
        held = []
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                key = (_described(leaf), sum(_described(leaf) == _described(x) for x in self._inputs))
                leaf = buffers.setdefault(key, torch.empty_like(leaf))
                self._inputs.append(leaf)
            held.append(leaf)
        self.args, self.kwargs = tree_unflatten(held, tree_flatten((args, kwargs or {}))[1])

    @torch.no_grad()
    def fill(self, leaves: Iterable[Any]) -> None:
        tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor))
        for held, tensor in zip(self._inputs, tensors, strict=True):
            held.copy_(tensor, non_blocking=True)


def _recorder(modules: Sequence[nn.Module], leaves: Iterable[Any]) -> Recorder | None:
    """CUDA graphs on the one GPU that modules and tensors lie on; None on the CPU.

    Raises:
        CaptureError: they lie on several.
    """
    devices = {*devices_of(modules), *(x.device for x in leaves if isinstance(x, Tensor))}
    gpus = sorted({device for device in devices if device.type == "cuda"}, key=str)
    if len(gpus) > 1:
        raise CaptureError(
            f"a CUDA graph runs on one GPU, and here are tensors on {', '.join(map(str, gpus))}"
        )
    return CUDAGraphs(gpus[0]) if gpus else None


def _described(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return (leaf.shape, leaf.dtype, leaf.device, leaf.stride())
    return type(leaf), leaf


def _words(described: Any) -> str:
    if len(described) == 4:
        shape, dtype, device, stride = described
        return f"{str(dtype).removeprefix('torch.')} of shape {tuple(shape)} on {device}, strides {stride}"
    return repr(described[1])


def _ambient() -> tuple[Any, ...]:
    """Modes that a function may depend on."""
    casts = [
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        for kind in ("cuda", "cpu")
    ]
    return torch.is_grad_enabled(), *casts


def _given_out(result: Any) -> Any:
    """What a function returned, without gradients.

    Raises:
        CaptureError: it is more than tensors.
    """
    for leaf in tree_flatten(result)[0]:
        if leaf is not None and not isinstance(leaf, Tensor):
            raise CaptureError(
                f"a captured function must return tensors or None, got {type(leaf).__name__}: a replay could not make "
                "it anew"
            )
    return tree_map(lambda leaf: None if leaf is None else leaf.detach(), result)


def _copied(leaf: Any) -> Any:
    return None if leaf is None else leaf.clone()


def _listed(name: str, given: Any, kind: type) -> tuple[Any, ...]:
    listed = (given,) if isinstance(given, kind) else given
    if not isinstance(listed, (tuple, list)) or not all(isinstance(each, kind) for each in listed):
        raise TypeError(
            f"{name} must be one torch {kind.__name__} or a list of them, got {type(given).__name__}"
        )
    return tuple(listed)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
