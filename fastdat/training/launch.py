"""Joins the processes that torchrun started, each with a GPU of its own where there are GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

from fastdat.util.errors import ConfigError
from fastdat.util.ranks import Ranks

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets; a Slurm script may set them itself."""
TIMEOUT = 3600.0
"""Seconds of one exchange at least. ``hang_timeout`` of the run comes first, and says more."""


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that were started together.

    Raises:
        ConfigError: some of the variables are set, but not all.
    """
    if environment.get("WORLD_SIZE", "1") == "1" and "TORCHELASTIC_RUN_ID" not in environment:
        return False
    missing = [name for name in VARIABLES if name not in environment]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={environment['WORLD_SIZE']} says that several processes train together, but "
            f"{', '.join(missing)} is not set. Start them with torchrun, or set all of {', '.join(VARIABLES)}"
        )
    return True


@contextmanager
def joined(device: str = "auto", hang_timeout: float = 600.0) -> Iterator[Ranks]:
    """Within it, ``torch.distributed`` is initialized, if this process was started with others.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``, as in the configuration of a run. With GPUs, each process of a
            machine takes the one of its local rank.
        hang_timeout: that of the run.

    Raises:
        ConfigError: this machine has fewer GPUs than processes, or the processes do not find each other.
    """
    if not launched():
        yield Ranks()
        return
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own: PyTorch sees {gpus}. Start at most {gpus} "
                f"here (torchrun --nproc-per-node {gpus}), set LOCAL_RANK=0 where each process sees a GPU of its own, "
                "or set device=cpu"
            )
        torch.cuda.set_device(local)
    try:
        _find_each_other("cpu:gloo,cuda:nccl" if on_gpu else "gloo", max(TIMEOUT, 2 * hang_timeout))
    except (dist.DistError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"rank {os.environ['RANK']} does not reach the others at {address}: {error}"
        ) from error
    try:
        yield Ranks.now()
    except BaseException:
        # nccl might wait here for ranks that wait for this one; the end of the process ends them all.
        if not on_gpu:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _find_each_other(backend: str, seconds: float) -> None:
    """A function of its own: the frame of :func:`joined` would keep the store alive through a traceback until Python
    ends, where the store's thread ends the process with an abort."""
    timeout = timedelta(seconds=seconds)
    store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    # Keys of their own for each start by torchrun: a process that starts first would otherwise find the addresses of
    # those that ended before (seen with torch 2.13: "connectFullMesh failed", until no restart was left).
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = PrefixStore(f"fastdat/attempt_{attempt}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)
