"""Work on batches that several processes share out among them, in rounds of one batch each.

After every round all ranks know whether one of them failed or was asked to stop. So they end together, and none waits
for one that has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor

from fastdat.util.ranks import Ranks

Result = TypeVar("Result")

Report = Callable[[int], bool | None]
"""Called on every rank after each round with the number of samples that all ranks have done; returns False to stop."""


class StopAskedError(Exception):
    """On some rank, ``report`` asked to stop. All ranks raise it in the same round."""


def in_turns(
    batches: Iterator[Tensor], work: Callable[[Tensor], Result], report: Report, total: int, ranks: Ranks
) -> list[Result]:
    """The results of ``work`` on the batches of all ranks.

    The order is that of one process that has all batches: those of the first round by rank, those of the second round,
    and so on. Only results travel between ranks, and only to rank 0: their memory is that of one rank's batch for each
    rank, and on rank 0 that of all results.

    Args:
        batches: of this rank: number ``rank``, ``rank + size``, ``rank + 2 size`` ... of all. Some ranks may have one
            more than others. Another rank's are not among them.
        work: on one batch (n, ...); what it returns must be picklable if there are several ranks.
        report: is told how far all ranks are.
        total: number of samples in the batches of all ranks.
        ranks: who shares the batches.

    Returns:
        The results, one for each batch, on rank 0; an empty list on the other ranks.

    Raises:
        StopAskedError: ``report`` returned False on some rank.
        ValueError: several ranks had other than ``total`` samples.
        Exception: what any rank's ``batches``, ``work`` or ``report`` raised; see :meth:`Ranks.together`.
    """
    results: list[Result] = []
    done, rounds = 0, 0

    def turn() -> tuple[bool, int, Result | None]:
        """Whether to stop, the samples of this rank's next batch (0: there is none), and its result."""
        if rounds and report(done) is False:
            return True, 0, None
        batch = next(batches, None)
        return (False, 0, None) if batch is None else (False, len(batch), work(batch))

    while True:
        stop, rows, result = ranks.together(turn)
        turns = ranks.all_of((stop, rows))
        if any(stop for stop, _ in turns):
            raise StopAskedError
        if not any(rows for _, rows in turns):
            break
        of_round = ranks.to_first(result)
        results += [
            found for found, (_, rows) in zip(of_round, turns, strict=False) if rows and found is not None
        ]
        done, rounds = done + sum(rows for _, rows in turns), rounds + 1
        _check_count(done, total, ranks, over=False)
    _check_count(done, total, ranks, over=True)
    return results


def _check_count(done: int, total: int, ranks: Ranks, *, over: bool) -> None:
    """Refuse too many samples at once, and too few when there are no more."""
    if ranks and (done > total or (over and done < total)):
        raise ValueError(
            f"{ranks.size} ranks were to make {total:,} samples together, and have made {done:,}. Each must make those "
            "batches of one rank whose turn it is: number rank, rank + size, rank + 2 size ..."
        )
