"""The time of an experiment: all calls that worked on it, also those that were stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.experiments import spent_time
from fastdat.experiments.catalogue import CATALOGUE, Options, load
from fastdat.experiments.outcome import Outcome
from fastdat.experiments.spent_time import SECONDS, timed
from fastdat.util.errors import RunFolderError


class Clock:
    """Stands in for the module ``time``."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(spent_time, "time", made)
    return made


def outcome() -> Outcome:
    return Outcome("fig1", "Fig. 1", True, "", (), (), (), (), {}, {}, seconds=-1.0)


def test_calls_add_up_also_those_that_are_stopped(clock: Clock, tmp_path: Path) -> None:
    def run(options: Options, folder: Path) -> Outcome:
        """Takes 7 s, and 3 s if it is stopped."""
        clock.now += 3
        if options.seeds == 2:
            raise KeyboardInterrupt
        clock.now += 4
        return outcome()

    experiment = timed(run)
    assert experiment.__doc__ == run.__doc__
    assert experiment(Options(), tmp_path).seconds == 7
    with pytest.raises(KeyboardInterrupt):
        experiment(Options(seeds=2), tmp_path)
    assert experiment(Options(), tmp_path).seconds == 17
    assert experiment(Options(), tmp_path / "nowhere").seconds == 7
    assert not (tmp_path / "nowhere").exists(), "nothing was begun there"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / SECONDS).write_text("[]")
    with pytest.raises(
        RunFolderError, match=r"seconds\.json is damaged .*: remove it, and the time begins anew"
    ):
        timed(lambda *_: outcome())(Options(), tmp_path)


def test_all_experiments_on_images_are_timed() -> None:
    names = [name for name, entry in CATALOGUE.items() if ".images." in entry.module]
    assert len(names) >= 8
    assert [name for name in names if not hasattr(load(name).run, "__wrapped__")] == []
