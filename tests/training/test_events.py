"""TensorBoard events."""

from __future__ import annotations

import time
from pathlib import Path

from fastdat.training.events import Events


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
