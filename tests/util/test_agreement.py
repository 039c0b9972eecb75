"""How several processes agree: what one of them decides or finds, all of them learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.ranks import Ranks, alone
from tests.ranks import run


class StubbornError(Exception):
    """Cannot be made from its text alone, so that no other process could make it."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def _messages(rank: int, ranks: int) -> None:
    of = Ranks.now()
    assert (of.rank, of.size, of.first, bool(of)) == (rank, ranks, rank == 0, True)
    assert of.any(rank == 1) is True
    assert of.any(False) is False
    assert of.all_of(("a", rank)) == [("a", r) for r in range(ranks)]
    called = []

    def decide() -> dict[str, torch.Tensor]:
        called.append(rank)
        return {"x": torch.arange(3.0) + rank}

    assert torch.equal(of.by_first(decide)["x"], torch.arange(3.0))
    assert called == ([0] if rank == 0 else [])
    with alone():
        assert not Ranks.now()
    assert Ranks.now()


def _errors(rank: int, ranks: int) -> None:
    of = Ranks.now()

    def fails() -> None:
        assert rank == 0
        raise ConfigError("choose another lr")

    with pytest.raises(ConfigError, match="choose another lr"):
        of.by_first(fails)

    with pytest.raises((TypeError, AttributeError, RuntimeError), match="pickle"):
        of.by_first(lambda: lambda: None)

    def stubborn() -> None:
        raise StubbornError(1, 2)

    with pytest.raises(StubbornError if rank == 0 else RuntimeError, match="1 and 2"):
        of.by_first(stubborn)

    def at_last() -> int:
        if rank == ranks - 1:
            raise RunFolderError("the disk is full")
        return rank

    with pytest.raises(RunFolderError, match="the disk is full") as caught:
        of.together(at_last)
    if rank != ranks - 1:
        assert caught.value.__notes__ == [f"raised by rank {ranks - 1} of {ranks}"]
    # Rank 0 prints it for those that have only heard of it; the rank whose own it is prints it, too.
    assert caught.value.said_by_rank_0 is (rank not in (0, ranks - 1))

    def everywhere() -> None:
        raise ConfigError("the same for all")

    with pytest.raises(ConfigError) as of_all:
        of.together(everywhere)
    assert of_all.value.said_by_rank_0 is (rank != 0)
    assert of.together(lambda: rank * 2) == rank * 2
    assert of.any(rank == 0), "the ranks go on together"


def _tensors(rank: int, ranks: int) -> None:
    of = Ranks.now()
    rows = torch.arange(2 * ranks * 3).view(2 * ranks, 3)
    assert torch.equal(of.part(rows), rows[2 * rank : 2 * rank + 2])
    assert torch.equal(of.part(rows.T, 1), rows.T[:, 2 * rank : 2 * rank + 2])
    a = torch.full((2, 2), float(rank)).T
    b = torch.tensor(10.0 + 3 * rank)
    c = torch.tensor([2.0**40 + rank], dtype=torch.float64)
    of.average([a, c, b])
    mean = sum(range(ranks)) / ranks
    assert torch.equal(a, torch.full((2, 2), mean))
    torch.testing.assert_close(b, torch.tensor(10.0 + 3 * mean))
    assert c.item() == 2.0**40 + mean
    of.average([])


def _all(rank: int, ranks: int) -> None:
    for check in (_messages, _errors, _tensors):
        check(rank, ranks)


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_several(ranks: int, tmp_path: Path) -> None:
    run(ranks, tmp_path, _all)


def test_one_process_is_alone() -> None:
    assert not dist.is_initialized()
    of = Ranks.now()
    assert (of.rank, of.size, of.first, bool(of)) == (0, 1, True, False)
    x = torch.arange(4)
    assert of.part(x) is x
    assert of.any(True)
    assert not of.any(False)
    assert of.all_of("x") == ["x"]
    assert of.by_first(lambda: 5) == of.together(lambda: 5) == 5
    of.average([torch.ones(1)])
    of.barrier()
