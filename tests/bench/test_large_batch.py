"""The page on large batches: its numbers are those of the presets, the fit and the committed measurements."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from statistics import fmean

import pytest

from bench.environment import RESULTS
from bench.large_batch import RESULT, SEEDS, arms
from fastdat.training import preset
from fastdat.training.measured_sizes import shipped
from fastdat.training.size_fit import Errors, fitted, largest, left_out
from tests.environment import REPOSITORY

PAGE = " ".join((REPOSITORY / "docs" / "large_batch.md").read_text().split())
FOUND = json.loads((REPOSITORY / RESULTS / RESULT).read_text())


def test_the_table_is_that_of_the_presets() -> None:
    presets = [preset(f"sngan-dat-lsun-bedroom{end}") for end in ("", "-batch2048", "-batch8192")]
    steps = " | ".join(f"{config.steps:,}" for config in presets)
    assert f"as many images | {steps} |" in PAGE
    assert f"times sqrt(k) | {presets[0].lr:.0e} | ".replace("e-04", "e-4") in PAGE
    rates = [f"{config.lr:.2e}".replace("e-03", "e-3") for config in presets[1:]]
    assert " | ".join(rates) in PAGE
    assert {(c.dat.eps, c.dat.eps_batch, c.n_dis, c.betas, c.ema) for c in presets} == {
        (1, 64, 5, (0, 0.9), 0)
    }


def test_the_errors_of_the_plan() -> None:
    measured = [m.sized() for m in shipped() if m.captured]

    def without_a_net() -> Iterator[tuple[str, Errors]]:
        for net in ("cifar10", "lsun"):
            fit = fitted([m for m in measured if net not in m.name])
            for m in measured:
                if net in m.name:
                    memory = (fit.held(m.cost) + m.images) / m.held - 1
                    yield m.name, Errors(fit.seconds(m.cost) / m.seconds - 1, memory)

    said = re.search(
        r"wrong by at most ([\d.]+)% in time and ([\d.]+)% in memory.*?time is then wrong by at most ([\d.]+)%, memory "
        r"by at most ([\d.]+)%",
        PAGE,
    )
    assert said is not None
    one, net = largest(left_out(measured)), largest(dict(without_a_net()))
    for text, error in zip(said.groups(), (one.seconds, one.held, net.seconds, net.held), strict=True):
        assert float(text) == pytest.approx(100 * error, abs=0.051)
    assert "with eight sizes" in PAGE
    assert len(measured) == 8


def test_the_time_without_graphs() -> None:
    (uncaptured,) = [m for m in shipped() if not m.captured]
    results = json.loads((REPOSITORY / RESULTS / uncaptured.source.split(",")[0]).read_text())
    iterations = {
        b["name"]: b["extra_info"]["median_ms"]
        for b in results["benchmarks"]
        if b["name"].startswith("bench_iteration[")
    }
    captured = iterations["bench_iteration[fastdat DAT]"]
    assert 1e3 * uncaptured.seconds == iterations["bench_iteration[fastdat DAT, not captured]"]
    assert (
        f"{1e3 * uncaptured.seconds:.0f} ms where graphs need {captured:.0f} (`bench_iteration`, batch 64"
        in PAGE
    )


def test_points_in_large_batches() -> None:
    """What the page says of them, and that it was measured with these settings."""
    configs = dict(arms())
    assert FOUND["arms"].keys() == configs.keys()
    for name, arm in FOUND["arms"].items():
        config = configs[name]
        assert (arm["batch"], arm["steps"]) == (config.batch_size, config.steps)
        assert (arm["lr"], arm["eps_batch"]) == (config.lr, config.dat.eps_batch)
        assert f"| {name} | {arm['lr']:g} | {row(arm)} |" in PAGE
    small = json.loads((REPOSITORY / RESULTS / "laptop-recipe.json").read_text())["scores"]
    of_seeds = [small[f"points/dat-{seed}"] for seed in SEEDS]
    recipe = {key: [one[key] for one in of_seeds] for key in ("modes", "high_quality")}
    assert f"| batch 64 | 0.001 | {row(recipe)} |" in PAGE


def row(arm: dict[str, list[float]]) -> str:
    """The means over seeds, as the table has them."""
    assert len(arm["modes"]) == len(arm["high_quality"]) == len(SEEDS)
    return f"{fmean(arm['modes']):.2f} | {fmean(arm['high_quality']):.2f}"
