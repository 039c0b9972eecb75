"""The files of an outcome: NAME.json with everything, NAME.md and NAME.csv with its tables, figures as PNG and SVG."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fastdat.experiments.outcome import Outcome, ResultTable, Runs, Value
from fastdat.util import plain_json
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically
from fastdat.util.provenance import commit_in_words, commit_info, machine_info, short_commit

PICTURE_DPI = 150
Record = dict[str, Any]
"""The content of NAME.json, of which the other texts are made."""


def write(outcome: Outcome, folder: Path, *, further: Mapping[str, Any] | None = None) -> list[Path]:
    """Write all files of ``outcome`` into ``folder``, which is made if it is missing.

    Args:
        outcome: what was found.
        folder: of the files.
        further: entries that the JSON holds beside those of :func:`as_record`, in types that JSON knows.

    Returns:
        The files.

    Raises:
        RunFolderError: they cannot be written.
    """
    record = as_record(outcome)
    files = {
        f"{outcome.name}.json": (
            json.dumps({**record, **(further or {})}, indent=1, allow_nan=False) + "\n"
        ).encode(),
        f"{outcome.name}.md": markdown(record).encode(),
        f"{outcome.name}.csv": comma_separated(record).encode(),
    }
    for end, figure in outcome.figures.items():
        for kind in ("png", "svg"):
            files[f"{outcome.name}{end}.{kind}"] = _picture(figure, kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise RunFolderError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [folder / name for name in files]


def check_length(name: str, folder: Path, *, quick: bool) -> None:
    """Refuse a folder with the page of a run of the other length, before anything is trained: it would be replaced.

    Raises:
        RunFolderError: the page is one of a scaled-down run and ``quick`` is false, or the reverse.
    """
    file = folder / f"{name}.json"
    try:
        was_quick = plain_json.loads(file.read_bytes())["quick"]
    except (OSError, ValueError, TypeError, KeyError):  # no page, or none that says it
        return
    if isinstance(was_quick, bool) and was_quick != quick:
        lengths = {True: "scaled-down", False: "full"}
        raise RunFolderError(
            f"{file} is of a {lengths[was_quick]} run, and a {lengths[quick]} one would replace it: give another "
            "--outdir, or remove it"
        )


def as_record(outcome: Outcome) -> Record:
    """``outcome`` in types that JSON knows, with machine and commit."""
    return {
        "experiment": outcome.name,
        "title": outcome.title,
        "quick": outcome.quick,
        "command": outcome.command,
        "findings": list(outcome.findings),
        "protocol": list(outcome.protocol),
        "notes": list(outcome.notes),
        "tables": [_table_record(table) for table in outcome.tables],
        "figures": [f"{outcome.name}{end}.png" for end in outcome.figures],
        "config": dict(outcome.config),
        "seconds": round(outcome.seconds, 1),
        "machine": machine_info(),
        "commit": commit_info(),
        "trained_at": list(outcome.origin.commits),
        "training_machines": list(outcome.origin.machines),
        "details": dict(outcome.details),
    }


def markdown(record: Record, level: int = 1, folder: str = "") -> str:
    """The page of an experiment.

    Args:
        record: the content of its JSON.
        level: of its heading.
        folder: where its pictures lie, from the page.
    """
    return "\n".join(_page(record, level, folder)) + "\n"


def comma_separated(record: Record) -> str:
    """All tables below each other, one line for each cell: table, row, column, mean, std, n, paper."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "column", "mean", "std", "n", "paper"])
    for table in record["tables"]:
        for row in table["rows"]:
            ours, papers = row["cells"], row["paper"]
            for column in dict.fromkeys([*_names(table["columns"]), *_names(table["paper_columns"])]):
                cell, paper = ours.get(column), papers.get(column)
                if cell is None and paper is None:
                    continue
                of_runs = (
                    (cell["mean"], cell["std"], cell["n"]) if isinstance(cell, dict) else (cell, None, None)
                )
                writer.writerow([table["title"], row["label"], column, *of_runs, paper])
    return text.getvalue()


