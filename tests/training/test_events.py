"""TensorBoard events."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fastdat.training.events import Events
from fastdat.util.errors import RunFolderError


def test_events_of_repeated_steps_count_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def written() -> list[int]:
        events = EventAccumulator(str(tmp_path / "events")).Reload()
        return [event.step for event in events.Scalars("loss/D")]

    def log(events: Events, *steps: int) -> None:
        for step in steps:
            events.stats({"step": step, "loss_d": 1.0})

    events = Events(tmp_path / "events", 0)
    log(events, 1, 2, 3)
    events.flush()  # killed here, before its first checkpoint
    time.sleep(1.1)  # the name of an event file contains the second of its start
    events = Events(tmp_path / "events", 0)
    log(events, 1, 2)
    time.sleep(1.1)
    events.rewind(1)  # NaN: back to the checkpoint of step 1
    log(events, 2, 3)
    events.close()
    assert written() == [1, 2, 3]


def test_a_folder_whose_name_is_no_utf_8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="whose name is no UTF-8: give another --outdir or logger=none"):
        Events(tmp_path / os.fsdecode(b"caf\xe9"), 0)
