"""RESULTS.md: what came out of all experiments, in the order of the paper, made of their JSONs alone.

``make results`` runs ``python -m fastdat.experiments.results_page``. Nothing on the page is written by hand but its
headings, so that it can be made again after each run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdat.experiments.catalogue import CATALOGUE
from fastdat.experiments.keep_results import FINISHED
from fastdat.experiments.outcome_files import Record, markdown
from fastdat.util import plain_json
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically

RECORDS, PAGE = Path("bench/results/reproduce"), Path("RESULTS.md")
_REPRODUCE = "fastdat reproduce"


@dataclass(frozen=True)
class Item:
    """A table or a figure of the paper, or an experiment beside them.

    Args:
        paper: its name in the paper, or the sections whose statements it checks; empty if it is not in the paper.
        name: of the experiment in ``fastdat reproduce``; None if there is nothing to repeat.
        file: its JSON from the folder of all records; ``NAME.json`` unless it is given.
        remark: what the overview says in place of a result.
    """

    paper: str
    name: str | None = None
    file: str = ""
    remark: str = ""

    @property
    def json(self) -> str:
        """Its JSON, from the folder of all records."""
        return self.file or f"{self.name}.json"


#: In the order of the paper. Fig. 3 is kept in its full length, in a folder of its own.
ITEMS = (
    Item("Fig. 1", "fig1"),
    Item("Fig. 2", remark="a diagram of the method"),
    Item("Fig. 3", "fig3", file="../fig3/fig3.json"),
    Item("Fig. 4", "fig4"),
    Item("Table I", "table1"),
    Item("Table II", "table2"),
    Item("Table III", "table3"),
    Item("Fig. 5", "fig5"),
    Item("Table IV", "table4"),
    Item("Table IV on images", "table4-images"),
    Item("Fig. 6", "fig6"),
    Item("Fig. 7", "fig7"),
    Item("Fig. 8", "fig8"),
    Item("Fig. 9", "fig9"),
    Item("Fig. 10", remark="a diagram of the positions in Table IV"),
    Item("Figs. 11, 12", "fig11"),
    Item("Sec. III-C", "lipschitz"),
    Item("Secs. I, IV-C", "table-cost"),
)

_INTRODUCTION = """# Results

What the commands of `fastdat reproduce` gave for each table and figure of the paper, in the paper's order, with the
paper's numbers beside ours. A run whose title says "scaled down" shows whether an effect is there, and not how large it
is in the paper's setting: compare its numbers with each other, not with the paper's. `--full` is the paper's length.

`make results` makes this page from the JSON of each experiment; no number is written by hand.
"""


def page(records: Path, link: str) -> str:
    """The text of RESULTS.md.

    Args:
        records: folder with the JSON of each experiment, as ``outcome_files.write`` leaves it.
        link: the same folder, from where the page lies.

    Raises:
        RunFolderError: no record is found, a JSON is damaged, or is no record of an experiment.
    """
    return "\n".join(_lines(all_items(), records, link))


def all_items() -> tuple[Item, ...]:
    """All items in their order; experiments of the catalogue that have no place in it come last."""
    known = {item.name for item in ITEMS}
    return (*ITEMS, *(Item("", name) for name in CATALOGUE if name not in known))


def _lines(items: Sequence[Item], records: Path, link: str) -> Iterator[str]:
    found = {
        item: _read(Path(os.path.normpath(records / item.json))) for item in items if item.name is not None
    }
    if not any(found.values()):
        raise RunFolderError(f"{records} holds no JSON of an experiment; {_REPRODUCE} NAME makes one")
    yield _INTRODUCTION
    yield "| paper | command | what came out | data |"
    yield "| --- | --- | --- | --- |"
    for item in items:
        yield _overview(item, found.get(item), records, link)
    for item in items:
        record = found.get(item)
        if record is not None and not _is_early(record):
            folder = os.path.normpath(f"{link}/{Path(item.json).parent}")
            yield ""
            yield markdown(record, level=2, folder=f"{folder}/").rstrip("\n")
    yield ""


def _overview(item: Item, record: Record | None, records: Path, link: str) -> str:
    if item.name is None:
        return _row([item.paper, "-", item.remark, "-"])
    if record is None:
        runs = Path(FINISHED, item.name)
        begun = any((records / runs).glob("*.json"))
        said = "runs have ended, no page has been made of them yet" if begun else "not run yet"
        data = f"[runs]({os.path.normpath(f'{link}/{runs}')})" if begun else "-"
        return _row([item.paper or item.name, f"`{_REPRODUCE} {item.name}`", said, data])
    file = os.path.normpath(f"{link}/{item.json}")
    if _is_early(record):
        return _row(
            [item.paper, f"`{_REPRODUCE} {item.name}`", "made before records had tables", f"[JSON]({file})"]
        )
    said = record["findings"][0] if record["findings"] else record["title"]
    title = f"[{item.paper or item.name}](#{_anchor(record['title'])})"
    return _row([title, f"`{record['command']}`", said, f"[JSON]({file})"])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, no punctuation, hyphens for spaces."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _read(file: Path) -> Record | None:
    """The record in ``file``; None if the experiment has not been run."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror or error}") from error
    try:
        record: Any = plain_json.loads(text)
    except ValueError as error:
        raise RunFolderError(f"{file} is no JSON: {error}. Run its experiment again") from error
    if not isinstance(record, Mapping) or "experiment" not in record:
        raise RunFolderError(f"{file} is no record of an experiment. Make it again with {_REPRODUCE} NAME")
    found = dict(record)
    if not _is_early(found):
        _require_texts(found, file)
    return found


def _require_texts(record: Record, file: Path) -> None:
    """Refuse a record whose section cannot be made, or holds something else than text where the overview shows it."""
    try:
        shown = [record["title"], record["command"], *record["findings"][:1]]
        if not all(isinstance(text, str) for text in shown):
            raise TypeError("its title, command and findings must be text")
        markdown(record)
    except Exception as error:  # any entry may be of any type
        raise RunFolderError(
            f"{file} is no record of an experiment ({type(error).__name__}: {error}). Make it again with "
            f"{_REPRODUCE} NAME"
        ) from error


def _is_early(record: Record) -> bool:
    """Whether it lacks what a section is made of: a record of an earlier version, whose numbers still count."""
    keys = (
        "title",
        "command",
        "findings",
        "figures",
        "tables",
        "protocol",
        "notes",
        "machine",
        "commit",
        "seconds",
    )
    return any(key not in record for key in keys)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m fastdat.experiments.results_page [RECORDS [PAGE]]``: write the page.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Make RESULTS.md from the JSON of each experiment.")
    parser.add_argument("records", nargs="?", type=Path, default=RECORDS, help="folder of the JSONs")
    parser.add_argument("page", nargs="?", type=Path, default=PAGE, help="the file that is written")
    given = parser.parse_args(arguments)
    link = Path(os.path.relpath(given.records, given.page.parent)).as_posix()
    try:
        if not given.records.is_dir():
            raise RunFolderError(
                f"there is no folder {given.records}: give the one that holds the JSON of each experiment"
            )
        write_atomically(given.page, page(given.records, link).encode())
    except RunFolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(given.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
