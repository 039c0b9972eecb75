"""The sentences of the committed Fig. 3 are those that today's code makes of its measurements."""

from __future__ import annotations

import json
from typing import Any

import torch

from fastdat.experiments.points import fig3_outputs
from fastdat.experiments.points.fig3 import ARMS, Fig3Config
from fastdat.experiments.points.study import Arm, Measurement, StudyResult, Times
from fastdat.metrics.modes import Coverage
from tests.environment import REPOSITORY

RECORD: dict[str, Any] = json.loads((REPOSITORY / "bench/results/fig3/fig3.json").read_text())


def measurement(record: dict[str, Any], mixtures: list[str]) -> Measurement:
    found = {}
    for name in mixtures:
        values = {
            field: torch.tensor(record[name][field]["values"], dtype=torch.float64)
            for field in ("modes", "high_quality", "kl")
        }
        found[name] = Coverage(histogram=torch.tensor(record[name]["histogram"]), **values)
    return Measurement(record["iteration"], found, None)


def test_findings_of_the_committed_record() -> None:
    """If this fails: `fastdat reproduce fig3` with the folder of its states writes the files again, untrained."""
    settings = {name: RECORD["config"][name] for name in ("iterations", "seeds", "init")}
    study = Fig3Config(**settings).study
    assert list(RECORD["arms"]) == list(ARMS)
    mixtures = [mixture.name for mixture in study.mixtures]
    arms = tuple(
        Arm(
            name,
            ARMS[name],
            study.recipe,
            tuple(measurement(record, mixtures) for record in RECORD["arms"][name]["measurements"]),
            Times(),
        )
        for name in ARMS
    )
    result = StudyResult(study, True, torch.device("cpu"), arms, 0.0)
    assert list(fig3_outputs.findings(result)) == RECORD["findings"]