# --- records of tables -----------------------------------------------------------------------------------------------


def _table_record(table: ResultTable) -> Record:
    return {
        "title": table.title,
        "head": table.head,
        "comparable": table.comparable,
        "columns": [{"name": c.name, "digits": c.digits} for c in table.columns],
        "paper_columns": [{"name": c.name, "digits": c.digits} for c in table.paper_columns],
        "rows": [
            {
                "label": row.label,
                "cells": {name: _value_record(value) for name, value in row.cells.items()},
                "paper": dict(row.paper),
            }
            for row in table.rows
        ],
    }


def _value_record(value: Value) -> Any:
    if isinstance(value, Runs):
        return {"mean": value.mean, "std": value.std, "n": len(value.values), "values": list(value.values)}
    return value


# --- the page --------------------------------------------------------------------------------------------------------


def _page(record: Record, level: int, folder: str) -> Iterator[str]:
    yield f"{'#' * level} {record['title']}"
    if record["findings"]:
        first, *others = record["findings"]
        yield ""
        yield f"**{first}**"
        if others:
            yield ""
            yield from (f"- {finding}" for finding in others)
    for picture in record["figures"]:
        yield ""
        yield f"![{record['title']}]({folder}{picture})"
    for table in record["tables"]:
        yield ""
        yield from table_lines(table)
    for paragraph in record["protocol"]:
        yield ""
        yield paragraph
    if record["notes"]:
        yield ""
        yield from (f"- {note}" for note in record["notes"])
    yield ""
    yield f"    {record['command']}"
    yield ""
    yield _origin(record)


def table_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """One table of a record: our columns, the paper's, and their differences where they are comparable."""
    ours, papers = table["columns"], table["paper_columns"]
    names = set(_names(ours))
    compared = [c for c in papers if c["name"] in names] if table["comparable"] else []
    yield f"{table['title']}:"
    yield ""
    heads = [table["head"], *_names(ours), *[f"paper: {c['name']}" for c in papers]]
    heads += [f"difference: {c['name']}" for c in compared]
    yield _row(heads)
    yield _row(["---", *["---:"] * (len(heads) - 1)])
    for row in table["rows"]:
        cells = [_cell(row["cells"].get(c["name"]), c["digits"]) for c in ours]
        cells += [_cell(row["paper"].get(c["name"]), c["digits"]) for c in papers]
        cells += [_difference(row, c) for c in compared]
        yield _row([row["label"], *cells])


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return f"{value:,.{digits}f}"
    mean = f"{value['mean']:,.{digits}f}"
    return mean if value["std"] is None else f"{mean} ± {value['std']:,.{digits}f} ({value['n']})"


def _difference(row: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    ours, paper = row["cells"].get(column["name"]), row["paper"].get(column["name"])
    if paper is None or ours is None or isinstance(ours, str):
        return "-"
    mean = ours["mean"] if isinstance(ours, dict) else ours
    return f"{mean - paper:+,.{column['digits']}f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _names(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    return [column["name"] for column in columns]


def _origin(record: Record) -> str:
    machine, commit = record["machine"], commit_in_words(record["commit"])
    device, minutes = machine["device"], f"{record['seconds'] / 60:.1f} minutes"
    versions = f"torch {machine['torch']}, {short_commit(commit)}"
    numbers = f"All numbers: {record['experiment']}.json."
    at, on = record.get("trained_at") or [commit], record.get("training_machines") or [device]
    if at == [commit] and on == [device]:
        return f"{device}, {versions}; {minutes}. {numbers}"
    return (
        f"Trained at {', '.join(map(short_commit, at))} on {'; '.join(on)}; {minutes}. "
        f"Page written on {device}, {versions}. {numbers}"
    )


# --- pictures --------------------------------------------------------------------------------------------------------


def _picture(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fastdat"}):  # equal figures are equal files
        date = {"Date": None} if kind == "svg" else None
        figure.savefig(content, format=kind, dpi=PICTURE_DPI, facecolor="white", metadata=date)
    return content.getvalue()
