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
SEEDS = (0, 1, 2)
QUIET: Mapping[str, Any] = {"compile": False, "device": "cpu", "logger": "none", "sample_every": 10**9}


def arms() -> Iterator[tuple[str, TrainConfig]]:
    """By name: the preset, and the same images in larger batches."""
    small = preset("mlp-dat-gaussians")
    large = at_batch(small, BATCH)
    yield "batch 64", small
    yield "sqrt", large
    yield "same lr", large.replace({"lr": small.lr})
    yield "linear", large.replace({"lr": small.lr * BATCH / small.batch_size})
    yield "sqrt, eps_batch none", large.replace({"dat.eps_batch": None})
    yield (
        "same steps, same lr",
        large.replace({"lr": small.lr, "steps": small.steps, "eval.every": small.eval.every}),
    )


def modes(config: TrainConfig, folder: Path) -> float:
    """Modes found of nine, at the last step."""
    build_trainer(config.replace(QUIET), None, folder, display=Lines(io.StringIO())).train()
    *_, (_, last) = read_records(folder / METRICS)
    assert last["step"] == config.steps
    return float(last["scores"]["modes"])


def main() -> None:
    folder = Path(sys.argv[1])
    found: dict[str, Any] = {"machine": machine_info(), "commit": commit_info(), "arms": {}}
    for name, config in arms():
        of_seeds = [modes(config.replace({"seed": s}), folder / f"{name}-{s}") for s in SEEDS]
        settings = {"batch": config.batch_size, "steps": config.steps, "lr": config.lr}
        found["arms"][name] = {**settings, "eps_batch": config.dat.eps_batch, "modes": of_seeds}
        print(name, found["arms"][name], flush=True)
    (RESULTS / RESULT).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
