"""Records each launch in place of making it, where tensors have a shape and no memory.

Call ``pretended_gpu.pretend()`` before importing this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._inductor.async_compile import AsyncCompile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from triton.runtime.jit import JITFunction

from bench.gpu_plan.launches import Launch, kind_of_kernel
from bench.gpu_plan.multi_tensor import shares_of_kernels
from fastdat.kernels import operator, repeated

aten = torch.ops.aten

WITHOUT_LAUNCH = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten._unsafe_view}
"""Operators that launch nothing, besides views."""


def _empty(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cuda:0")


def _reinterpret(t: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> Tensor:
    return torch.as_strided(t, shape, strides, int(t.storage_offset()) + offset)


REPLACEMENTS_OF_C = {
    "empty_strided_cuda": _empty,  # in C++ it allocates memory
    "reinterpret_tensor": _reinterpret,
    "get_raw_stream": lambda device: 0,
    "assert_alignment": lambda *args: None,  # reads pointers
}
"""Functions for the code that inductor writes, in place of those of torch's C++."""


def size(*tensors: Any) -> int:
    """Bytes of all tensors in ``tensors``, a tree."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(tensors) if isinstance(t, Tensor))


class Recorder(TorchDispatchMode):
    """Records the launches of torch's operators; Triton kernels are recorded through ``add``.

    Attributes:
        launches: those so far, in order.
        part: of the work, which the next launches belong to.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: list[Launch] = []
        self.part = ""
        self._within = ""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled functions run under this mode; torch would call the uncompiled ones instead."""
        return True

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Within it, launches belong to this part."""
        outer, self.part = self.part, part
        try:
            yield
        finally:
            self.part = outer

    def add(self, kind: str, name: str, bytes: int, flops: int = 0) -> None:
        self.launches.append(Launch(kind, self._within + name, bytes, flops, self.part))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if func.namespace == "fastdat":
            self._add_custom_operator(func, args)
        elif packet is aten.convolution:
            self._add_convolution(packet, args, out)
        elif packet is aten.convolution_backward:
            self._add_convolution_backward(packet, args, out)
        elif packet in flop_registry:
            flops = int(flop_registry[packet](*args, out_val=out))
            self.add("matrix product", str(func), size(args, out), flops)
        elif func.namespace == "aten" and not func.is_view and packet not in WITHOUT_LAUNCH:
            self._add_other(func, args, kwargs, out)
        return out

    def _add_other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        moved = size(args, kwargs, out)
        if func.overloadpacket is aten.index_select:  # reads only what it takes
            moved = 2 * size(out)
        if not func.__name__.startswith(("_foreach_", "_fused_")):
            self.add("other of torch", str(func), moved)
            return
        lists = [items for items in (*args, out) if _holds_tensors(items)]
        if (
            func.overloadpacket is aten._fused_adam_
        ):  # parameters, gradients, two averages; then numbers of steps
            lists = lists[:4]
        moved += size(_written(func, args))
        for share in shares_of_kernels(lists):
            self.add("lists of torch", str(func), round(moved * share))

    def _add_convolution(self, packet: Any, args: tuple[Any, ...], out: Tensor) -> None:
        x, w, *_ = args
        # PyTorch's double backward computes a weight's gradient by a convolution whose filter is an output's gradient.
        as_large = 1 < w.shape[-1] >= x.shape[-1]
        kind = "conv with a filter as large as the image" if as_large else "conv forward"
        self.add(kind, _shapes(x, w), size(args, out), int(flop_registry[packet](*args, out_val=out)))

    def _add_convolution_backward(self, packet: Any, args: tuple[Any, ...], out: Any) -> None:
        grad, x, w, *_, mask = args
        of_input, of_weight, _ = mask  # one launch each, with equal FLOPs
        flops = int(flop_registry[packet](*args, out_val=out)) // max(1, of_input + of_weight)
        if of_input:
            self.add("conv gradient of input", _shapes(x, w), size(grad, w, x), flops)
        if of_weight:
            self.add("conv gradient of weight", _shapes(x, w), size(grad, x, w), flops)

    def _add_custom_operator(self, func: Any, args: tuple[Any, ...]) -> None:
        """Add the launches of a custom operator by running what computes it."""
        self._within = f"{func.overloadpacket}: "
        # A launch starts no kernel for tensors without memory; here its kernels are to be recorded.
        with self, patch.object(operator, "_has_no_memory", lambda tensor: False):
            operator.OPERATORS[func._schema.name.removeprefix("fastdat::")].compute(*args)
        self._within = ""


def _holds_tensors(found: Any) -> bool:
    return (
        isinstance(found, (list, tuple)) and bool(found) and all(isinstance(item, Tensor) for item in found)
    )


def _written(func: Any, args: tuple[Any, ...]) -> list[Any]:
    """The arguments that an operator on lists reads and then writes; it returns nothing then."""
    if func.overloadpacket is aten._foreach_copy_:  # does not read what it writes
        return []
    if func.overloadpacket is aten._fused_adam_:  # may write its gradients too, where it scales them
        args = (args[0], (), *args[2:])
    marked = [of.alias_info is not None and of.alias_info.is_write for of in func._schema.arguments]
    return [arg for arg, is_written in zip(args, marked, strict=False) if is_written]


def _shapes(x: Tensor, w: Tensor) -> str:
    return f"{tuple(x.shape)} * {tuple(w.shape)}"


@contextmanager
def recording_kernels(recorder: Recorder) -> Iterator[None]:
    """Within it, Triton kernels of fastdat and inductor are recorded instead of launched."""

    def run(kernel: JITFunction, *args: Any, **kwargs: Any) -> None:
        recorder.add("fastdat", kernel.__name__, size(args))

    def load(compiler: AsyncCompile, name: str, source: str, device_str: str = "cuda") -> _Kernel:
        return _Kernel(recorder, name, source)

    with ExitStack() as replaced:
        replaced.enter_context(patch.object(JITFunction, "run", run))
        replaced.enter_context(patch.object(AsyncCompile, "triton", load))
        replaced.enter_context(patch.object(AsyncCompile, "wait", lambda compiler, scope: None))
        replaced.enter_context(patch.object(repeated, "addresses", lambda tensors: [0 for _ in tensors]))
        yield


class _Kernel:
    """A Triton kernel of inductor, in place of its launcher."""

    def __init__(self, recorder: Recorder, name: str, source: str) -> None:
        signature = re.search(r"'signature': \{([^}]*)\}", source)
        if signature is None:
            raise RuntimeError(f"inductor's kernel {name} has no signature of the known form")
        self._recorder, self._name = recorder, name
        self._arguments = re.findall(r"'(\w+)': '", signature[1])

    def run(self, *args: Any, stream: int | None = None) -> None:
        # A tensor that is changed in place is moved twice.
        moved = [
            a
            for a, name in zip(args, self._arguments, strict=False)
            for _ in range(1 + name.startswith("in_out"))
        ]
        self._recorder.add(kind_of_kernel(self._name), self._name, size(moved))
