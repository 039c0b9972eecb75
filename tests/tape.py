"""A tape in the place of CUDA graphs: records the operations of a function and replays them into the same memory.

It needs no GPU, and is as strict as a graph: what a function computed outside of recorded operations is lost in a
replay, so that a replay gives other numbers where something was built in. It refuses what a graph could not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

aten = torch.ops.aten
#: They wait for the device, copy from the host, or their result's shape depends on values.
WAITING = {
    aten.lift_fresh,
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.is_nonzero,
    aten._unique2,
}

#: They change running statistics, which their schemas do not say.
CHANGING = {aten.native_batch_norm}


class NotRecordableError(RuntimeError):
    """An operation that a CUDA graph could not hold."""


class Operation(NamedTuple):
    """One operation on tensors that stay where they are."""

    function: Any
    args: Any
    kwargs: Any
    results: list[Tensor]
    """Those with memory of their own."""

    def replay(self) -> None:
        found = tree_leaves(self.function(*self.args, **self.kwargs))
        fresh = [x for x in found if isinstance(x, Tensor)]
        if self.results:
            assert len(fresh) == len(self.results), self.function
        for result, now in zip(self.results, fresh, strict=False):
            result.copy_(now)


class Tape(TorchDispatchMode):
    """A recorder as :class:`fastdat.engine.cuda_graphs.Recorder` describes it.

    Attributes:
        operations: those of each recording, in order.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[list[Operation]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled functions run as such on the tape, so far as their operations are torch's (backend aot_eager)."""
        return True

    def warm_up(self, function: Callable[[], T]) -> T:
        return function()

    def record(self, function: Callable[[], T]) -> tuple[Callable[[], None], T]:
        operations: list[Operation] = []
        self.operations.append(operations)
        self._before, self._made = {}, set()
        with self:
            result = function()
        # Recording computes nothing on a GPU. Here it does, so the memory from outside gets its old values back.
        with torch.no_grad():
            for memory, old in self._before.values():
                memory.copy_(old)

        def replay() -> None:
            with torch.no_grad():
                for operation in operations:
                    operation.replay()

        return replay, result

    def reset(self) -> None:
        """Nothing is shared between recordings."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._refuse(func, args)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        changing = func._schema.is_mutable
        if changing or func.overloadpacket in CHANGING:
            for tensor in given:
                self._keep(tensor)
        out = func(*args, **kwargs)
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        known = {x.untyped_storage()._cdata for x in given}
        aliases = [x.untyped_storage()._cdata in known for x in results]
        if not changing and results and all(aliases):
            return out  # a view: its memory is recorded already
        if not changing and any(aliases):
            raise NotRecordableError(f"{func} returns new memory and a view at once")
        self._made |= {x.untyped_storage()._cdata for x in results}
        own = [] if changing else [x.detach() for x in results]
        self.operations[-1].append(Operation(func, args, kwargs, own))
        return out

    def _refuse(self, func: Any, args: Any) -> None:
        by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if func.overloadpacket in WAITING or by_mask:
            raise NotRecordableError(f"{func} waits for the device")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecordableError(f"{func} draws random numbers")

    def _keep(self, tensor: Tensor) -> None:
        """Keep the values of memory from outside, before it changes for the first time."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._made and storage._cdata not in self._before:
            flat = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[call-overload]
            self._before[storage._cdata] = flat, flat.clone()
