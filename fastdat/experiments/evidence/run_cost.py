"""What a run of an arm costs: seconds a step, compiled and eager, as the fastest of several laps.

Runs that train beside each other, or beside other work, tell nothing of this kind. So it is measured by itself, once
all runs of a study are finished. What was measured is kept beside the finished runs, so that their page can be made
again, and on another machine, without training.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastdat.data import ImageSet
from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.image_study import Arm
from fastdat.experiments.training_origin import here
from fastdat.training.build import build_trainer, choose_device, load_data
from fastdat.training.display import display_for
from fastdat.training.trainer import Trainer
from fastdat.util import plain_json
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically
from fastdat.util.provenance import machine_info, short_commit

COST = "cost.json"
"""The file that holds what was measured, on which machine and at which commit."""
LAPS, LAP = 4, 50
"""Laps, and the steps in each; the steps before the first lap, which compile, do not count."""


@dataclass(frozen=True)
class Cost:
    """Seconds a G step, with the D steps before it; without scores, samples and checkpoints.

    Args:
        compiled: by ``torch.compile``; the compilation itself does not count.
        eager: without it.
    """

    compiled: float
    eager: float


@dataclass(frozen=True)
class Costs:
    """What arms cost on one machine, with one version of fastdat.

    Args:
        of: arm -> its cost.
        machine: as :func:`fastdat.util.provenance.machine_info`, with the device that trained.
        commit: in words.
    """

    of: Mapping[str, Cost]
    machine: Mapping[str, Any]
    commit: str

    @property
    def where(self) -> str:
        """Machine and commit in words."""
        threads = int(self.machine["threads"])
        return f"{self.machine['device']}, {threads} thread{'s' * (threads > 1)}, {short_commit(self.commit)}"


def measured(arms: Sequence[Arm], options: Options, folder: Path, *, images: ImageSet | None = None) -> Costs:
    """The cost of each arm. What :data:`COST` in ``folder`` holds of all of them is taken, whoever has measured it.

    Otherwise arms are measured here, and the file is written after each: again those that were measured on another
    machine or at another commit, since arms are compared with each other.

    Raises:
        ConfigError, DataError: as :func:`fastdat.training.load_data`.
        OSError: the file cannot be written.
        RunFolderError: it is damaged.
    """
    costs = read(folder)
    if costs is None or any(arm.name not in costs.of for arm in arms):
        origin = here(choose_device(options.device))
        (device,), (commit,) = origin.machines, origin.commits
        nothing = Costs({}, machine_info() | {"device": device}, commit)
        if costs is None or replace(costs, of={}) != nothing:
            costs = nothing
    for arm in arms:
        if arm.name not in costs.of:
            display_for(LAP).note(f"cost of {arm.name}: {LAPS} laps of {LAP} steps, compiled and eager")
            images = images if images is not None else load_data(arm.config.replace({"data": options.data}))
            seconds = [_seconds(arm, options, images, compiled=compiled) for compiled in (True, False)]
            costs = replace(costs, of={**costs.of, arm.name: Cost(*seconds)})
            _write(folder, costs)
    return replace(costs, of={arm.name: costs.of[arm.name] for arm in arms})


def read(folder: Path) -> Costs | None:
    """What was measured so far; None if nothing was.

    Raises:
        RunFolderError: the file is damaged.
    """
    file = folder / COST
    try:
        record = plain_json.loads(file.read_bytes())
        costs = {
            str(name): Cost(float(cost["compiled"]), float(cost["eager"]))
            for name, cost in record["seconds a step"].items()
        }
        return Costs(costs, dict(record["machine"]), str(record["commit"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(f"{file} is damaged ({error!r}). Remove it to measure again") from error


def _write(folder: Path, costs: Costs) -> None:
    record = {
        "seconds a step": {name: asdict(cost) for name, cost in costs.of.items()},
        "machine": dict(costs.machine),
        "commit": costs.commit,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / COST, f"{json.dumps(record, indent=1)}\n".encode())


def _seconds(arm: Arm, options: Options, images: ImageSet | None, *, compiled: bool) -> float:
    """A step of the fastest lap."""
    steps = LAP * (LAPS + 1)
    config = arm.config.replace(
        {
            "steps": steps,
            "log_every": LAP,
            "sample_every": steps,
            "checkpoints.every": steps,
            "eval.every": None,
            "device": options.device,
            "compile": compiled,
        }
        | ({"data": options.data} if options.data else {})
    )
    ends: list[float] = []

    def note_end(trainer: Trainer) -> None:
        del trainer
        ends.append(time.perf_counter())

    folder = Path(tempfile.mkdtemp(prefix="fastdat-cost-"))
    try:
        build_trainer(config, images, folder / "run", callbacks=[note_end]).train()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return min(end - start for start, end in pairwise(ends)) / LAP
