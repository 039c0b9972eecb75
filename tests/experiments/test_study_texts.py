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
    (sentence,) = texts.difference("KID", "DAT", Runs((1.0, 3.0)), "none", Runs((2.0, 6.0)))
    assert sentence == (
        "KID: 2.00 ± 1.41 (2 runs) with DAT, 50% lower than 4.00 ± 2.83 (2 runs) with none; the difference is 0.9 "
        "times its standard error."
    )
    (sentence,) = texts.difference("FID", "DAT", Runs((30.0,)), "none", Runs((20.0,)))
    assert (
        sentence
        == "FID: 30.0 with DAT, 50% higher than 20.0 with none; single runs, so the spread is unknown."
    )
    (sentence,) = texts.difference("FID", "DAT", Runs((249.0,)), "none", Runs((250.0,)))
    assert "0.4% lower" in sentence
    (sentence,) = texts.difference("FID", "DAT", Runs((3.0,)), "none", Runs((3.0,)))
    assert sentence == "FID: 3.00 with DAT, equal to 3.00 with none."


def test_numbers_have_three_significant_digits_so_that_what_differs_prints_differently() -> None:
    (sentence,) = texts.difference("KID", "DAT", Runs((0.001, 0.002)), "none", Runs((0.0012, 0.003)))
    assert (
        "0.00150 ± 0.00071 (2 runs) with DAT, 29% lower than 0.00210 ± 0.00127 (2 runs) with none" in sentence
    )
    assert [texts.number(Runs((value,))) for value in (1234.5, 99.96, 9.996, 0.0, -0.02345)] == [
        "1,234", "100", "10.0", "0.00", "-0.0234",
    ]  # fmt: skip
    assert texts.number(Runs((250.0, 250.25))) == "250.1 ± 0.2 (2 runs)"  # not "250 ± 0"
    assert texts.number(Runs((0.5, -0.5))) == "0.00 ± 0.71 (2 runs)"


def test_numbers_that_print_alike_are_not_compared() -> None:
    (sentence,) = texts.difference("KID", "DAT", Runs((0.12345,)), "none", Runs((0.12346,)))
    assert sentence == "KID: 0.123 with DAT, equal to 0.123 with none."
    (sentence,) = texts.difference("KID", "DAT", Runs((24.949999,)), "none", Runs((24.950001,)))
    assert "24.9 with DAT, less than 0.1% lower than 25.0 with none" in sentence
    assert texts.alike(Runs((250.1,)), Runs((250.2,)))
    assert not texts.alike(Runs((250.1, 250.2)), Runs((251.0,)))


def test_a_difference_needs_both_sides_unless_one_diverged() -> None:
    assert list(texts.difference("FID", "DAT", Runs((3.0,)), "none", None)) == []
    (sentence,) = texts.difference("FID", "DAT", Runs((3.0,)), "none", "diverged")
    assert sentence == "FID: 3.00 with DAT, diverged with none."


def test_a_ranking_compares_all_arms_with_one_in_the_order_of_their_means() -> None:
    # As above: the standard error of means 2 and 4 is sqrt(5).
    others = {
        "DAT": Runs((30.0,)),
        "R1": Runs((1.0, 3.0)),
        "GP": "diverged",
        "LP": None,
        "same": Runs((4.0,)),
    }
    (sentence,) = texts.ranking("KID", others, "none", Runs((2.0, 6.0)))
    assert sentence == (
        "KID: 4.00 ± 2.83 (2 runs) with none; 2.00 ± 1.41 (2 runs) with R1 (50% lower, 0.9 standard errors); 4.00 with "
        "same (equal); 30.0 with DAT (650% higher); diverged with GP."
    )
    (sentence,) = texts.ranking("KID", {"DAT": Runs((3.0,)), "R1": Runs((1.0,))}, "none", Runs((2.0,)))
    assert sentence == (
        "KID: 2.00 with none; 1.00 with R1 (50% lower); 3.00 with DAT (50% higher). Single runs, so the spread is "
        "unknown."
    )


def test_a_ranking_needs_both_sides_unless_one_diverged() -> None:
    assert list(texts.ranking("FID", {"DAT": Runs((3.0,))}, "none", None)) == []
    assert list(texts.ranking("FID", {"DAT": None}, "none", Runs((3.0,)))) == []
    (sentence,) = texts.ranking("FID", {"DAT": Runs((3.0, 3.5))}, "none", "diverged")
    assert sentence == "FID: diverged with none; 3.25 ± 0.35 (2 runs) with DAT."


def test_divergences_are_counted_only_where_there_are_some() -> None:
    well = {"a": (ended("a", []),)}
    assert list(texts.divergences(well)) == []
    (table,) = texts.divergences(well | {"b": (ended("b", [], diverged=True), ended("b", [], 1))})
    assert [(row.label, dict(row.cells)) for row in table.rows] == [("b", {"runs": "1 of 2"})]
    assert table.title == "Runs that NaN or infinity ended; no mean contains them"
    (table,) = texts.divergences({"b": (ended("b", [], diverged=True),)}, best=True)
    assert "the means at the best step contain them" in table.title


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
    assert list(record["computed"]) == ["precision", "channels_last", "cudnn_benchmark"]
    settings = json.loads(json.dumps(texts.settings([tiny_arm("a", data="/home/someone/cifar")], 2)))
    assert settings["seeds"] == [0, 1]
    assert settings["arms"]["a"]["batch_size"] == 4
    assert "someone" not in json.dumps(settings)
