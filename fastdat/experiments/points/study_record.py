"""What a study found on Gaussian mixtures, in types that JSON knows, with its settings and the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastdat.experiments.points.study import MEASURED, Arm, Measurement, StudyResult
from fastdat.experiments.points.study_state import attack_record, recipe_record
from fastdat.metrics.modes import FOUND, NEAR
from fastdat.util.provenance import commit_info, machine_info


def as_dict(result: StudyResult, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, measurements and machine. ``config`` holds the experiment's settings."""
    settings = settings_as_dict(result)
    return {
        "experiment": result.study.name,
        "config": {**config, "recipe": settings.pop("recipe")},
        **settings,
        "arms": arms_as_dict(result),
        "seconds": round(result.seconds, 3),
        "machine": machine_info(),
        "commit": commit_info(),
    }


def mean_and_std(values: Tensor) -> tuple[float, float]:
    """Mean and sample standard deviation of ``values``, one per seed; the deviation of a single seed is 0."""
    values = values.double()
    return float(values.mean()), float(values.std()) if len(values) > 1 else 0.0


def settings_as_dict(result: StudyResult) -> dict[str, Any]:
    """What all arms have in common."""
    study = result.study
    recipe = recipe_record(study.recipe)
    del recipe["regularizers"]  # those of an arm stand there
    return {
        "iterations": study.iterations,
        "seeds": list(range(study.seeds)),
        "recipe": recipe,
        "compiled": result.compiled,
        "trained_on": _device_name(result.device),
        "mixtures": {
            m.name: {"means": m.means, "std": m.std, "probabilities": m.probabilities} for m in study.mixtures
        },
        "definitions": {"found_over_part_of_due": FOUND, "high_quality_within_std": NEAR, "points": MEASURED},
    }


def arms_as_dict(result: StudyResult) -> dict[str, Any]:
    """The measurements of each arm by its name, with its attack, its terms and what else is its own."""
    common = recipe_record(result.study.recipe)
    return {arm.name: _arm_as_dict(arm, common) for arm in result.arms}


def _arm_as_dict(arm: Arm, common: Mapping[str, Any]) -> dict[str, Any]:
    recipe = recipe_record(arm.recipe)
    terms = recipe.pop("regularizers")
    own = {name: value for name, value in recipe.items() if value != common[name]}
    return {
        "attack": attack_record(arm.attack),
        "regularizers": terms,
        **({"recipe": own} if own else {}),
        "commits": list(arm.origin.commits),
        "machines": list(arm.origin.machines),
        "first_iteration_seconds": round(arm.times.first, 3),
        "milliseconds_per_iteration": round(arm.milliseconds, 4),
        "measurements": [_measurement_as_dict(m) for m in arm.measurements],
    }


def _measurement_as_dict(measurement: Measurement) -> dict[str, Any]:
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


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, one thread of {os.cpu_count()} cores"
