"""Training and measuring the arms of a comparison."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastdat.experiments.points.ensemble import Ensemble
from fastdat.experiments.points.fig3 import Fig3Config
from fastdat.experiments.points.mixture_study import SHOWN, run_study
from fastdat.util.errors import NonFiniteError

CPU = torch.device("cpu")


def test_points_are_kept_at_checkpoints() -> None:
    study = Fig3Config(iterations=6, seeds=2).study
    result = run_study(study, CPU, compile=False)
    assert [arm.name for arm in result.arms] == list(study.arms)
    for arm in result.arms:
        assert arm.members == 4
        kept = {m.iteration: m.points.shape for m in arm.measurements if m.points is not None}
        assert kept == dict.fromkeys((2, 4, 6), (2, SHOWN, 2))
        assert arm.at(4).coverage["balanced"].modes.shape == (2,)


def test_divergence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ensemble, "sample", lambda self, count: torch.full((2, 2, count, 2), torch.nan))
    with pytest.raises(NonFiniteError, match="no attack: G gives NaN or infinity after 1 "):
        run_study(Fig3Config(iterations=6, seeds=2).study, CPU, compile=False)


def test_study_runs_where_nothing_compiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", no_compiler)
    result = run_study(Fig3Config(iterations=1, seeds=1).study, CPU, compile=True)
    assert not result.compiled
    assert "torch.compile does not work here (no C++ compiler)" in capsys.readouterr().out
