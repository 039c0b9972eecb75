"""What the report says of regularizers and of other attacks than DAT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastdat.report.groups import differing_settings, group_runs, training_settings
from fastdat.report.runs import read_runs
from fastdat.report.summary_section import attack, regularizers
from fastdat.training import TrainConfig, preset
from fastdat.util.term_names import is_of_term, of_term, term_of
from tests.report.runs import make_run, read_run, stats
from tests.report.test_page import report

R1: dict[str, Any] = {"name": "r1", "gamma": 1, "every": 16}
LECAM: dict[str, Any] = {"name": "lecam"}


def configured(**changes: Any) -> dict[str, Any]:
    """Entries of config.yaml, as a run records them."""
    return preset("sngan-dat-cifar10").replace({"steps": 100} | changes).to_dict()


def test_names_of_measurements() -> None:
    for name in ("r1", "0gp", "gradient_penalty", "r1-2"):
        for norm in (False, True):
            key = of_term(f"{name}.grad_norm" if norm else name)
            assert is_of_term(key)
            assert term_of(key) == (name, norm)
    assert of_term("r1.grad_norm") == "term_r1_grad_norm"
    assert not is_of_term("grad_norm_real")


def test_each_term_has_its_curves(tmp_path: Path) -> None:
    """Of its value, and of its gradient norm where it has one; a lazy one is in some lines only."""
    paths = [
        make_run(tmp_path / name, config=configured(regularizers=[R1, LECAM]), grids=0) for name in ("a", "b")
    ]
    lines = [stats(step) | {"term_lecam": 0.25, "mine": 7.0} for step in (1, 2, 3, 4)]
    for line in lines[::2]:
        line |= {"term_r1": 0.5 * line["step"], "term_r1_grad_norm": 2.0}
    (paths[0] / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(tmp_path, *paths)
    charts = [str(svg["aria-label"]) for svg in page.find("svg", role="img")]
    titles = [label.split(" over G steps")[0] for label in charts]
    expected = [
        "lecam: value (weight times value)",
        "r1: value (weight times value)",
        "r1: gradient norm (mean ‖∂D/∂x‖₂, 1 / unit of data)",
    ]
    first = titles.index(expected[0])
    assert titles[first : first + 3] == expected
    assert titles[first - 1].startswith("Objective of D lowered by the attack")
    assert titles[first + 3].startswith("Speed")
    assert titles[-1] == "mine (value)"
    assert "a from 0.5 to 1.5, least 0.5, greatest 1.5." in charts[first + 1]
    assert "Regularizers" in page.text


@pytest.mark.parametrize(
    ("changes", "of_attack", "of_terms"),
    [
        ({}, "DAT on real and fake, eps 1.0, 1 step, first order", "none"),
        (
            {"regularizers": [R1, LECAM]},
            "DAT on real and fake, eps 1.0, 1 step, first order",
            "r1 (gamma 1.0, every 16), lecam (weight 0.3, decay 0.99, start 1000)",
        ),
        (
            {"attack": {"name": "robgan", "steps": 3}, "regularizers": [{"name": "ar", "batch": None}]},
            "robgan (eps 0.0625, step 0.0078125, steps 3)",
            "ar (of logits, weight 10.0, eps 0.0001)",
        ),
        ({"attack": {"name": "asgan", "clean_weight": 1}}, "asgan (clean_weight 1.0)", "none"),
        ({"dat.real": False, "dat.fake": False, "regularizers": [{"name": "r2"}]}, "none", "r2 (gamma 10.0)"),
    ],
)
def test_summary(tmp_path: Path, changes: dict[str, Any], of_attack: str, of_terms: str) -> None:
    paths = [make_run(tmp_path / "this", config=configured(**changes)), make_run(tmp_path / "other")]
    run, _ = read_runs(paths)
    assert (attack(run), regularizers(run)) == (of_attack, of_terms)
    page = report(tmp_path, *paths)
    assert page.row("The runs side by side", "Attack")[0] == of_attack
    rows = [row[0] for row in page.table("The runs side by side")]
    assert ("Regularizers" in rows) == ("regularizers" in changes)
    if "regularizers" in changes:
        assert page.row("The runs side by side", "Regularizers") == [of_terms, "none"]


def test_a_damaged_list_is_no_error(tmp_path: Path) -> None:
    for i, listed in enumerate(("r1", [3, {"gamma": 1}, {"name": "gp"}], None)):
        (run,) = read_runs([make_run(tmp_path / str(i), config={"regularizers": listed})])
        assert regularizers(run) == ("gp" if i == 1 else "none")


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"regularizers": [R1, LECAM]}, None),
        ({"regularizers": []}, "regularizers"),
        ({"regularizers": [LECAM, R1]}, "regularizers"),
        ({"regularizers": [R1 | {"gamma": 2}, LECAM]}, "regularizers"),
        ({"attack": {"name": "asgan"}}, "attack.name"),
        ({"loss": "rpgan"}, "loss"),
        ({"lr_decay": "none", "cosine.lr": 1e-5}, "cosine.lr"),
        ({"cosine.regularizers": 0}, "cosine.regularizers"),
    ],
)
def test_other_regularizers_make_another_group(
    tmp_path: Path, change: dict[str, Any], differs: str | None
) -> None:
    base = {"regularizers": [R1, LECAM]}
    paths = [
        make_run(tmp_path / str(i), config=configured(**base | more), steps=0, grids=0)
        for i, more in enumerate(({"seed": 0}, {"seed": 1} | change))
    ]
    runs = read_runs(paths)
    assert (len(group_runs(runs)) == 1) == (differs is None)
    assert (differs is None) or differs in differing_settings(runs)


def test_runs_of_before_are_those_without_any(tmp_path: Path) -> None:
    """A version without these settings recorded nothing of them."""
    old = preset("sngan-dat-cifar10").to_dict()
    new_settings = ("regularizers", "attack", "cosine")
    run = read_run(tmp_path)
    assert not any(key.partition(".")[0] in new_settings for key in training_settings(run))
    before = {key: value for key, value in old.items() if key not in new_settings}
    assert TrainConfig.from_dict(before) == preset("sngan-dat-cifar10")


@pytest.mark.parametrize(("cosine", "same"), [({"lr": 1e-5}, False), ({"lr": 1e-5, "steps": 90}, True)])
def test_steps_matter_where_a_cosine_ends_with_the_run(
    tmp_path: Path, cosine: dict[str, Any], same: bool
) -> None:
    settings = {"lr_decay": "none", "cosine": cosine}
    paths = [
        make_run(tmp_path / str(steps), config=configured(**settings, steps=steps), steps=0, grids=0)
        for steps in (100, 200)
    ]
    assert (len(group_runs(read_runs(paths))) == 1) is same
