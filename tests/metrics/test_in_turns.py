"""Batches that several ranks share out: the order of results, and how all of them end together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
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
    ranks, told = Ranks.now(), []
    doubled = in_turns(part(ranks), lambda batch: 2 * batch, told.append, TOTAL, ranks)
    assert told == {2: [6, 12, 17], 3: [9, 17], 4: [12, 17]}[size], "of all ranks, after each round"
    if rank:
        assert doubled == []
    else:
        assert [found.tolist() for found in doubled] == [(2 * batch).tolist() for batch in whole()]
    # Fewer batches than ranks: some have none at all.
    once = in_turns(part(ranks, 16), len, told.append, TOTAL, ranks)
    assert once == ([] if rank else [16, 1])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_results_come_in_the_order_of_one_rank(size: int, tmp_path: Path) -> None:
    """Six batches: three rounds of two, two of three, and with four ranks a round in which two have none."""
    run(size, tmp_path, _in_order)


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


@pytest.mark.parametrize(("who", "at"), [(0, 1), (1, 1), (2, 1), (2, TOTAL), (0, TOTAL)])
def test_a_stop_on_one_rank_stops_all(who: int, at: int, tmp_path: Path) -> None:
    """Also one that is asked for after the last batch, as with one rank."""
    run(3, tmp_path, partial(_stops, who, at))


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


@pytest.mark.parametrize("where", ["batches", "work", "report"])
def test_an_error_on_one_rank_is_raised_by_all(where: str, tmp_path: Path) -> None:
    run(3, tmp_path, partial(_fails, where))


def _makes_all(rank: int, size: int) -> None:
    ranks = Ranks.now()
    with pytest.raises(
        ValueError, match="2 ranks were to make 17 samples together, and have made 18"
    ) as caught:
        in_turns(iter(whole()), len, lambda done: None, TOTAL, ranks)
    assert "number rank, rank \\+ size".replace("\\", "") in str(caught.value)
    with pytest.raises(ValueError, match="2 ranks were to make 18 samples together, and have made 17"):
        in_turns(part(ranks), len, lambda done: None, TOTAL + 1, ranks)


def test_batches_that_are_not_shared_out_are_refused(tmp_path: Path) -> None:
    run(2, tmp_path, _makes_all)


# --- what must be equal ------------------------------------------------------------------------------------------


def _unequal(rank: int, size: int) -> None:
    ranks = Ranks.now()
    check_equal(ranks, {"step": 5, "the hash": "ab"})
    message = "the hash of rank 2 is not that of rank 0: b{12} and a{12}\\. All ranks must"
    with pytest.raises(ConfigError, match=message):
        check_equal(ranks, {"step": 5, "the hash": ("a" if rank < 2 else "b") * 64})


def test_ranks_that_differ_are_refused_by_all(tmp_path: Path) -> None:
    run(3, tmp_path, _unequal)


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


def test_ranks_live_while_the_first_computes(tmp_path: Path) -> None:
    run(2, tmp_path, _computes)


def test_one_rank_computes_at_once() -> None:
    signs: list[int] = []
    assert (
        first_computes(threading.current_thread, lambda: signs.append(1), Ranks()) is threading.main_thread()
    )
    assert signs == []
