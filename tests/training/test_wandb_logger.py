"""The logger of Weights & Biases, with the real package in offline mode; nothing is sent anywhere."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from fastdat import cli
from fastdat.data import ImageSet
from fastdat.training import ConfigError, RunFolderError, Trainer
from fastdat.training.tags import tagged
from fastdat.training.wandb_logger import WandbLogger
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    on_cpu,
    read_scores,
    read_stats,
    resumable,
    scored,
    tiny,
    train_until,
    trainer_of,
)

installed = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed: pip install 'fastdat[wandb]'"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
    }.items():
        monkeypatch.setenv(name, value)


def records(file: Path) -> Iterator[Any]:
    """The records of wandb's own file: in blocks of 32 KiB, each part behind its checksum, length and kind."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), 7, b""
    while at < len(data):
        if at % 32768 > 32768 - 7:  # no room for a head: filled up
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def written(file: Path) -> dict[str, list[Any]]:
    """What one process has sent to wandb, by kind; rows of numbers as dicts."""
    import wandb

    wandb.teardown()  # waits until wandb's own process has written it
    found: dict[str, list[Any]] = {}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        content = getattr(record, kind)
        if kind == "history":
            content = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in content.item
            }
        found.setdefault(kind, []).append(content)
    return found


def files(run: Path) -> list[Path]:
    """wandb's own file of each process that trained in a run folder, by time."""
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"))


def steps_of(rows: list[dict[str, Any]], name: str) -> list[int]:
    return [row["step"] for row in rows if name in row]


