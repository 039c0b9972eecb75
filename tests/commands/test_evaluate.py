"""`fastdat eval`."""

from __future__ import annotations

from pathlib import Path

from tests.commands.command_line import invoke
from tests.training.runs import read_scores


def test_eval_repeats_the_score_of_the_last_step(run: Path) -> None:
    before = read_scores(run)
    code, out, err = invoke("eval", run)
    assert code == 0
    summary = "kid by means: 20 fakes against up to 30 reals of train and test, seed 0"
    assert f"scoring latest of {run} (G, step 4): {summary} (settings of the run; given now: none)" in err
    assert "fakes: 20 of 20 (100%)" in err
    assert out.count("[means]") == 2
    after = read_scores(run)
    assert after[: len(before)] == before
    for old, new in zip(before[-1:], after[-1:], strict=True):
        assert (old["step"], old["scores"]) == (new["step"], new["scores"])


def test_eval_with_other_settings(run: Path) -> None:
    code, _, err = invoke(
        "eval",
        run,
        "--checkpoint",
        "best",
        "--splits",
        "test",
        "--metrics",
        "fid, precision-recall",
        "--fakes",
        10,
        "--seed",
        3,
        "--device",
        "cpu",
    )
    assert code == 0
    assert "fid, precision-recall by means: 10 fakes against up to 30 reals of test, seed 3" in err
    assert "given now: metrics, splits, fakes, seed)" in err
    last = read_scores(run)[-1]
    assert (last["split"], list(last["scores"]), last["fake_count"], last["seed"]) == (
        "test",
        ["fid", "precision", "recall"],
        10,
        3,
    )
    assert last["real_count"] == 30, "as in the run's own settings"


def test_eval_refuses(run: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        code, _, err = invoke("eval", *arguments)
        assert code == 2
        return err

    assert "is no run folder: it has no config.yaml" in message(tmp_path)
    assert "there is no checkpoint" in message(run, "--checkpoint", tmp_path / "x.pt")
    assert "--metrics must be a list [a, b, ...], each one of fid, " in message(run, "--metrics", "sfid")
    assert "remove it from --metrics" in message(run, "--metrics", "is", "--fakes", 10)
    assert "eval.kid_subset_size=40, but there are 30 fakes" in message(
        run, "--fakes", 30, "--set", "eval.kid_subset_size=40"
    )
    assert "must be a setting of the scores, eval.*; got lr" in message(run, "--set", "lr=1")
    assert "does not exist" in message(run, "--data", tmp_path / "nowhere", "--fakes", 4)
    (run / "checkpoints" / "best.pt").unlink()
    assert "has no best checkpoint" in message(run, "--checkpoint", "best")
