"""What experiments on images say: commands, comparisons in words, records of all runs."""

from __future__ import annotations

import json

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.outcome import Runs
from tests.experiments.image_runs import ended, score, tiny_arm


def test_the_command_repeats_the_experiment_without_naming_the_users_folder() -> None:
    options = Options(quick=False, data="/home/someone/cifar", only=("LR 1e-3", "dat"), compile=False)
    assert texts.command("fig4", options, 3) == (
        "fastdat reproduce fig4 --full --seeds 3 --data FOLDER --only 'LR 1e-3' --only dat --no-compile"
    )
    assert texts.command("fig4", Options(), 1) == "fastdat reproduce fig4 --quick --seeds 1"


def test_a_difference_in_words_with_its_standard_error() -> None:
    # Means 2 and 4, deviations sqrt(2) and sqrt(8): standard error sqrt(2/2 + 8/2) = sqrt(5); 2 / sqrt(5) = 0.89.
    (sentence,) = texts.difference("KID", "DAT", Runs((1.0, 3.0)), "none", Runs((2.0, 6.0)), digits=1)
    assert sentence == (
        "KID: 2.0 ± 1.4 (2 runs) with DAT, 50% lower than 4.0 ± 2.8 (2 runs) with none; the difference is 0.9 times "
        "its standard error."
    )
    (sentence,) = texts.difference("FID", "DAT", Runs((30.0,)), "none", Runs((20.0,)))
    assert (
        sentence
        == "FID: 30.00 with DAT, 50% higher than 20.00 with none; single runs, so the spread is unknown."
    )
    (sentence,) = texts.difference("FID", "DAT", Runs((249.0,)), "none", Runs((250.0,)))
    assert "0.4% lower" in sentence
    (sentence,) = texts.difference("FID", "DAT", Runs((3.0,)), "none", Runs((3.0,)))
    assert "3.00 with DAT, beside 3.00 with none" in sentence


def test_a_difference_needs_both_sides_unless_one_diverged() -> None:
    assert list(texts.difference("FID", "DAT", Runs((3.0,)), "none", None)) == []
    (sentence,) = texts.difference("FID", "DAT", Runs((3.0,)), "none", "diverged")
    assert sentence == "FID: 3.00 with DAT, diverged with none."


def test_divergences_are_counted_only_where_there_are_some() -> None:
    well = {"a": (ended("a", []),)}
    assert list(texts.divergences(well)) == []
    (table,) = texts.divergences(well | {"b": (ended("b", [], diverged=True), ended("b", [], 1))})
    assert [(row.label, dict(row.cells)) for row in table.rows] == [("b", {"runs": "1 of 2"})]


def test_records_hold_all_scores_and_settings_but_no_place() -> None:
    runs = {"a": (ended("a", [score(2, kid=0.5), score(4, kid=0.25)]),)}
    (record,) = json.loads(json.dumps(texts.details(runs)))["runs"]
    assert (record["arm"], record["seed"], record["folder"], record["diverged"]) == (
        "a",
        0,
        "nowhere/a",
        False,
    )
    assert [line["scores"] for line in record["scores"]] == [{"kid": 0.5}, {"kid": 0.25}]
    settings = json.loads(json.dumps(texts.settings([tiny_arm("a", data="/home/someone/cifar")], 2)))
    assert settings["seeds"] == [0, 1]
    assert settings["arms"]["a"]["batch_size"] == 4
    assert "someone" not in json.dumps(settings)


def test_seconds_are_those_of_all_runs_with_the_scores_after_their_last_line() -> None:
    # The last line of stats.jsonl is of step 3, after 7 s: the scores of step 2 are in it, those of step 4 are not.
    scores = [score(2, kid=0.5) | {"seconds": 100.0}, score(4, kid=0.5) | {"seconds": 1.5}]
    assert texts.seconds({"a": (ended("a", scores), ended("a", [], 1))}) == 7.0 + 1.5 + 7.0
