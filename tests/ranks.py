"""Processes that talk through gloo on one machine, for tests of several ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

OfRank = Callable[[int, int], None]
"""Called in each process with its rank and the number of ranks; a function at the top of a module."""


def run(ranks: int, folder: Path, function: OfRank) -> None:
    """Run ``function`` in ``ranks`` new processes; an exception in one of them fails the test."""
    rendezvous = folder / "rendezvous"
    rendezvous.unlink(missing_ok=True)  # of an earlier call
    mp.spawn(_rank, args=(ranks, str(rendezvous), function), nprocs=ranks)


def _rank(rank: int, ranks: int, rendezvous: str, function: OfRank) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    try:
        function(rank, ranks)
        dist.barrier()  # gloo aborts a rank whose peer hangs up while it still talks
    finally:
        dist.destroy_process_group()
    # Every assertion has passed. gloo's threads can abort an interpreter that tears itself down: leave without.
    os._exit(0)
