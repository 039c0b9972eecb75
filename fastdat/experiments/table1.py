"""``fastdat reproduce table1``: the paper's Table I beside the presets that train its rows, and their nets' sizes.

Nothing is trained. The table holds for all columns of Table II: each data set has a preset for SNGAN, SSGAN and
InfoMaxGAN, with and without DAT. The paper prints no sizes of nets; it says that the architectures are "equivalent to
SNGAN" in the code base that it names, mimicry (Sec. IV-B).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fastdat.experiments.catalogue import Options
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Value
from fastdat.experiments.paper_tables import TABLE_I, TrainingRow
from fastdat.training.models import build_nets
from fastdat.training.presets import preset
from fastdat.training.train_config import TrainConfig

MODELS = {"sngan": "SNGAN", "ssgan": "SSGAN", "infomaxgan": "InfoMaxGAN"}
_SUFFIXES = ("", "-dat")
_DECAY = "decay policy"
_NUMBERS = (
    Column("resolution", 0),
    Column("batch size", 0),
    Column("learning rate", 4),
    Column("beta1", 1),
    Column("beta2", 1),
    Column("n_dis", 0),
    Column("n_iter", 0),
)


def run(options: Options, folder: Path) -> Outcome:
    """Compare all presets of Table II's columns with Table I, and count parameters; ``options`` have no effect."""
    start = time.perf_counter()
    compared = {
        (model, dataset, suffix): preset(f"{model}{suffix}-{dataset}")
        for dataset in TABLE_I
        for model in MODELS
        for suffix in _SUFFIXES
    }
    return Outcome(
        name="table1",
        title="Table I: settings of the training",
        quick=False,
        command="fastdat reproduce table1",
        protocol=(
            "Each row holds for the presets of SNGAN, SSGAN and InfoMaxGAN on its data set, with and without DAT. "
            "Nothing is trained.",
        ),
        tables=(_settings_table(compared), _size_table(compared)),
        findings=tuple(_findings(compared)),
        notes=(
            "The released code's folder of Tiny-ImageNet is called tiny-imagenet-50; the presets read the publisher's "
            "own images.",
            "The paper prints no numbers of parameters.",
        ),
        config={
            "presets": [f"{model}{suffix}-{dataset}" for model, dataset, suffix in compared],
        },
        details={},
        seconds=time.perf_counter() - start,
    )


_Compared = dict[tuple[str, str, str], TrainConfig]


def _as_row(config: TrainConfig) -> dict[str, Value]:
    """The settings of Table I in a run, by the names of the table's columns."""
    return {
        "resolution": config.resolution,
        "batch size": config.batch_size,
        "learning rate": config.lr,
        "beta1": config.betas[0],
        "beta2": config.betas[1],
        _DECAY: config.lr_decay,
        "n_dis": config.n_dis,
        "n_iter": config.steps,
    }


def _as_printed(row: TrainingRow) -> dict[str, float]:
    """The numbers of a row of the paper; its decay policy is no number."""
    return {
        "resolution": row.resolution,
        "batch size": row.batch_size,
        "learning rate": row.lr,
        "beta1": row.betas[0],
        "beta2": row.betas[1],
        "n_dis": row.n_dis,
        "n_iter": row.steps,
    }


def _differing(dataset: str, config: TrainConfig) -> list[str]:
    """Names of the columns in which a preset is not as the paper says."""
    printed: dict[str, Any] = {**_as_printed(TABLE_I[dataset]), _DECAY: TABLE_I[dataset].lr_decay}
    return [name for name, value in _as_row(config).items() if printed[name] != value]


def _settings_table(compared: _Compared) -> ResultTable:
    paper_decay = f"paper: {_DECAY}"
    rows = []
    for dataset, printed in TABLE_I.items():
        ours = _as_row(compared["sngan", dataset, "-dat"])
        rows.append(Row(printed.dataset, {**ours, paper_decay: printed.lr_decay}, _as_printed(printed)))
    columns = (*_NUMBERS, Column(_DECAY), Column(paper_decay))
    return ResultTable("Table I, `sngan-dat-*`", "data set", columns, tuple(rows), _NUMBERS)


def _size_table(compared: _Compared) -> ResultTable:
    by_resolution: dict[int, list[str]] = {}
    for dataset, row in TABLE_I.items():
        by_resolution.setdefault(row.resolution, []).append(dataset)
    rows = []
    for resolution, datasets in by_resolution.items():
        for model, name in MODELS.items():
            G, D = (_parameters(net) for net in build_nets(compared[model, datasets[0], ""]))
            used = ", ".join(TABLE_I[dataset].dataset for dataset in datasets)
            rows.append(Row(f"{name}, {resolution} px", {"data sets": used, "G": G, "D": D}))
    columns = (Column("data sets"), Column("G", 0), Column("D", 0))
    return ResultTable("Parameters of the nets", "nets", columns, tuple(rows))


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def _findings(compared: _Compared) -> Iterator[str]:
    differing = [
        f"{model}{suffix}-{dataset} ({', '.join(names)})"
        for (model, dataset, suffix), config in compared.items()
        if (names := _differing(dataset, config))
    ]
    equal = len(compared) - len(differing)
    yield f"{equal} of {len(compared)} presets have the settings of Table I.{_list(differing)}"


def _list(differing: Sequence[str]) -> str:
    return f" Others: {'; '.join(differing)}." if differing else ""
