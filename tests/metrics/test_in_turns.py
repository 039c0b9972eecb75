"""Batches that several ranks share out: the order of results, and how all of them end together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.metrics import first_computes as first_computes_module
from fastdat.metrics.equal_on_ranks import check_equal
from fastdat.metrics.first_computes import first_computes
from fastdat.metrics.in_turns import StopAskedError, in_turns
from fastdat.util.errors import ConfigError
from fastdat.util.ranks import Ranks
from tests.ranks import run

TOTAL = 17


def whole(size: int = 3) -> list[Tensor]:
    """17 numbers in six batches, the last one shorter."""
    return list(torch.arange(TOTAL).split(size))


def part(ranks: Ranks, size: int = 3) -> Iterator[Tensor]:
    return iter(whole(size)[ranks.rank :: ranks.size])


def raised_by(error: BaseException) -> str:
    """The message and who raised it first."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


# --- the order ---------------------------------------------------------------------------------------------------


def _in_order(rank: int, size: int) -> None:
    """Of three ranks: two rounds of three batches; five batches; two batches, so that one rank has none at all."""
    ranks = Ranks.now()
    for length, expected in ((3, [9, 17]), (4, [12, 17]), (16, [17])):
        told: list[int] = []
        doubled = in_turns(part(ranks, length), lambda batch: 2 * batch, told.append, TOTAL, ranks)
        assert told == expected, "of all ranks, after each round"
        if rank:
            assert doubled == []
        else:
            assert [found.tolist() for found in doubled] == [(2 * batch).tolist() for batch in whole(length)]


def test_one_rank_is_told_after_each_batch_and_stops_before_the_next() -> None:
    made: list[int] = []
    told: list[int] = []

    def batches() -> Iterator[Tensor]:
        for batch in whole():
            made.append(len(batch))
            yield batch

    def until(done: int) -> bool:
        told.append(done)
        return done < 9

    with pytest.raises(StopAskedError):
        in_turns(batches(), len, until, TOTAL, Ranks())
    assert (made, told) == ([3, 3, 3], [3, 6, 9])


# --- the end -----------------------------------------------------------------------------------------------------


def _stops(who: int, at: int, rank: int, size: int) -> None:
    ranks, worked = Ranks.now(), []

    def until(done: int) -> bool:
        return not (rank == who and done >= at)

    with pytest.raises(StopAskedError):
        in_turns(part(ranks), worked.append, until, TOTAL, ranks)
    # The others have made one batch more at the most, and all meet again in the next exchange.
    assert len(worked) <= -(-at // (3 * size)) + (rank != who)
    assert ranks.all_of(rank) == list(range(size))


def _fails(where: str, rank: int, size: int) -> None:
    ranks = Ranks.now()

    def batches() -> Iterator[Tensor]:
        for i, batch in enumerate(part(ranks)):
            if rank == 1 and i == 1 and where == "batches":
                raise ConfigError("no more")
            yield batch

    def work(batch: Tensor) -> Tensor:
        if rank == 1 and batch[0] == 12 and where == "work":
            raise ConfigError("no more")
        return batch

    def report(done: int) -> None:
        if rank == 1 and where == "report":
            raise ConfigError("no more")

    with pytest.raises(ConfigError, match="no more") as caught:
        in_turns(batches(), work, report, TOTAL, ranks)
    assert rank == 1 or "rank 1" in raised_by(caught.value)
    assert ranks.all_of(rank) == list(range(size))


def _makes_all(rank: int, size: int) -> None:
    ranks = Ranks.now()
    with pytest.raises(ValueError, match="3 ranks were to make 17 samples together, and have made 18"):
        in_turns(iter(whole()), len, lambda done: None, TOTAL, ranks)
    with pytest.raises(ValueError, match="3 ranks were to make 18 samples together, and have made 17"):
        in_turns(part(ranks), len, lambda done: None, TOTAL + 1, ranks)


# --- what must be equal ------------------------------------------------------------------------------------------


def _unequal(rank: int, size: int) -> None:
    ranks = Ranks.now()
    check_equal(ranks, {"step": 5, "the hash": "ab"}, "")
    message = "the hash of rank 2 is not that of rank 0: b{12} and a{12}\\. Look there"
    with pytest.raises(ConfigError, match=message):
        check_equal(ranks, {"step": 5, "the hash": ("a" if rank < 2 else "b") * 64}, "Look there")


# --- what rank 0 computes ----------------------------------------------------------------------------------------


def _computes(rank: int, size: int) -> None:
    first_computes_module.PAUSE = 0.05
    ranks, signs, computed = Ranks.now(), [], []

    def compute() -> dict[str, Any]:
        computed.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.5)
        return {"kid": 0.25}

    assert first_computes(compute, lambda: signs.append(1), ranks) == {"kid": 0.25}
    assert computed == ([] if rank else [False])
    assert len(signs) >= 3, "every rank gives signs of life while it lasts"

    def fail() -> None:
        raise ConfigError("choose fewer")

    with pytest.raises(ConfigError, match="choose fewer"):
        first_computes(fail, lambda: None, ranks)
    assert ranks.all_of(rank) == list(range(size))


def _ends(rank: int, size: int) -> None:
    """In one group of processes, since it takes seconds to start one. After each, all meet in the next exchange."""
    _in_order(rank, size)
    for who, at in [(0, 1), (1, 1), (2, 1), (2, TOTAL), (0, TOTAL)]:
        _stops(who, at, rank, size)
    for where in ("batches", "work", "report"):
        _fails(where, rank, size)
    _makes_all(rank, size)
    _unequal(rank, size)
    _computes(rank, size)


def test_several_ranks(tmp_path: Path) -> None:
    """Results come in the order of one rank, and all ranks end together, whatever happens on one of them."""
    run(3, tmp_path, _ends)


def test_one_rank_computes_at_once() -> None:
    signs: list[int] = []
    assert (
        first_computes(threading.current_thread, lambda: signs.append(1), Ranks()) is threading.main_thread()
    )
    assert signs == []
