"""SNGAN with DAT on CIFAR-10 at the settings of Table I, in pieces that each end in time and go on where one ended.

    python -m bench.cifar10_run --data DIR      # make cifar10-gpu DATA=DIR; again, until all steps are done

Each piece is a training that is asked to stop after ``--minutes``, as by Ctrl-C: it finishes its step, writes a
checkpoint and ends; the same command resumes it. Then the run's folder has ``pieces.json``: what each piece reached,
its rate, and the time that all steps take at the last rate. After the last step it has the KID too, if torch-fidelity
is installed. The environment variable OUT names a folder that gets the JSON and the newest sample grid, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastdat.data import ImageSet
from fastdat.training import TrainConfig, build_trainer, preset
from fastdat.training.build import load_data
from fastdat.training.train_config import parse_assignment
from fastdat.training.trained import load_trained
from fastdat.util.files import write_atomically
from fastdat.util.provenance import commit_info, machine_info, versions
from fastdat.util.run_layout import STATS, read_records

PRESET = "sngan-dat-cifar10"
PIECES = "pieces.json"
SETTLING = 100
"""Steps after the beginning of a piece that its rate leaves out: compilation, warm-up, and the capture of a graph."""
ENDING = 15.0
"""Seconds of a piece that are left for its last step and its checkpoint."""
SETTINGS: dict[str, Any] = {"eval.every": None, "logger": "none", "sample_every": 5000}
"""Scores come after the last step, so that pieces measure training alone."""

Record = dict[str, Any]


def train_piece(config: TrainConfig, images: ImageSet, outdir: Path, seconds: float) -> Record:
    """Train for about ``seconds``, or until all steps are done; what this piece did."""
    trainer = build_trainer(config, images, outdir)
    begin = trainer.done
    with suppress(KeyboardInterrupt), stopped_after(seconds):
        trainer.train()
    lines = [line for _, line in read_records(outdir / STATS) if line["step"] > begin]
    return {
        "commit": commit_info(),
        "machine": machine_info(),
        "from": begin,
        "to": trainer.done,
        "graphs": getattr(trainer.iteration, "graphs", 0),
        "it_per_s": rate(lines, begin),
        "last": lines[-1] if lines else None,
    }


def rate(lines: Sequence[Record], begin: int) -> float | None:
    """G steps a second between the first line of stats.jsonl after ``SETTLING`` steps and the last one, with all that
    came between: batches, logs, samples, checkpoints. None for a piece without two such lines."""
    settled = [line for line in lines if line["step"] >= begin + SETTLING]
    if len(settled) < 2:
        return None
    first, last = settled[0], settled[-1]
    return float((last["step"] - first["step"]) / (last["seconds"] - first["seconds"]))


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Within it, this process gets SIGINT once, after ``seconds``."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    # A shell lets processes in its background ignore SIGINT, and a training leaves a signal ignored that is.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def run_so_far(outdir: Path) -> Record:
    """What ``pieces.json`` says; without one, nothing yet."""
    path = outdir / PIECES
    found: Record = json.loads(path.read_text()) if path.exists() else {"pieces": []}
    return found


def with_piece(before: Record, piece: Record, config: TrainConfig) -> Record:
    """The run with one piece more, and the time of all steps at the last rate."""
    pieces = [*before["pieces"], piece]
    rates = [each["it_per_s"] for each in pieces if each["it_per_s"]]
    return {
        **before,
        "versions": versions(),
        "settings": config.to_dict(),
        "steps": config.steps,
        "done": piece["to"],
        "it_per_s": rates[-1] if rates else None,
        "minutes_for_all_steps": config.steps / rates[-1] / 60 if rates else None,
        "pieces": pieces,
    }


def scores(outdir: Path, extractor: str, fakes: int) -> list[Record] | str:
    """KID of the trained G against train, or why there is none."""
    if importlib.util.find_spec("torch_fidelity") is None:
        return "torch-fidelity is not installed here"
    changes = {"metrics": ["kid"], "splits": ["train"], "extractor": extractor, "fakes": fakes}
    given = {f"eval.{key}": value for key, value in changes.items()}
    return load_trained(outdir, "latest", ema=True, device="auto", settings=given).evaluate() or []


def write(outdir: Path, found: Record) -> None:
    """Write ``pieces.json``, and copy it and the newest samples to OUT."""
    write_atomically(outdir / PIECES, (json.dumps(found, indent=1) + "\n").encode())
    if os.environ.get("OUT"):
        out = Path(os.environ["OUT"])
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(outdir / PIECES, out / PIECES)
        for grid in sorted((outdir / "samples").glob("step-*.png"))[-1:]:
            shutil.copy(grid, out / "samples.png")


def said(found: Record) -> str:
    """A line about the last piece and the run."""
    piece, minutes = found["pieces"][-1], found["minutes_for_all_steps"]
    speed = "too short for a rate"
    if piece["it_per_s"]:
        speed = f"{piece['it_per_s']:.1f} steps/s; {found['steps']:,} steps take {minutes:.1f} minutes"
    return f"steps {piece['from']:,} to {piece['to']:,}: {speed}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cifar10_run", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--data", required=True, help="CIFAR-10: a packed store, or the publisher's files")
    parser.add_argument("--outdir", type=Path, default=Path("runs/cifar10-gpu"), help="folder of the run")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="time of a piece, data and compilation included (9)"
    )
    parser.add_argument("--extractor", default="efficientnet-lite0", help="of the KID after the last step")
    parser.add_argument("--fakes", type=int, default=10_000, help="for the KID")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the preset"
    )
    given = parser.parse_args(arguments)
    begin = time.monotonic()
    config = preset(PRESET).replace(SETTINGS | {"data": given.data} | dict(map(parse_assignment, given.set)))
    images = load_data(config)
    assert images is not None  # it is None only for mixtures
    found = run_so_far(given.outdir)
    left = 60 * given.minutes - (time.monotonic() - begin)
    found = with_piece(found, train_piece(config, images, given.outdir, left - ENDING), config)
    write(given.outdir, found)
    print(said(found))
    if found["done"] == config.steps and "scores" not in found:
        found["scores"] = scores(given.outdir, given.extractor, given.fakes)
        write(given.outdir, found)
        print(f"scores: {found['scores']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
