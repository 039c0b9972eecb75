"""A run in pieces: each ends in time, the next goes on, and the rate is that of the settled part."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import cifar10_run
from bench.cifar10_run import PIECES, main, rate, stopped_after, with_piece
from fastdat.data import ImageSet
from fastdat.training import TrainConfig, Trainer, build_trainer
from tests.training.runs import TINY, assert_same, results

SMALL = [f"{key}={json.dumps(value)}" for key, value in TINY.items() if key != "eval.every"]


def piece(outdir: Path, *more: str, minutes: float = 9.0) -> dict[str, object]:
    changes = [word for setting in (*SMALL, *more) for word in ("--set", setting)]
    assert main(["--data", "none", "--outdir", str(outdir), "--minutes", str(minutes), *changes]) == 0
    found: dict[str, object] = json.loads((outdir / PIECES).read_text())
    return found


def test_pieces_add_up_to_the_run(
    few_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two pieces, of which the first is stopped by its time, equal one run; the KID comes after the last step."""
    monkeypatch.setattr(
        cifar10_run, "scores", lambda outdir, extractor, fakes: [{"kid": 1.5, "fakes": fakes}]
    )
    monkeypatch.setattr(cifar10_run, "load_data", lambda config: few_images)
    monkeypatch.setattr(cifar10_run, "ENDING", 0.0)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    settings = ("steps=30", "log_every=5")
    whole = piece(tmp_path / "whole", *settings)
    assert whole["scores"] == [{"kid": 1.5, "fakes": 10_000}]
    with monkeypatch.context() as patched:
        patched.setattr(cifar10_run, "build_trainer", stopped_at(13))
        first = piece(tmp_path / "run", *settings)
    assert "scores" not in first
    assert first["done"] == 13
    found = piece(tmp_path / "run", *settings)
    assert_same(results(tmp_path / "whole"), results(tmp_path / "run"))
    assert [(each["from"], each["to"]) for each in found["pieces"]] == [  # type: ignore[attr-defined]
        (0, 13),
        (13, 30),
    ]
    assert (found["steps"], found["done"]) == (30, 30)
    assert json.loads((tmp_path / "out" / PIECES).read_text()) == found
    newest = tmp_path / "run" / "samples" / "step-000030.png"
    assert (tmp_path / "out" / "samples.png").read_bytes() == newest.read_bytes()
    assert "steps 0 to 30: too short for a rate" in capsys.readouterr().out


def stopped_at(step: int) -> Callable[..., Trainer]:
    """A ``build_trainer`` whose process gets SIGINT before the given step is done, as the time of a piece sends it."""

    def build(*args: Any, **kwargs: Any) -> Trainer:
        trainer = build_trainer(*args, **kwargs)
        run = trainer.iteration.run

        def stopping(now: int) -> None:
            if now == step - 1:
                os.kill(os.getpid(), signal.SIGINT)
            run(now)

        trainer.iteration.run = stopping  # type: ignore[method-assign]
        return trainer

    return build


def test_the_time_of_a_piece_ends_it() -> None:
    """Also in the background of a shell, where SIGINT is ignored; afterwards it is ignored again."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), stopped_after(0.05):
            time.sleep(60)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt), stopped_after(0.05):
        time.sleep(60)
    with stopped_after(0.2):
        pass
    time.sleep(0.3)


def test_the_rate_leaves_out_the_beginning() -> None:
    """Compilation takes 70 s in this piece, and 50 steps then 2 s."""
    lines = [{"step": step, "seconds": 70 + step / 25} for step in range(1050, 1400, 50)]
    assert rate(lines, begin=1000) == pytest.approx(25)
    lines[0]["seconds"] = lines[1]["seconds"] = -100
    assert rate(lines, begin=1000) == pytest.approx((1350 - 1100) / (70 + 54 + 100))
    assert rate(lines[:2], begin=1000) is None
    assert rate([], begin=0) is None


def test_the_time_of_all_steps_is_that_of_the_last_rate() -> None:
    config = TrainConfig(steps=100_000)
    found = with_piece({"pieces": []}, {"from": 0, "to": 500, "it_per_s": 50.0}, config)
    found = with_piece(found, {"from": 500, "to": 900, "it_per_s": 125.0}, config)
    found = with_piece(found, {"from": 900, "to": 950, "it_per_s": None}, config)
    assert found["it_per_s"] == 125
    assert found["minutes_for_all_steps"] == pytest.approx(100_000 / 125 / 60)
    assert found["done"] == 950
