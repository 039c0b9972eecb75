"""What Table II says, the paper's and ours: where DAT is not better, and which of its numbers do not fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastdat.experiments.outcome import ResultTable, Runs, Value
from fastdat.experiments.paper_tables import TABLE_I, TABLE_IV, TABLE_IV_SCORES
from fastdat.report.table2 import COLUMNS, SCORES

Pair = tuple[float, float]
"""A score without and with DAT."""

_DAT = "-DAT"


def pairs(row: Mapping[str, Value]) -> dict[str, Pair]:
    """Of each model that was measured both without and with DAT, its two means."""
    found = {}
    for name in (column for column in COLUMNS if not column.endswith(_DAT)):
        plain, dat = _mean(row.get(name)), _mean(row.get(name + _DAT))
        if plain is not None and dat is not None:
            found[name] = (plain, dat)
    return found


def findings(tables: Sequence[ResultTable]) -> Iterator[str]:
    """For each table of ours: in how many pairs DAT is better, and which pairs are the exceptions.

    Means that print alike in the table are equal.
    """
    for table in tables:
        greater = table.title.startswith("IS")
        digits = {column.name: column.digits for column in table.columns}
        verdicts: dict[str, list[str]] = {"better": [], "not": [], "equal": []}
        for row in table.rows:
            for model, (plain, dat) in pairs(row.cells).items():
                verdict = "better" if (dat > plain if greater else dat < plain) else "not"
                shown = {f"{value:.{digits.get(model, 2)}f}" for value in (plain, dat)}
                verdicts["equal" if len(shown) == 1 else verdict].append(f"{model} on {row.label}")
        count = sum(map(len, verdicts.values()))
        if count:
            but = "".join(
                f"; {word} in {', '.join(verdicts[word])}" for word in ("not", "equal") if verdicts[word]
            )
            yield f"{table.title}: DAT is better in {len(verdicts['better'])} of {count} pairs{but}."


def notes() -> Iterator[str]:
    """What has to be known beside the paper's table, computed from its numbers."""
    exceptions = list(_exceptions())
    yield (
        'The paper says that DAT improves the scores "consistently". Its own table has '
        f"{len(exceptions)} exceptions: {'; '.join(exceptions)}."
    )
    train, test = (SCORES["fid", split]["lsun-bedroom"] for split in ("train", "test"))
    train_kid, test_kid = (SCORES["kid", split]["lsun-bedroom"][0] for split in ("train", "test"))
    yield (
        f"LSUN-Bedroom: the paper's test FID is {min(test):.0f} to {max(test):.0f} beside a train FID of "
        f"{min(train):.0f} to {max(train):.0f}, while the KID is nearly equal ({test_kid} and {train_kid} of SNGAN). "
        "The FID of few images is biased upwards and the KID is not, so these test scores fit a few hundred test "
        "images (the official validation set has 300) and not the 10,000 of the text. With 10,000, expect train FID "
        f"plus about {_usual_gap():.0f}, which is the mean on {', '.join(_OTHERS.values())}."
    )
    shared = [name for name, row in _TABLE_IV_ROWS.items() if TABLE_IV[row].scores == _of_cifar10(name)]
    rows = " and ".join(_TABLE_IV_ROWS[name] for name in shared)
    yield (
        "Table II names no step and no number of runs. Table IV, which has the best FID of each run according to its "
        f"caption, has the same scores in {rows} as Table II in {' and '.join(shared)} on CIFAR-10: so these are "
        "of the best step, too."
    )


_TABLE_IV_ROWS = {"SNGAN": "Baseline", "SNGAN-DAT": "Discriminator only"}
"""Columns of Table II that are rows of Table IV."""


def _of_cifar10(column: str) -> dict[str, float]:
    """A column of Table II as a row of Table IV."""
    of_part = {
        "IS" if split is None else f"{split} {score.upper()}": datasets["cifar10"][COLUMNS.index(column)]
        for (score, split), datasets in SCORES.items()
    }
    return {name: of_part[name] for name in TABLE_IV_SCORES}


_OTHERS = {key: TABLE_I[key].dataset for key in ("cifar10", "cifar100", "tiny-imagenet")}
"""Those whose test images are 10,000 and come from the distribution of the training images."""


def _usual_gap() -> float:
    gaps = [
        test - train
        for key in _OTHERS
        for train, test in zip(SCORES["fid", "train"][key], SCORES["fid", "test"][key], strict=True)
    ]
    return sum(gaps) / len(gaps)


def _exceptions() -> Iterator[str]:
    """The pairs in the paper's table in which DAT is not better."""
    for (score, split), datasets in SCORES.items():
        for dataset, values in datasets.items():
            row: dict[str, Value] = dict(zip(COLUMNS, values, strict=True))
            for model, (plain, dat) in pairs(row).items():
                if not (dat > plain if score == "is" else dat < plain):
                    part = score.upper() if split is None else f"{split} {score.upper()}"
                    yield f"{model}'s {part} on {TABLE_I[dataset].dataset}, {plain:g} without and {dat:g} with DAT"


def _mean(value: Value) -> float | None:
    if isinstance(value, Runs):
        return value.mean
    return value if isinstance(value, float) else None
