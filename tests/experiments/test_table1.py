"""Table I beside the presets, and what is said where they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.experiments import table1
from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome_files import comma_separated, table_lines
from fastdat.experiments.paper_tables import TABLE_I
from fastdat.training import preset
from fastdat.training.train_config import TrainConfig


@pytest.fixture(scope="module")
def found() -> table1.Outcome:
    return table1.run(Options(), Path("nowhere"))


def test_ours_is_the_papers(found: table1.Outcome) -> None:
    settings = found.tables[0]
    assert [row.label for row in settings.rows] == [row.dataset for row in TABLE_I.values()]
    for row in settings.rows:
        assert len(row.paper) == 7
        assert {name: row.cells[name] for name in row.paper} == dict(row.paper)
        assert row.cells["decay policy"] == row.cells["paper: decay policy"]
    tiny = settings.rows[3]
    assert tiny.cells["decay policy"] == "none"
    assert (tiny.paper["resolution"], tiny.paper["n_iter"]) == (64, 100_000)
    assert found.findings == ("30 of 30 presets have the settings of Table I.",)


def test_sizes_of_nets(found: table1.Outcome) -> None:
    """SNGAN's at 32 pixels by hand: ResNets of width 256 (G) and 128 (D), whose convolutions have biases."""
    sizes = {row.label: row.cells for row in found.tables[1].rows}
    block = (
        2 * (9 * 256 * 256 + 256) + 2 * 2 * 256 + 256 * 256 + 256
    )  # two convolutions and norms, and the shortcut
    G = 129 * 4096 + 3 * block + 2 * 256 + 9 * 256 * 3 + 3
    first = 9 * 3 * 128 + 128 + 9 * 128 * 128 + 128 + 3 * 128 + 128
    second = 2 * (9 * 128 * 128 + 128) + 128 * 128 + 128
    D = first + second + 2 * 2 * (9 * 128 * 128 + 128) + 129
    assert (sizes["SNGAN, 32 px"]["G"], sizes["SNGAN, 32 px"]["D"]) == (G, D)
    assert sizes["SSGAN, 64 px"]["data sets"] == "Tiny-ImageNet, LSUN-Bedroom"
    assert len(sizes) == 9


def test_a_preset_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(name: str) -> TrainConfig:
        config = preset(name)
        return config.replace({"n_dis": 1, "lr_decay": "none"}) if name == "ssgan-dat-stl10" else config

    monkeypatch.setattr(table1, "preset", changed)
    monkeypatch.setattr(table1, "build_nets", lambda config: ())
    monkeypatch.setattr(table1, "_size_table", lambda compared: table1.ResultTable("", "", (), ()))
    (said,) = table1.run(Options(), Path("nowhere")).findings
    assert said == (
        "29 of 30 presets have the settings of Table I. Others: ssgan-dat-stl10 (decay policy, n_dis)."
    )


def test_it_can_be_written(found: table1.Outcome) -> None:
    from fastdat.experiments.outcome_files import as_record

    record = as_record(found)
    (row,) = [line for line in table_lines(record["tables"][0]) if line.startswith("| Tiny")]
    assert row.startswith("| Tiny-ImageNet | 64 | 64 | 0.0002 | 0.0 | 0.9 | 5 | 100,000 | none | none | 64 |")
    assert "resolution,48,,,48" in comma_separated(record)
