"""What a run of an arm costs: seconds a step, compiled and eager, as the fastest of several laps.

Runs that train beside each other, or beside other work, tell nothing of this kind. So it is measured by itself, once
all runs of a study are finished.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from fastdat.data import ImageSet
from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.image_study import Arm
from fastdat.training.build import build_trainer, load_data
from fastdat.training.display import display_for
from fastdat.training.trainer import Trainer
from fastdat.util import plain_json
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically
from fastdat.util.provenance import machine_info

COST = "cost.json"
"""The file in the folder of a study that holds what was measured, and on which machine."""
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


def measured(
    arms: Sequence[Arm], options: Options, folder: Path, *, images: ImageSet | None = None
) -> dict[str, Cost]:
    """The cost of each arm, by its name. What :data:`COST` in ``folder`` holds from this machine is not measured again.

    Raises:
        RunFolderError: that file is damaged.
    """
    found = read(folder)
    for arm in arms:
        if arm.name not in found:
            display_for(LAP).note(f"cost of {arm.name}: {LAPS} laps of {LAP} steps, compiled and eager")
            images = images if images is not None else load_data(arm.config.replace({"data": options.data}))
            found[arm.name] = Cost(
                *(_seconds(arm, options, images, compiled=compiled) for compiled in (True, False))
            )
            _write(folder, found)
    return {arm.name: found[arm.name] for arm in arms}


def read(folder: Path) -> dict[str, Cost]:
    """What was measured on this machine so far, with these versions; nothing if there is no file, or one of another.

    Arms are compared with each other, so seconds of two machines must not meet in one table.

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
        return costs if record["machine"] == machine_info() else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunFolderError(f"{file} is damaged ({error!r}). Remove it to measure again") from error


def where() -> str:
    """The machine that is measured, in words."""
    machine = machine_info()
    return f"{machine['device']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}"


def _write(folder: Path, costs: dict[str, Cost]) -> None:
    record = {
        "seconds a step": {name: asdict(cost) for name, cost in costs.items()},
        "machine": machine_info(),
    }
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
