"""The file in a run folder of an experiment that holds by which commits and on which machines the run was trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from fastdat.experiments.training_origin import Origin, joined
from fastdat.util import plain_json
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically

ORIGIN = "origin.json"


def note_origin(run: Path, origin: Origin) -> None:
    """Add ``origin`` to what is known of the run in ``run``, which exists.

    Raises:
        RunFolderError: the file is damaged.
    """
    whole = joined([read_origin(run), origin])
    write_atomically(run / ORIGIN, f"{json.dumps(asdict(whole))}\n".encode())


def read_origin(run: Path) -> Origin:
    """What is known of the run in ``run``; nothing of a run of an earlier version.

    Raises:
        RunFolderError: the file is damaged.
    """
    file = run / ORIGIN
    try:
        found = plain_json.loads(file.read_bytes())
        return Origin(tuple(map(str, found["commits"])), tuple(map(str, found["machines"])))
    except FileNotFoundError:
        return Origin()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{file} is damaged ({error}): remove it, and the page does not say where this run was trained"
        ) from error
