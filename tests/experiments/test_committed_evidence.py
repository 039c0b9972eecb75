"""The committed evidence: its runs were trained by the protocol and after it, and its pages follow from them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from fastdat.experiments.catalogue import Options
from fastdat.experiments.evidence import protocol
from fastdat.experiments.evidence.curve_numbers import curve
from fastdat.experiments.evidence.curve_study import CurveStudy
from fastdat.experiments.evidence.curve_tables import findings, scores
from fastdat.experiments.evidence.finished_runs import FinishedRuns, check_scored_alike
from fastdat.experiments.evidence.run_cost import COST
from fastdat.experiments.images.study_texts import Found
from fastdat.experiments.keep_results import FINISHED
from fastdat.experiments.outcome import ResultTable, Runs
from tests.environment import REPOSITORY

KEPT = REPOSITORY / "bench/results/reproduce"
PROTOCOL = "16b91887e1e9ad99a77f219a32232d181e3b1378"
"""The commit that fixed the protocol."""
STUDIES = [study for study in protocol.STUDIES if (KEPT / FINISHED / study.name).exists()]
"""Studies with committed runs."""
PAGES = [study for study in STUDIES if (KEPT / f"{study.name}.json").exists()]
FULL = Options(quick=False)


def runs(study: CurveStudy) -> Found:
    """The committed runs; reading them refuses other settings than those of the protocol."""
    finished = FinishedRuns(KEPT / FINISHED / study.name)
    found = {arm.name: [finished.read(arm, seed) for seed in range(study.seeds)] for arm in study.arms(FULL)}
    return {name: [run for run in of_arm if run is not None] for name, of_arm in found.items()}


def test_all_committed_runs_are_of_a_study_of_the_protocol() -> None:
    assert {folder.name for folder in (KEPT / FINISHED).iterdir()} == {study.name for study in STUDIES}
    assert protocol.DCGAN in PAGES


def cells(table: ResultTable) -> dict[str, dict[str, Any]]:
    return {
        row.label: {key: v.values if isinstance(v, Runs) else v for key, v in row.cells.items()}
        for row in table.rows
    }


@pytest.mark.parametrize("study", PAGES, ids=lambda study: study.name)
def test_the_page_follows_from_the_runs(study: CurveStudy) -> None:
    """If this fails: `fastdat reproduce NAME --full` with the committed runs in its `finished` writes it again."""
    found, page = runs(study), json.loads((KEPT / f"{study.name}.json").read_text())
    assert {name: len(of_arm) for name, of_arm in found.items()} == dict.fromkeys(found, study.seeds)
    assert list(findings(found, study.groups)) == page["findings"]
    written = {
        row["label"]: {
            key: tuple(v["values"]) if isinstance(v, dict) else v for key, v in row["cells"].items()
        }
        for row in page["tables"][0]["rows"]
    }
    assert cells(scores(found, study.groups)) == written
    assert not page["quick"]


def in_history(commit: str) -> bool:
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_runs_came_after_the_protocol(study: CurveStudy) -> None:
    all_after_the_protocol(
        {commit for of_arm in runs(study).values() for run in of_arm for commit in run.origin.commits}
    )


def test_the_runs_on_points_came_after_the_protocol() -> None:
    all_after_the_protocol(set(json.loads((KEPT / "evidence-points.json").read_text())["trained_at"]))


def all_after_the_protocol(trained_at: set[str]) -> None:
    assert trained_at
    if not in_history(PROTOCOL):
        pytest.skip("the history of the repository is not here")
    for commit in trained_at:
        assert in_history(commit), f"{commit} is no commit of this repository"
        command = ["git", "merge-base", "--is-ancestor", PROTOCOL, commit]
        after = subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0
        assert after, f"{commit} is not after the protocol"


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_all_committed_runs_are_those_of_the_protocol(study: CurveStudy) -> None:
    found = [run for of_arm in runs(study).values() for run in of_arm]
    check_scored_alike(found)
    names = {file.name for file in (KEPT / FINISHED / study.name).glob("*.json")}
    assert {f"{run.folder.name}.json" for run in found} == names - {COST}
    for run in found:
        planned = [run.config.steps * k // 10 for k in range(1, 11)]
        scored = sorted(curve(run))
        assert scored == (planned[: len(scored)] if run.diverged else planned)
        assert run.config.compile
