"""Makes run folders as `fastdat train` leaves them, with the numbers that a test needs, without training."""

import io
import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from fastdat.report.runs import RunRecord, read_runs
from fastdat.training import preset
from tests.training.runs import on_cpu

EXTRACTOR_SHA = "5eefa9b2" * 8


def make_run(
    path: Path,
    name: str = "sngan-dat-cifar10",
    *,
    config: dict[str, Any] | None = None,
    steps: int = 40,
    metrics: tuple[dict[str, Any], ...] = (),
    grids: int = 2,
) -> Path:
    """A run of a preset with a line of statistics for each of ``steps`` steps and a sample grid for every fifth."""
    settings = on_cpu(preset(name)).to_dict() | {"steps": 100} | (config or {})
    (path / "samples").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    write_lines(path / "stats.jsonl", [stats(step) for step in range(1, steps + 1)])
    if metrics:
        write_lines(path / "metrics.jsonl", metrics)
    for i in range(grids):
        (path / "samples" / f"step-{5 * i:06d}.png").write_bytes(png((10 * i % 256, 100, 200)))
    (path / "reals.png").write_bytes(png((200, 100, 0)))
    return path


def read_run(
    folder: Path,
    *metrics: dict[str, Any],
    name: str = "sngan-dat-cifar10",
    config: dict[str, Any] | None = None,
) -> RunRecord:
    """Make a run of the preset ``name`` with these lines of metrics.jsonl, and read it."""
    (run,) = read_runs([make_run(folder / name, name, config=config, metrics=metrics, grids=0)])
    return run


def stats(step: int) -> dict[str, float]:
    """A line of stats.jsonl."""
    return {
        "step": step,
        "seconds": 2.5 * step,
        "it_per_s": 0.4,
        "lr": 2e-4,
        "loss_d": 2 - step / 100,
        "loss_g": 0.5,
        "logits_real": 0.3,
        "logits_fake": -0.3,
        "clean_logits_real": 0.4,
        "clean_logits_fake": -0.4,
        "penalty_fraction": 0.125,
        "delta_rms_real": 1e-3,
        "delta_rms_fake": 2e-3,
        "grad_norm_real": 0.5,
        "grad_norm_fake": 0.25,
        "clipped_real": 0.02,
        "clipped_fake": 0.01,
    }


def scored(step: int, scores: dict[str, float | None], **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl: by Inception, with 50,000 images of each kind, unless ``changes`` say otherwise."""
    return {
        "step": step,
        "weights": "G",
        "split": "train",
        "scores": scores,
        "extractor": "inception-v3-compat",
        "extractor_sha256": EXTRACTOR_SHA,
        "resize": "none",
        "resolution": 32,
        "fake_count": 50_000,
        "real_count": 50_000,
        "seed": 0,
        "kid_subsets": 100,
        "kid_subset_size": 1000,
        "is_splits": 10,
        "data": "cifar10 train",
        "data_sha256": "0" * 64,
        "versions": {"fastdat": "0.1.0", "torch": "2.13.0"},
    } | changes


def write_lines(file: Path, records: Any) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def png(colour: tuple[int, int, int], size: tuple[int, int] = (70, 70)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "png")
    return content.getvalue()
