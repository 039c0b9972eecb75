"""The plan as JSON: what is planned, what is kept of it, and how two plans are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bench.environment import RESULTS
from bench.gpu_plan import launches as model
from bench.gpu_plan.launches import Launch
from bench.gpu_plan.pretended_gpu import H200
from bench.step.workloads import DAT, DAT_SECOND_ORDER, PLAIN, Workload
from fastdat import DATConfig
from fastdat.training import TrainConfig
from fastdat.training.presets import preset
from fastdat.util.provenance import commit_info, versions

COMMITTED = RESULTS / "gpu-plan.json"

NETS = {"sngan32": ("SNGAN-32", 32), "sngan64": ("SNGAN-64", 64)}
"""Name on the command line -> (name in tables, resolution)."""

VARIANTS = {
    "plain": ("SNGAN", PLAIN),
    "dat": ("DAT", DAT),
    "dat2": ("DAT second order", DAT_SECOND_ORDER),
    "official": ("DAT official", DATConfig.official()),
}
"""Name on the command line -> (name in tables, configuration of the step)."""

_DAT_RUN = preset("sngan-dat-cifar10")

ITERATIONS = {
    "plain": ("SNGAN", preset("sngan-cifar10")),
    "dat": ("DAT", _DAT_RUN),
    "average": ("DAT, average of G", _DAT_RUN.replace({"ema": 0.9999})),
}
"""Name on the command line -> (name in tables, settings of the run)."""

MODES = ("default", "reduce-overhead")
"""Modes of torch.compile that time no kernels on the device."""

TOLERANCE = 0.02
"""Relative difference from the committed file that is allowed in launches and in model time."""


def document(plans: dict[str, dict[str, Any]], iterations: dict[str, Any]) -> dict[str, Any]:
    """The JSON: plans of steps by net and variant, plans of iterations by name, with their origin. It names no host and
    no path."""
    return {
        "versions": plan_versions(),
        "commit": commit_info(),
        "device": f"{H200.name}, pretended",
        "model": model.MODEL,
        "plans": plans,
        "iterations": iterations,
    }


def plan_versions() -> dict[str, str | None]:
    """Versions of fastdat and of everything that writes the code."""
    import triton

    return {**versions(), "cuda": torch.version.cuda, "triton": str(triton.__version__)}


def summary(workload: Workload, mode: str, launches: list[Launch]) -> dict[str, Any]:
    """The plan of one step, for the JSON."""
    return {
        "batch": workload.batch,
        "dtype": str(workload.amp or torch.float32).removeprefix("torch."),
        "layout": str(workload.memory_format).removeprefix("torch."),
        "mode": mode,
        **_totals(launches),
    }


def iteration_summary(config: TrainConfig, launches: list[Launch]) -> dict[str, Any]:
    """The plan of one iteration, for the JSON. Nothing is "auto" in ``config``."""
    return {
        "batch": config.batch_size,
        "n_dis": config.n_dis,
        "dtype": {"bf16": "bfloat16", "fp32": "float32"}[config.precision],
        "layout": "channels_last" if config.channels_last else "contiguous_format",
        **_totals(launches),
        "parts": {part: of_part.summary() for part, of_part in model.by_part(launches).items()},
    }


def _totals(launches: list[Launch]) -> dict[str, Any]:
    total = model.total(launches).summary()
    return {
        "launches": total["launches"],
        "bytes": total["bytes"],
        "flops": total["flops"],
        "model_us": total["us"],
        "kinds": {kind: of_kind.summary() for kind, of_kind in model.by_kind(launches).items()},
    }


def differences(found: dict[str, Any], committed: dict[str, Any]) -> list[str]:
    """A line for each plan of ``found`` whose launches or model time differ from ``committed`` by more than TOLERANCE.

    A decrease is reported as well as an increase: a gain that is not committed could be lost again unnoticed.
    """
    lines = []
    before = dict(_by_name(committed))
    for name, plan in _by_name(found):
        if name not in before:
            lines.append(f"{name}: not in the committed file")
            continue
        for what in ("launches", "model_us"):
            change = plan[what] / before[name][what] - 1
            if abs(change) > TOLERANCE:
                lines.append(f"{name}: {what} {before[name][what]} -> {plan[what]} ({change:+.1%})")
    return lines


def _by_name(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for net, variants in document["plans"].items():
        for variant, plan in variants.items():
            yield f"{net}, {variant}", plan
    for name, plan in document["iterations"].items():
        yield f"iteration, {name}", plan
