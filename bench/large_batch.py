"""`python -m bench.large_batch FOLDER`: nine Gaussians in batches 16 times as large, with several rules, as JSON.

What docs/large_batch.md says of the rules is from here. It is small: points in a plane, nets of four layers.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.environment import RESULTS
from fastdat.training import TrainConfig, build_trainer, preset
from fastdat.training.display import Lines
from fastdat.training.large_batch import at_batch
from fastdat.util.provenance import commit_info, machine_info
from fastdat.util.run_layout import METRICS, read_records

RESULT = "large-batch-points.json"
BATCH = 1024
STEPS = 3000
"""In batches of 64: the README's laptop recipe, whose result is beside this one."""
SEEDS = (0, 1, 2)
QUIET: Mapping[str, Any] = {"compile": False, "device": "cpu", "logger": "none", "sample_every": 10**9}


def arms() -> Iterator[tuple[str, TrainConfig]]:
    """By name: the training of the laptop recipe, with its images in larger batches."""
    small = preset("mlp-dat-gaussians").replace({"steps": STEPS})
    large = at_batch(small, BATCH)
    yield "sqrt", large
    yield "same lr", large.replace({"lr": small.lr})
    yield "linear", large.replace({"lr": small.lr * BATCH / small.batch_size})
    yield "sqrt, eps_batch none", large.replace({"dat.eps_batch": None})


def scores(config: TrainConfig, folder: Path) -> dict[str, float]:
    """Those of the last step: modes found of nine, and the share of points near one. A run that is there is read."""
    if not (folder / METRICS).exists():
        build_trainer(config.replace(QUIET), None, folder, display=Lines(io.StringIO())).train()
    *_, (_, last) = read_records(folder / METRICS)
    assert last["step"] == config.steps
    return {name: last["scores"][name] for name in ("modes", "high_quality")}


def main() -> None:
    folder = Path(sys.argv[1])
    found: dict[str, Any] = {"machine": machine_info(), "commit": commit_info(), "arms": {}}
    for name, config in arms():
        of_seeds = [scores(config.replace({"seed": s}), folder / f"{name}-{s}") for s in SEEDS]
        settings: dict[str, Any] = {"batch": config.batch_size, "steps": config.steps, "lr": config.lr}
        settings["eps_batch"] = config.dat.eps_batch
        found["arms"][name] = settings | {key: [one[key] for one in of_seeds] for key in of_seeds[0]}
        print(name, found["arms"][name], flush=True)
    (RESULTS / RESULT).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
