"""Worker processes of a DataLoader: signals that a terminal or torchrun sends to all processes do not end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastdat.training import checkpoint
from fastdat.training.batches import LoaderBatches
from fastdat.training.stop import StopRequests
from tests.slow_cases import slow_except
from tests.training.runs import read_log

NUMBERS = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM]


class Signalled(Dataset[Tensor]):
    """Each worker gets a signal before it makes its first image."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Tensor:
        if i == 0:
            os.kill(os.getpid(), self.number)
        return torch.full((3,), float(i))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("context", slow_except(["fork"], ["fork", "spawn"]))
def test_a_signal_does_not_end_a_worker(number: signal.Signals, context: str) -> None:
    loader = DataLoader(Signalled(number), batch_size=4, num_workers=1, multiprocessing_context=context)
    batches = LoaderBatches(loader, 4, torch.device("cpu"))
    found = [batches.batch(step)[0, 0].item() for step in range(3)]
    batches.close()
    assert found == [0, 4, 0]
    assert loader.worker_init_fn is None, "the loader is the user's"


@pytest.mark.parametrize("number", NUMBERS[:2])
def test_nor_a_worker_of_a_loader_within_batches_of_ones_own(number: signal.Signals) -> None:
    """While a run trains; it has started its workers by itself."""
    before = signal.signal(number, signal.default_int_handler)  # ignored in a shell's background
    try:
        with StopRequests() as stop:
            loader = DataLoader(Signalled(number), batch_size=4, num_workers=1)
            assert [batch[0, 0].item() for batch in loader] == [0, 4]
            assert stop.requested is None
    finally:
        signal.signal(number, before)


class Hanging(Dataset[Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Tensor:
        if i >= 4:
            time.sleep(600)
        return torch.zeros(3)


def test_a_worker_that_hangs_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores the SIGTERM with which torch would end it, and Python waits for it before it ends."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    started: list[int] = []
    loader = DataLoader(Hanging(), batch_size=4, num_workers=1, worker_init_fn=lambda _: started.append(1))
    batches = LoaderBatches(loader, 4, torch.device("cpu"))
    batches.batch(0)
    (worker,) = batches._workers._processes
    time.sleep(0.5)  # it asks for the next batch
    assert worker.is_alive()
    batches.close()
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


def test_the_users_own_function_is_called(tmp_path: Path) -> None:
    def own(worker: int) -> None:
        (tmp_path / str(worker)).touch()

    loader = DataLoader(Signalled(signal.SIGTERM), batch_size=4, num_workers=2, worker_init_fn=own)
    batches = LoaderBatches(loader, 4, torch.device("cpu"))
    batches.batch(0)
    batches.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert loader.worker_init_fn is own


RUN = """
import signal, sys
import torch
import fastdat
from tests.training.runs import OWN_NETS, silent
from tests.training.test_first_look import sgd, small_nets
from tests.training.test_loader_workers import Slow

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
loader = torch.utils.data.DataLoader(Slow(), batch_size=4, num_workers=2)
G, D = small_nets()
settings = OWN_NETS | {{"steps": 100_000, "n_dis": 1, "log_every": 5}}
trainer = fastdat.Trainer(G, D, sgd(G), sgd(D), loader, outdir={outdir!r}, display=silent(), **settings)
trainer.train()
"""


class Slow(Dataset[Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> Tensor:
        time.sleep(0.01)
        return torch.rand(3, 6, 6) * 2 - 1


@pytest.mark.parametrize("number", slow_except(NUMBERS[:1], NUMBERS))
def test_a_signal_to_all_processes_ends_the_run_with_a_checkpoint(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As a terminal and torchrun send it."""
    outdir = tmp_path / "run"
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(outdir=str(outdir))], start_new_session=True, **pipe
    ) as process:
        ends = time.monotonic() + 60
        while not (outdir / "stats.jsonl").exists() and time.monotonic() < ends:
            time.sleep(0.1)
        os.killpg(process.pid, number)
        out, _ = process.communicate(timeout=60)
    assert f"stopped by {number.name} after " in read_log(outdir), out
    done = checkpoint.load(outdir / "checkpoints" / "latest.pt")["step"]
    assert f"after {done} steps; run the same command again to resume\n" in read_log(outdir)