@installed
def test_a_run_reaches_wandb(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    def own(trainer: Trainer) -> dict[str, float]:
        return {"twice": 2 * trainer.done}

    run = tmp_path / "my run"
    config = scored(cifar10_root, logger="wandb")
    trainer_of(config, few_images, run, callbacks=[own]).train()
    (file,) = files(run)
    sent = written(file)
    (about,) = sent["run"]
    settings = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (about.project, about.display_name) == ("fastdat", "my run")
    assert about.run_id == (run / "wandb" / "run-id.txt").read_text()
    assert settings.items() >= on_cpu(config).to_dict().items()
    assert ("*", "step") in [(metric.glob_name, metric.step_metric) for metric in sent["metric"]]
    stats = [row for row in sent["history"] if "loss/D" in row]
    for row, line in zip(stats, read_stats(run), strict=True):
        assert row.items() >= {"step": line["step"], "own/twice": 2 * line["step"]}.items()
        assert row.items() >= tagged(line).items()
    for record in read_scores(run):
        rows = [row for row in sent["history"] if f"scores/kid_{record['split']} [means]" in row]
        assert record["scores"]["kid"] in [row[f"scores/kid_{record['split']} [means]"] for row in rows]
    assert steps_of(sent["history"], "samples/path") == [0, 4]
    assert len(list(run.glob("wandb/offline-run-*/files/media/images/*.png"))) == 2
    assert [end.exit_code for end in sent["exit"]] == [0]


@installed
def test_a_resumed_run_is_the_same_run_of_wandb(few_images: ImageSet, tmp_path: Path) -> None:
    """Steps after the checkpoint are sent again, and the first process ends as failed."""
    config = resumable(logger="wandb", log_every=1, **{"checkpoints.every": 4})
    first = trainer_of(config, few_images, tmp_path / "run")
    train_until(first, 2 * 6)
    time.sleep(1.1)  # wandb names a folder by the second
    trainer_of(config, few_images, tmp_path / "run").train()
    before, after = map(written, files(tmp_path / "run"))
    assert before["run"][0].run_id == after["run"][0].run_id
    assert steps_of(before["history"], "loss/D") == [1, 2, 3, 4, 5, 6]
    assert steps_of(after["history"], "loss/D") == [5, 6, 7, 8]
    assert [end.exit_code for sent in (before, after) for end in sent["exit"]] == [1, 0]


@installed
def test_the_run_goes_on_without_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    logger = WandbLogger(tmp_path, {}, notes.append)

    def lost(values: object) -> None:
        raise ConnectionResetError("Connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(logger._run, "log", lost)
        logger.stats({"step": 1, "loss_d": 1.0})
        logger.stats({"step": 2, "loss_d": 1.0})
    assert notes == [
        "wandb logs no more: ConnectionResetError('Connection lost'). The run goes on; resume it to begin wandb again"
    ]
    logger.close()


@installed
@pytest.mark.parametrize("kind", ["Error", "ValueError"])  # the second one for WANDB_MODE=bogus
def test_a_refusal_of_wandb_comes_before_training(
    kind: str, few_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**settings: object) -> None:
        raise getattr(wandb, kind, ValueError)("No API key configured")

    trainer = trainer_of(tiny(logger="wandb"), few_images, tmp_path / "run")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match=r"wandb cannot begin its run: No API key .* WANDB_MODE=offline"):
        trainer.train()
    assert trainer.done == 0
    trainer_of(tiny(), few_images, tmp_path / "run").train()


@pytest.mark.parametrize(
    "found", [None, ModuleSpec("wandb", None, is_package=True)], ids=["nothing", "folder"]
)
def test_a_missing_package_is_an_error_before_the_run_folder_is_made(
    few_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: ModuleSpec | None
) -> None:
    """Also beside a folder that wandb has left: Python takes that for a package."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(ConfigError, match=r'needs the package wandb: pip install "fastdat\[wandb\]"'):
        own_trainer(few_images, tmp_path / "run", tiny(logger="wandb"))
    assert not (tmp_path / "run").exists()


def test_the_option_of_the_command_line() -> None:
    command = ["train", "--preset", "sngan-cifar10", "--dry-run"]
    for option, expected in (([], "tensorboard"), (["--logger", "wandb"], "wandb")):
        assert f"logger: {expected}\n" in CliRunner().invoke(cli.app, [*command, *option]).output


@installed
def test_what_the_package_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment counts, and a score that could not be made is left out."""
    import wandb

    calls: list[tuple[Any, ...]] = []

    def keep(name: str) -> Any:
        return lambda *args, **named: calls.append((name, *args, *named.items()))

    def init(**settings: Any) -> Any:
        calls.append(("init", {key: value for key, value in settings.items() if key != "settings"}))
        assert settings["settings"].console == "off"
        named = {name: keep(name) for name in ("define_metric", "log", "finish")}
        return SimpleNamespace(id=settings["id"] or "new1", **named)

    monkeypatch.setattr(wandb, "init", init)
    folder = tmp_path / "mine"
    folder.mkdir()
    logger = WandbLogger(folder, {"lr": 0.5}, pytest.fail)
    logger.stats({"step": 3, "loss_d": 1.5, "size": 2.5})
    scores = {"fid": 7.5, "kid": None}
    logger.metrics({"step": 4, "split": "test", "extractor": "means", "scores": scores})
    logger.close()
    begun = {
        "project": "fastdat",
        "name": "mine",
        "id": None,
        "resume": "allow",
        "dir": str(folder),
        "config": {"lr": 0.5},
    }
    assert calls == [
        ("init", begun),
        ("define_metric", "step"),
        ("define_metric", "*", ("step_metric", "step")),
        ("log", {"step": 3, "loss/D": 1.5, "own/size": 2.5}),
        ("log", {"step": 4, "scores/fid_test [means]": 7.5}),
        ("finish", ("exit_code", 0)),
    ]
    (folder / "wandb" / "run-id.txt").write_text("kept2\n")
    monkeypatch.setenv("WANDB_PROJECT", "other")
    monkeypatch.setenv("WANDB_NAME", "name")
    WandbLogger(folder, {"lr": 0.5}, pytest.fail)
    assert calls[6] == ("init", begun | {"project": "other", "name": "name", "id": "kept2"})


@installed
def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text("a file in place of the folder")
    with pytest.raises(RunFolderError, match=r"cannot write .*wandb: File exists"):
        WandbLogger(tmp_path, {}, pytest.fail)
