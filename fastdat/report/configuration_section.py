"""The section "Configuration": the settings of all runs, with one column per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastdat.report.cells import Cell, Row, Table, run_columns, setting_text
from fastdat.report.runs import RunRecord, without_beginning


@dataclass(frozen=True)
class Configuration:
    """What ``templates/configuration.html`` shows.

    Args:
        everything: all settings; those that differ between runs are highlighted.
        differing: only the settings that differ; None if no setting does, as for a single run.
        several: whether there are runs to compare.
    """

    everything: Table
    differing: Table | None
    several: bool


def configuration(runs: Sequence[RunRecord]) -> Configuration:
    """The settings of ``runs``. Of absolute paths the whole is compared, and the end is shown."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    values = {
        key: [setting_text(run.config[key]) if key in run.config else "not set" for run in runs]
        for key in keys
    }
    differing = [key for key in keys if len(set(values[key])) > 1]

    def table(caption: str, chosen: Sequence[str]) -> Table:
        rows = [
            Row(
                Cell(key),
                [Cell(without_beginning(value)) for value in values[key]],
                "differs" if key in differing else "",
            )
            for key in chosen
        ]
        return Table(Cell(caption), run_columns("Setting", runs), rows)

    return Configuration(
        everything=table("All settings (config.yaml)", keys),
        differing=table("Settings that differ", differing) if differing else None,
        several=len(runs) > 1,
    )
