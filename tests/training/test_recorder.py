"""Reports of a run reach the screen, the files and TensorBoard."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastdat.training.display import Lines
from fastdat.training.recorder import Recorder
from fastdat.training.run_folder import RunFolder
from fastdat.training.train_config import TrainConfig

RECORD = {"step": 2, "split": "train", "extractor": "means", "scores": {"fid": 12.345678}}
NUMBERS = {"seconds": 1.0, "it_per_s": 2.0, "loss_d": 1.23456789, "loss_g": 0.5}


def test_each_report_reaches_all_its_places(tmp_path: Path) -> None:
    screen = io.StringIO()
    folder = RunFolder(tmp_path)
    recorder = Recorder(folder, Lines(screen), steps=10)
    recorder.open_logger(TrainConfig(), 0)
    recorder.note("hello")
    recorder.log("for the log alone")
    recorder.advance(2)
    recorder.stats(2, NUMBERS)
    recorder.scores(RECORD)
    recorder.samples(2, torch.zeros(4, 3, 8, 8))
    recorder.reals(torch.zeros(4, 3, 8, 8))
    recorder.flush()
    recorder.close()
    lines = screen.getvalue().splitlines()
    assert lines[0] == "hello"
    assert lines[1].startswith("step 2/10  loss D 1.235  G +0.500")
    assert lines[2:] == ["step 2  train [means]  fid 12.346"]
    log = [line.partition("  ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert log == ["hello", "for the log alone", *lines[1:], f"wrote {tmp_path}/samples/step-000002.png"]
    assert json.loads((tmp_path / "stats.jsonl").read_text()) == {"step": 2, **NUMBERS, "loss_d": 1.23457}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == RECORD
    assert (tmp_path / "reals.png").is_file()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/D")] == [2]
    assert [event.step for event in events.Scalars("scores/fid_train [means]")] == [2]
    assert [event.step for event in events.Images("samples")] == [2]


def test_rewinding_drops_later_records(tmp_path: Path) -> None:
    recorder = Recorder(RunFolder(tmp_path), Lines(io.StringIO()), steps=10)
    for step in (2, 4):
        recorder.stats(step, NUMBERS)
        recorder.scores(RECORD | {"step": step})
        recorder.samples(step, torch.zeros(4, 1, 8, 8))
    recorder.rewind(2, scored=False)
    assert json.loads((tmp_path / "stats.jsonl").read_text())["step"] == 2
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step-000002.png"]
