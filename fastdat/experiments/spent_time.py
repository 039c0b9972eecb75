"""How long an experiment took, over all calls that worked on it."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Outcome
from fastdat.util import plain_json
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically

SECONDS = "seconds.json"
"""The file in an experiment's folder that holds the seconds of all calls so far."""

Run = Callable[[Options, Path], Outcome]


def timed(run: Run) -> Run:
    """Let an experiment's ``run(options, folder)`` fill in :attr:`Outcome.seconds`.

    They are the wall time of this call and of all earlier calls in the same folder, from beginning to end: training,
    scores, measurements, compilation, and reading what was there. A call that is stopped or fails counts too; one that
    is killed without notice does not. Calls for other arms (``--only``) count as well. The sum is kept in
    :data:`SECONDS` in the folder, and begins anew without it.

    Raises:
        RunFolderError: that file is damaged.
    """

    @functools.wraps(run)
    def wrapper(options: Options, folder: Path) -> Outcome:
        before, start = _read(folder / SECONDS), time.perf_counter()
        try:
            outcome = run(options, folder)
        finally:
            spent = before + time.perf_counter() - start
            if folder.is_dir():  # not where nothing was begun
                write_atomically(folder / SECONDS, f"{json.dumps({'seconds': round(spent, 3)})}\n".encode())
        return dataclasses.replace(outcome, seconds=spent)

    return wrapper


def _read(file: Path) -> float:
    try:
        return float(plain_json.loads(file.read_bytes())["seconds"])
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise RunFolderError(f"{file} is damaged ({error}): remove it, and the time begins anew") from error
