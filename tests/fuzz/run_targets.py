"""The readers of runs and results: settings, numbers, checkpoints, pictures, the report, JSON of experiments."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fastdat.experiments import results_page, spent_time
from fastdat.experiments.images import measured_settings, run_origin
from fastdat.experiments.points import study_state
from fastdat.report import grids, runs, write_report
from fastdat.training import checkpoint
from fastdat.training.config_file import read_settings, recorded_config, with_file
from fastdat.training.train_config import TrainConfig
from fastdat.util import run_layout, sealed_json
from fastdat.util.errors import ConfigError, ReportError, RunFolderError
from tests.fuzz import attacks, wrapping
from tests.fuzz.data_targets import IMAGE_TOKENS, JSON_TOKENS, PICKLE_TOKENS, images
from tests.fuzz.target import Target

_CONFIG = """model: sngan
dataset: cifar10
lr: 0.0002
betas: [0.0, 0.9]
dat: {real: true, fake: true, eps: 0.01}
regularizers: [{name: r1, gamma: 1.0}]
eval: {every: null, extractor: inception-v3-compat}
"""
_YAML_TOKENS = (
    *(text[:60].encode() for text in attacks.YAMLS.values()),
    b"<<: ", b"&a ", b"*a", b"? ", b": ", b"- ", b"!!int ", b"!!float ", b"!!timestamp ", b"!!set ", b"!!omap ",
    b"!!pairs ", b"[", b"{", b"|\n", b">\n", b"%YAML 9.9\n", b"---\n", b"...\n", b"2026-99-99", b"1:2:3",
    b"0x", b"0b", b"~", b"=",
)  # fmt: skip


def _read_config(content: bytes, folder: Path) -> None:
    """As a file of settings and as the config.yaml of a run; the first error of several must be among the allowed."""
    path = folder / run_layout.CONFIG
    path.write_bytes(content)
    try:
        read_settings(path)
        with_file(TrainConfig(), path)
    except ConfigError:
        run_layout.read_config(folder)
    recorded_config(folder)


_LINES = (
    b'{"step": 1, "loss_d": 1.5, "lr": 0.0002}\n{"step": 2, "loss_d": NaN, "lr": 1e-05}\n',
    b'{"step": 2, "weights": "G", "split": "train", "scores": {"fid": 30.0, "kid": null}, "fake_count": 10}\n',
)


def _read_lines(content: bytes, folder: Path) -> None:
    (folder / "stats.jsonl").write_bytes(content)
    for _, record in run_layout.read_records(folder / "stats.jsonl"):
        for value in record.values():
            runs.is_number(value)


_PARTS = b"\n@@@@\n"
_PICTURE = "samples/step-000002.png"


def _reports() -> list[bytes]:
    return [_PARTS.join([_CONFIG.encode(), *_LINES, images()[0]])]


def _read_report(content: bytes, folder: Path) -> None:
    """The page of a run with these settings, numbers, scores and sample grid."""
    run = folder / "run"
    (run / "samples").mkdir(parents=True, exist_ok=True)
    parts = content.split(_PARTS)
    for name, part in zip(
        ("config.yaml", "stats.jsonl", "metrics.jsonl", _PICTURE), (*parts, b"", b"", b""), strict=False
    ):
        (run / name).write_bytes(part)
    write_report([run], folder / "page.html")


def _read_grid(content: bytes, folder: Path) -> None:
    (folder / "step-000002.png").write_bytes(content)
    grids._open(folder / "step-000002.png")


# --- checkpoints -----------------------------------------------------------------------------------------------------


@cache
def _checkpoint() -> bytes:
    """A checkpoint without its digest."""
    import torch
    from torch import nn

    from tests.training.checkpoint_states import state_of

    torch.manual_seed(0)
    state = state_of(nn.Linear(2, 1), nn.Linear(1, 1)) | {"rng": {"cpu": torch.zeros(8, dtype=torch.uint8)}}
    return wrapping.torch_archive({"format": checkpoint.FORMAT, **state})


@cache
def _with_pickle() -> Callable[[bytes], bytes]:
    return wrapping.with_pickle(_checkpoint())


def _read_checkpoint(content: bytes, folder: Path) -> None:
    (folder / "latest.pt").write_bytes(content)
    state = checkpoint.load(folder / "latest.pt")
    repr(state)  # what is accepted can be shown


def _read_study(content: bytes, folder: Path) -> None:
    (folder / "arm.pt").write_bytes(content)
    file = study_state.ArmFile.__new__(study_state.ArmFile)
    file._settings, file._folder, file.path = _STUDY, folder, folder / "arm.pt"
    file.read()


_STUDY: dict[str, Any] = {"arm": "plain", "seeds": [0]}


def _studies() -> list[bytes]:
    coverage = {"grid": {"histogram": [0.5], "modes": [3.0], "high_quality": [0.5], "kl": [0.1]}}
    record = {"settings": json.dumps(_STUDY), "measurements": [{"iteration": 1, "coverage": coverage, "points": {}}],
              "times": {}, "ensemble": None, "commits": ["a"], "machines": ["b"]}  # fmt: skip
    return [wrapping.torch_archive(record | {"measurements": []}), wrapping.torch_archive(record)]


# --- JSON of results -------------------------------------------------------------------------------------------------


def _record() -> dict[str, Any]:
    column = {"name": "FID", "digits": 2}
    row = {"label": "DAT", "cells": {"FID": {"mean": 1.5, "std": 0.5, "n": 3}}, "paper": {"FID": 2.0}}
    table = {"title": "Table", "head": "arm", "comparable": True, "columns": [column], "paper_columns": [column],
             "rows": [row], "note": ""}  # fmt: skip
    return {"experiment": "fig4", "title": "Fig. 4", "quick": True, "command": "fastdat reproduce fig4",
            "findings": ["found"], "protocol": ["p"], "notes": ["n"], "tables": [table], "figures": ["fig4.png"],
            "config": {}, "seconds": 1.0, "trained_at": [], "training_machines": [], "details": {},
            "machine": {"device": "CPU", "torch": "2.13", "fastdat": "1", "python": "3.11"},
            "commit": {"id": "abc", "dirty": False}}  # fmt: skip


def _read_result(content: bytes, folder: Path) -> None:
    (folder / "records").mkdir(exist_ok=True)
    (folder / "records" / "fig4.json").write_bytes(content)
    results_page.page(folder / "records", "results")


def _read_small(content: bytes, folder: Path) -> None:
    """The JSONs that an experiment leaves beside its runs; each is read, and one of the errors is raised at the end."""
    found: list[RunFolderError] = []
    for name, read in (
        (spent_time.SECONDS, spent_time._read),
        (measured_settings.MEASURED, measured_settings._read),
        (run_origin.ORIGIN, lambda file: run_origin.read_origin(file.parent)),
    ):
        (folder / name).write_bytes(content)
        try:
            read(folder / name)
        except RunFolderError as error:
            found.append(error)
    if len(found) == 3:
        raise found[0]


def _unseal(content: bytes, folder: Path) -> None:
    sealed_json.unseal(content)


TARGETS = (
    Target("config.yaml", lambda: [_CONFIG.encode()], _read_config, (ConfigError, RunFolderError), 25_000,
           _YAML_TOKENS),
    Target("stats.jsonl, metrics.jsonl", lambda: _LINES, _read_lines, (RunFolderError,), 150_000, JSON_TOKENS),
    Target(
        "sealed JSON",
        lambda: [json.dumps({"a": [1, 2.5, None], "b": {"c": "d"}}).encode()],
        _unseal,
        (sealed_json.SealError,),
        150_000,
        JSON_TOKENS,
        wrapping.sealed_json,
    ),
    Target("report", _reports, _read_report, (ReportError,), 2_000, (*JSON_TOKENS, b"<script>alert(1)</script>"),
           megabytes=1500, reads=("fastdat/report/templates/",)),
    Target("sample grids", lambda: images()[:1], _read_grid, (grids.UnreadablePictureError,), 30_000, IMAGE_TOKENS,
           wrapping.png, megabytes=1500),
    Target("checkpoints", lambda: [wrapping.sealed(_checkpoint())], _read_checkpoint, (RunFolderError,), 20_000,
           PICKLE_TOKENS),
    Target("checkpoints behind their digest", lambda: [_checkpoint()], _read_checkpoint, (RunFolderError,), 20_000,
           PICKLE_TOKENS, wrapping.sealed),
    Target("pickles of checkpoints", lambda: [wrapping.pickle_in(_checkpoint())], _read_checkpoint, (RunFolderError,),
           30_000, PICKLE_TOKENS, lambda content: wrapping.sealed(_with_pickle()(content))),
    Target("state of a study", _studies, _read_study, (RunFolderError,), 15_000, PICKLE_TOKENS),
    Target("results of experiments", lambda: [json.dumps(_record()).encode()], _read_result, (RunFolderError,), 30_000,
           JSON_TOKENS),
    Target("small JSON of experiments", lambda: [b'{"seconds": 3.5}', b'{"commits": ["a"], "machines": ["b"]}'],
           _read_small, (RunFolderError,), 30_000, JSON_TOKENS),
)  # fmt: skip
