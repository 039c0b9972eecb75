"""Under torchrun: a killed rank and its restart, SIGTERM to torchrun, and a rank that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdat.training import checkpoint
from tests.faults.rank_kills import TOLERANCE, difference
from tests.faults.toy_runs import problems
from tests.training.runs import read_log, results

EVERY = 10
STEPS = 120
#: Seconds for a command to end, on a machine that has other work too: it may start three times.
PATIENCE = 300.0
COMMAND = (
    f"-m fastdat train --preset mlp-dat-gaussians --device cpu --no-compile --steps {STEPS} --batch-size 8 --ngf 8 "
    f"--ndf 8 --set checkpoints.every={EVERY} --set log_every=1 --set sample_every=1000 --set eval.every=null "
    "--set ema=0.9 --set logger=none"
).split()


@dataclass
class Torchrun:
    """What came out.

    Args:
        scenarios: those that were played.
        losses: what went wrong, in words.
    """

    scenarios: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)


def command(run: Path, ranks: int, restarts: int = 0, *more: str) -> list[str]:
    """One process by itself, or several under torchrun."""
    launcher = (
        f"-m torch.distributed.run --standalone --nproc-per-node {ranks} --max-restarts {restarts}".split()
    )
    return [sys.executable, *(launcher if ranks > 1 else []), *COMMAND, "--outdir", str(run), *more]


class Running:
    """A started command; what it prints goes into a file.

    Raises:
        TimeoutError: what was waited for did not come.
    """

    def __init__(self, run: Path, ranks: int, restarts: int = 0, *more: str) -> None:
        self._run, self._output = run, run.with_suffix(".output")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("LD_PRELOAD", None)
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                command(run, ranks, restarts, *more), stdout=output, stderr=output, env=environment
            )

    def wait_for_step(self, step: int) -> None:
        stats = self._run / "stats.jsonl"
        self._wait(lambda: stats.exists() and stats.read_bytes().count(b"\n") >= step, f"no step {step}")

    def ranks(self) -> dict[int, int]:
        """Rank -> process id."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) != self._process.pid:
                    continue
                variables = dict(
                    item.split("=", 1) for item in (entry / "environ").read_text().split("\0") if item
                )
                found[int(variables["RANK"])] = int(entry.name)
            except (OSError, KeyError):  # it has just ended, or is no rank
                continue
        return found

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """Exit code and output."""
        self._wait(lambda: self._process.poll() is not None, "it did not end")
        return self._process.returncode, self._output.read_text()

    def _wait(self, until: Callable[[], bool], otherwise: str) -> None:
        end = time.monotonic() + PATIENCE
        while not until():
            if time.monotonic() > end:
                for child in [*self.ranks().values(), self._process.pid]:
                    os.kill(child, signal.SIGKILL)
                self._process.wait()
                raise TimeoutError(f"{otherwise} in {PATIENCE:.0f} s: {self._output.read_text()[-6000:]}")
            time.sleep(0.05)


def unbroken(folder: Path) -> dict[str, Any]:
    """The results of one process."""
    code, output = Running(folder / "one", 1).ended()
    assert not code, output
    return results(folder / "one")


def restart(run: Path, of_one: dict[str, Any]) -> list[str]:
    """One of two ranks is killed: torchrun starts both anew, from the last checkpoint."""
    running = Running(run, 2, 2)
    running.wait_for_step(3 * EVERY)
    os.kill(running.ranks()[1], signal.SIGKILL)
    code, output = running.ended()
    said = [f"not said: {text}" for text in ("resumed after ",) if text not in read_log(run)]
    return ([f"exit {code}: {output[-6000:]}"] if code else _differs(run, of_one)) + said


def asked_to_stop(run: Path, of_one: dict[str, Any]) -> list[str]:
    """SIGTERM to torchrun: both ranks end with a checkpoint of the last step; one process finishes the run."""
    running = Running(run, 2)
    running.wait_for_step(EVERY)
    running.signal(signal.SIGTERM)
    code, output = running.ended()
    saved = checkpoint.load(run / "checkpoints" / "latest.pt")["step"]
    found = problems(run, EVERY) + ([] if code else ["exit 0"])
    if f"stopped by SIGTERM after {saved} steps" not in read_log(run):
        found.append(f"latest.pt is of step {saved}; {read_log(run)[-500:]} {output[-6000:]}")
    return found + _finished(run, 1, of_one)


def hang(run: Path, of_one: dict[str, Any]) -> list[str]:
    """Rank 1 is stopped: the message names it; two ranks finish the run later."""
    running = Running(run, 2, 0, "--set", "hang_timeout=8")
    running.wait_for_step(3 * EVERY)
    stopped = running.ranks()[1]
    os.kill(stopped, signal.SIGSTOP)
    code, output = running.ended()
    found = [] if code else ["exit 0"]
    if "no sign of life from rank 1" not in output:
        found.append(f"the rank is not named: {output[-6000:]}")
    if Path(f"/proc/{stopped}").exists():
        found.append("the stopped rank is still there")
        os.kill(stopped, signal.SIGKILL)
    return found + problems(run, EVERY) + _finished(run, 2, of_one)


def _finished(run: Path, ranks: int, of_one: dict[str, Any]) -> list[str]:
    code, output = Running(run, ranks).ended()
    return [f"cannot resume: {output[-6000:]}"] if code else _differs(run, of_one)


def _differs(run: Path, of_one: dict[str, Any]) -> list[str]:
    apart = difference(run, of_one)
    return problems(run, EVERY) + ([f"{apart:.1e} from one process"] if apart > TOLERANCE else [])


SCENARIOS = {"restart": restart, "SIGTERM": asked_to_stop, "hang": hang}


def campaign(folder: Path, until: float) -> Torchrun:
    """Every scenario once."""
    found = Torchrun()
    of_one = unbroken(folder)
    for name, scenario in SCENARIOS.items():
        if time.monotonic() < until:
            found.losses += [f"{name}: {loss}" for loss in scenario(folder / name, of_one)]
            found.scenarios.append(name)
    return found
