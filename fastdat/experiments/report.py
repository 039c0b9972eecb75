"""Fig. 3 as numbers: a table for people, the same as JSON for programs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastdat.data.mixture import MEANS, STD
from fastdat.experiments.plan import MEASURED
from fastdat.experiments.results import Arm, Measurement, Result
from fastdat.metrics.modes import FOUND, NEAR
from fastdat.util.files import write_atomically
from fastdat.util.provenance import commit_info, machine_info

_LEGEND = (
    f"Mean ± standard deviation over seeds. modes: of {len(MEANS)}, with over {FOUND:g} of their due share. "
    f"quality: share of points within {NEAR:g} std of a mode. KL: of the modes' shares against the true ones, nats."
)


def table(result: Result) -> Table:
    """Coverage at the checkpoints: mixtures as sections, an arm and a checkpoint a row."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("mixture", "arm", "iterations", "modes", "quality", "KL"):
        shown.add_column(heading, justify="left" if heading in ("mixture", "arm") else "right", no_wrap=True)
    for mixture in result.mixtures:
        for arm in result.arms:
            for iteration in result.config.checkpoints:
                found = arm.at(iteration).coverage[mixture.name]
                first = iteration == result.config.checkpoints[0]
                shown.add_row(
                    mixture.name if first and arm is result.arms[0] else "",
                    arm.name if first else "",
                    f"{iteration:,}",
                    _spread(found.modes, ".1f"),
                    _spread(found.high_quality, ".2f"),
                    _spread(found.kl, ".2f"),
                    end_section=iteration == result.config.checkpoints[-1],
                )
    return shown


def lines(result: Result) -> Iterator[str]:
    """What stands below the table."""
    yield _LEGEND
    for arm in result.arms:
        yield (
            f"{arm.name}: {arm.milliseconds:.2f} ms an iteration for all {arm.members} GANs, after "
            f"{arm.first_seconds:.0f} s for the first"
        )
    yield f"{result.seconds:.0f} s in all, {'compiled' if result.compiled else 'not compiled'}"


def show(result: Result, console: Console | None = None) -> None:
    """Print table and lines."""
    console = console or Console()
    console.print(table(result))
    for line in lines(result):
        console.print(line, highlight=False)


def as_dict(result: Result) -> dict[str, Any]:
    """All that was measured, in plain types."""
    return {
        "experiment": "fig3",
        "config": asdict(result.config) | {"recipe": asdict(result.config.recipe)},
        "seeds": list(range(result.config.seeds)),
        "compiled": result.compiled,
        "mixtures": {
            m.name: {"means": MEANS, "std": STD, "probabilities": m.probabilities} for m in result.mixtures
        },
        "definitions": {"found_over_part_of_due": FOUND, "high_quality_within_std": NEAR, "points": MEASURED},
        "arms": {arm.name: _arm(arm) for arm in result.arms},
        "seconds": round(result.seconds, 3),
        "trained_on": _describe(result.device),
        "machine": machine_info(),
        "commit": commit_info(),
    }


def write(result: Result, outdir: Path) -> None:
    """fig3.json and fig3.txt."""
    write_atomically(
        outdir / "fig3.json", (json.dumps(as_dict(result), indent=1, allow_nan=False) + "\n").encode()
    )
    text = io.StringIO()
    show(result, Console(file=text, width=100))
    write_atomically(outdir / "fig3.txt", text.getvalue().encode())


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "attack": asdict(arm.attack),
        "first_iteration_seconds": round(arm.first_seconds, 3),
        "milliseconds_per_iteration": round(arm.milliseconds, 4),
        "measurements": [_measurement(m) for m in arm.measurements],
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    return {"iteration": measurement.iteration} | {
        mixture: {
            "modes": _statistics(found.modes),
            "high_quality": _statistics(found.high_quality),
            "kl": _statistics(found.kl),
            "histogram": found.histogram.tolist(),
        }
        for mixture, found in measurement.coverage.items()
    }


def _statistics(values: Tensor) -> dict[str, Any]:
    mean, std = mean_and_std(values)
    return {"mean": mean, "std": std, "values": values.tolist()}


def mean_and_std(values: Tensor) -> tuple[float, float]:
    """Of one value a seed; the standard deviation is the sample's, and 0 for a single seed."""
    values = values.double()
    return float(values.mean()), float(values.std()) if len(values) > 1 else 0.0


def _spread(values: Tensor, form: str) -> str:
    mean, std = mean_and_std(values)
    return f"{mean:{form}} ± {std:{form}}"


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, one thread of {os.cpu_count()} cores"
