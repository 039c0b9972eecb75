"""The processes that train one run together: what each does of it, and how they agree.

Every process (rank) runs the same program on its own part of each batch. What one of them decides alone, such as the
state of a checkpoint, the first one (rank 0) decides and tells the others; what any of them finds, such as a request to
stop, all of them learn in the same step.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
_CPU = torch.device("cpu")


class Ranks:
    """Of this process: its rank, how many there are, and what passes between them.

    Every method must be called by all ranks in the same order. With one rank all of them do nothing but return.

    Args:
        rank: of this process.
        size: number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @staticmethod
    def now() -> Ranks:
        """All processes of ``torch.distributed``, if it is initialized; else, and within :func:`alone`, this one."""
        if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
            return Ranks()
        return Ranks(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes and decides."""
        return self.rank == 0

    def __bool__(self) -> bool:
        """Whether there are several."""
        return self.size > 1

    def part(self, rows: Tensor, dim: int = 0) -> Tensor:
        """This rank's rows of a whole batch, whose length ``size`` divides: the ``rank``-th of ``size`` equal parts."""
        if not self:
            return rows
        length = rows.shape[dim] // self.size
        return rows.narrow(dim, self.rank * length, length)

    def any(self, here: bool) -> bool:
        """Whether it is true for any rank."""
        if not self:
            return here
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=_messages())
        return bool(flag)

    def all_of(self, here: T) -> list[T]:
        """What each rank has, by rank; anything that can be pickled."""
        if not self:
            return [here]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, here, group=_messages())
        return cast(list[T], found)

    def to_first(self, here: T) -> list[T]:
        """What each rank has, by rank, for rank 0 alone; the others get an empty list."""
        if not self:
            return [here]
        found: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(here, found, dst=0, group=_messages())
        return cast(list[T], found or [])

    def by_first(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns to rank 0, which alone calls it. An exception that it raises is raised by all ranks.

        Tensors arrive on the CPU, where they must be on rank 0 too.
        """
        if not self:
            return decide()
        sent: list[Any] = [None, None]
        result: T | None = None
        error: Exception | None = None
        if self.first:
            try:
                result = decide()
                sent[0] = pickle.dumps(result)
            except Exception as raised:
                error, sent[1] = raised, _sendable(raised)
        dist.broadcast_object_list(sent, src=0, group=_messages(), device=_CPU)
        if error is not None:
            raise error
        if sent[1] is not None:
            sent[1].said_by_rank_0 = True
            raise sent[1]
        return cast(T, result if self.first else pickle.loads(sent[0]))

    def together(self, do: Callable[[], T]) -> T:
        """What ``do``, which every rank calls, returns here. Where it raises on any rank, all ranks raise: each its own
        exception, or that of the lowest rank which has one, with a note that names this rank.
        """
        if not self:
            return do()
        error: Exception | None = None
        result: T | None = None
        try:
            result = do()
        except Exception as raised:
            error = raised
        raised_by = self.all_of(None if error is None else _sendable(error))
        of_another = error is None
        if of_another:
            for rank, other in enumerate(raised_by):
                if other is not None:
                    other.add_note(f"raised by rank {rank} of {self.size}")
                    error = other
                    break
        if error is not None:
            # A rank that alone has an error says it, too; of one that all have, it is enough that rank 0 does.
            has_it_too = str(raised_by[0]) == str(error)
            error.said_by_rank_0 = not self.first and (of_another or has_it_too)  # type: ignore[attr-defined]
            raise error
        return cast(T, result)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all ranks; one message for each type."""
        if not self:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for same in by_type.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            dist.all_reduce(flat)
            flat /= self.size
            parts = flat.split([tensor.numel() for tensor in same])
            torch._foreach_copy_(
                same, [part.view_as(tensor) for part, tensor in zip(parts, same, strict=True)]
            )

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.any(False)


ONE_PROCESS = Ranks()
"""What trains alone: the default of functions that several ranks may call together."""

_ALONE: ContextVar[bool] = ContextVar("_ALONE", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within it, :meth:`Ranks.now` is this process alone: for what one rank does while the others wait."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def lost_contact(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process is gone. gloo's errors have no class of their own."""
    of_gloo = any(
        word in str(error) for word in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
    return isinstance(error, dist.DistError) or of_gloo


_MESSAGES: list[tuple[Any, dist.ProcessGroup | None]] = []
"""The default group, and the group that passes messages between CPUs."""


def _messages() -> dist.ProcessGroup | None:
    """The default group, None, if it passes tensors of a CPU; else one of gloo, made by all ranks at the first call."""
    if not _MESSAGES or _MESSAGES[0][0] is not dist.group.WORLD:
        of_cpu = "cpu:" in dist.get_backend_config()  # "cpu:gloo,cuda:nccl", for example
        _MESSAGES[:] = [(dist.group.WORLD, None if of_cpu else dist.new_group(backend="gloo"))]
    return _MESSAGES[0][1]


def _sendable(error: Exception) -> Exception:
    """The exception, or one with its text where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # what is raised depends on the exception's class
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
