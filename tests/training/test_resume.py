"""Going on after a stop: exactly, after any kind of end, and only where the settings allow it."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.report.page import write_report
from fastdat.report.runs import read_runs
from fastdat.report.table2 import column
from fastdat.training import (
    ConfigError,
    NonFiniteError,
    RunFolderError,
    TrainConfig,
    Trainer,
    build_trainer,
    checkpoint,
    load_data,
    preset,
)
from fastdat.training.display import Lines
from fastdat.training.trained import load_trained

TINY = {
    "ngf": 4,
    "ndf": 4,
    "nz": 8,
    "batch_size": 4,
    "n_dis": 2,
    "steps": 8,
    "log_every": 3,
    "sample_every": 3,
    "checkpoint_every": 2,
    "samples": 4,
    "compile": False,
    "device": "cpu",
    "tensorboard": False,
    "eval.every": None,
    "ema": 0.9,
    "flip": True,
}


def tiny(name: str = "sngan-dat-cifar10", **changes: Any) -> TrainConfig:
    return preset(name).replace(TINY | changes)


def trainer_of(config: TrainConfig, data: ImageSet | None, outdir: Path) -> Trainer:
    return build_trainer(config, data, outdir, display=Lines(io.StringIO()))


def results(run: Path) -> dict[str, Any]:
    """All a run leaves behind that does not depend on the clock."""
    state = checkpoint.load(run / "checkpoints" / "latest.pt")
    stats = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    for line in stats:
        del line["seconds"], line["it_per_s"]
    samples = {path.name: path.read_bytes() for path in (run / "samples").iterdir()}
    kept = {key: state[key] for key in ("step", "netG", "netD", "ema", "optG", "optD", "meters", "attempt")}
    return {"stats": stats, "samples": samples, "state": kept}


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, tensors and all."""
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


class EndError(Exception):
    """The end of the process, as far as the trainer can tell."""


def stop_at(trainer: Trainer, d_step: int, error: type[BaseException] = EndError) -> None:
    """Let the D step ``d_step`` end it."""
    batches: Any = trainer._batches
    batch = batches.batch

    def failing(step: int) -> Tensor:
        if step == d_step and trainer.done > 0:
            raise error
        result: Tensor = batch(step)
        return result

    batches.batch = failing


@pytest.mark.parametrize(
    "model",
    [
        "sngan-dat",
        "sngan",
        "ssgan-dat",
        "infomaxgan-dat",
        "dcgan-dat",
        "csngan-dat",
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(model: str, few_images: ImageSet, tmp_path: Path) -> None:
    """8 steps straight, and 8 steps with an end in the middle of the sixth, after the checkpoint of the fourth."""
    config = tiny(f"{model}-cifar10")
    trainer_of(config, few_images, tmp_path / "straight").train()
    first = trainer_of(config, few_images, tmp_path / "stopped")
    stop_at(first, 11)
    with pytest.raises(EndError):
        first.train()
    assert first.done == 5
    torch.manual_seed(99)
    second = trainer_of(config, few_images, tmp_path / "stopped")
    assert second.done == 4
    second.train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))
    assert "resumed after 4 steps" in (tmp_path / "stopped" / "log.txt").read_text()


def test_points_go_on_too(tmp_path: Path) -> None:
    config = tiny("mlp-dat-gaussians", samples=50)
    trainer_of(config, None, tmp_path / "straight").train()
    first = trainer_of(config, None, tmp_path / "stopped")
    stop_at(first, 9)
    with pytest.raises(EndError):
        first.train()
    trainer_of(config, None, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


COMMAND = """
import sys
sys.argv = ["fastdat", *{arguments!r}]
from fastdat.cli import main
main()
"""


def command(data: Path, outdir: Path) -> list[str]:
    settings = {**TINY, "steps": 40, "checkpoint_every": 4, "tensorboard": True}
    chosen = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    arguments = [
        "train",
        "--preset",
        "sngan-dat-cifar10",
        "--data",
        str(data),
        "--outdir",
        str(outdir),
        *chosen,
    ]
    return [sys.executable, "-c", COMMAND.format(arguments=arguments)]


def test_kill_at_any_moment(cifar10_root: Path, tmp_path: Path) -> None:
    """kill -9 twice, wherever it hits, and the same command again: the run that nobody killed, to the last bit."""
    subprocess.run(command(cifar10_root, tmp_path / "straight"), check=True, capture_output=True)
    run, kills = tmp_path / "killed", 0
    for enough in (1, 12):
        with subprocess.Popen(
            command(cifar10_root, run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                stats = run / "stats.jsonl"
                if stats.exists() and len(stats.read_text().splitlines()) >= enough:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            process.communicate()
    assert kills >= 1
    end = subprocess.run(command(cifar10_root, run), check=True, capture_output=True, text=True)
    assert "done: 40 steps" in end.stdout
    assert_same(results(tmp_path / "straight"), results(run))
    assert not list(run.rglob("*.tmp"))


def test_a_stop_request_ends_after_the_step_with_a_checkpoint(few_images: ImageSet, tmp_path: Path) -> None:
    config = tiny(checkpoint_every=1000)
    trainer_of(config, few_images, tmp_path / "straight").train()
    trainer = trainer_of(config, few_images, tmp_path / "stopped")
    batches: Any = trainer._batches
    batch = batches.batch

    def asked(step: int) -> Tensor:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        result: Tensor = batch(step)
        return result

    batches.batch = asked
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "stopped by SIGTERM after 4 steps" in (tmp_path / "stopped" / "log.txt").read_text()
    trainer_of(config, few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


def test_a_finished_run_has_nothing_to_do(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(), few_images, tmp_path).train()
    before = results(tmp_path)
    trainer_of(tiny(), few_images, tmp_path).train()
    assert_same(before, results(tmp_path))
    assert "nothing to do: all 8 steps are done" in (tmp_path / "log.txt").read_text()


def test_a_run_killed_before_its_first_checkpoint_begins_anew(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(), few_images, tmp_path / "straight").train()
    first = trainer_of(tiny(), few_images, tmp_path / "stopped")
    stop_at(first, 3)
    with pytest.raises(EndError):
        first.train()
    assert not (tmp_path / "stopped" / "checkpoints" / "latest.pt").exists()
    trainer_of(tiny(), few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


def test_more_steps_may_be_asked_for(few_images: ImageSet, tmp_path: Path) -> None:
    """Without decay, 4 steps and then 8 are 8 steps."""
    trainer_of(tiny(lr_decay="none"), few_images, tmp_path / "straight").train()
    trainer_of(tiny(lr_decay="none", steps=4), few_images, tmp_path / "longer").train()
    trainer_of(tiny(lr_decay="none"), few_images, tmp_path / "longer").train()
    a, b = results(tmp_path / "straight"), results(tmp_path / "longer")
    assert_same(a["state"], b["state"])
    assert "steps 4 then, 8 now" in (tmp_path / "longer" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e-3}, "holds a run with other settings: lr 0.0002 then, 0.001 now"),
        ({"dat.eps": 2.0, "seed": 1}, "dat.eps 1.0 then, 2.0 now"),
        ({"ema": 0.0}, "ema 0.9 then, 0.0 now"),
        ({"steps": 3}, "is 4 steps long already; got steps=3"),
    ],
    ids=str,
)
def test_other_settings_are_refused(
    changes: dict[str, Any], message: str, few_images: ImageSet, tmp_path: Path
) -> None:
    trainer_of(tiny(steps=4), few_images, tmp_path).train()
    before = results(tmp_path)
    with pytest.raises(ConfigError, match=message):
        trainer_of(tiny(steps=4).replace(changes), few_images, tmp_path)
    assert_same(before, results(tmp_path))


def test_a_run_without_a_checkpoint_takes_what_mends_it(few_images: ImageSet, tmp_path: Path) -> None:
    """Its error asked for another setting, perhaps, and there is nothing to lose."""
    first = trainer_of(tiny(lr=1e-3), few_images, tmp_path)
    stop_at(first, 2)
    with pytest.raises(EndError):
        first.train()
    trainer_of(tiny(), few_images, tmp_path).train()
    assert "resumed after 0 steps" in (tmp_path / "log.txt").read_text()
    assert "lr 0.001 then, 0.0002 now" in (tmp_path / "log.txt").read_text()
    assert TrainConfig.from_dict(yaml.safe_load((tmp_path / "config.yaml").read_text())) == tiny()


def test_other_images_are_refused(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(steps=4), few_images, tmp_path).train()
    others = dataclasses.replace(few_images, images=few_images.images.flip(-1))
    with pytest.raises(ConfigError, match=r"holds a run on other images: their fingerprint was \w{16} then"):
        trainer_of(tiny(steps=6), others, tmp_path)
    trainer_of(tiny(steps=6), few_images, tmp_path).train()


def own(data: ImageSet, outdir: Path, make: Any = None, **settings: Any) -> Trainer:
    """Nets, optimizers and reals that no configuration knows of."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Unflatten(1, (3, 32, 32)))
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    make = make or (lambda p: torch.optim.SGD(p, lr=0.1))
    chosen = {k: v for k, v in TINY.items() if k not in ("ngf", "ndf")} | settings
    optimizers = make(G.parameters()), make(D.parameters())
    return Trainer(G, D, *optimizers, data, outdir=outdir, display=Lines(io.StringIO()), **chosen)


def test_a_run_of_own_nets_claims_to_be_no_other(few_images: ImageSet, tmp_path: Path) -> None:
    own(few_images, tmp_path).train()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert not config.keys() & {"model", "dataset", "data", "resolution", "ngf", "ndf", "lr", "betas"}
    assert column(read_runs([tmp_path])[0]) is None
    write_report([tmp_path], tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text()
    assert "nets of its own" in report
    assert "data of its own" in report
    with pytest.raises(RunFolderError, match="trained nets of your own, which only you can build"):
        load_trained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"resolution, lr would do nothing: nets, optimizers and reals are given"
    ):
        own(few_images, tmp_path / "other", resolution=16, lr=1e-3)
    with pytest.raises(ConfigError, match=r"no dataset is set; there are: cifar10, "):
        load_data(TrainConfig(model="sngan"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.5), "another optG: lr 0.1 then, 0.5 now"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "another optG: momentum 0 then, 0.9 now"),
        (lambda p: torch.optim.Adam(p, lr=0.1), "another optG: SGD then, Adam now"),
        (
            lambda p: torch.optim.SGD([{"params": [q]} for q in p], lr=0.1),
            "another optG: 1 groups of parameters then, 2 now",
        ),
    ],
)
def test_other_optimizers_are_refused(make: Any, message: str, few_images: ImageSet, tmp_path: Path) -> None:
    own(few_images, tmp_path, steps=2).train()
    with pytest.raises(ConfigError, match=message):
        own(few_images, tmp_path, make, steps=4)
    # A rate that lies on a GPU is the same, up to a float32.
    own(few_images, tmp_path, lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1)), steps=4).train()


# --- NaN ---------------------------------------------------------------------------------------------------------


def breaking(data: ImageSet, outdir: Path, at: list[int], **changes: Any) -> Trainer:
    """A trainer whose reals are NaN in these D steps, each taken off the list as it happens."""
    config = tiny(log_every=1, **{"on_nan": "rollback"} | changes)
    trainer = trainer_of(config, data, outdir)
    batches: Any = trainer._batches
    batch = batches.batch

    def broken(step: int) -> Tensor:
        reals: Tensor = batch(step)
        if step in at:
            at.remove(step)
            return reals * math.nan
        return reals

    batches.batch = broken
    return trainer


def test_rollback_goes_on_with_other_noise(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(log_every=1), few_images, tmp_path / "whole").train()
    trainer = breaking(few_images, tmp_path / "run", at=[10])
    trainer.train()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "back to step 4, retry 1 of 3 with other noise" in log
    a, b = results(tmp_path / "whole"), results(tmp_path / "run")
    assert [line["step"] for line in b["stats"]] == list(range(1, 9))
    assert a["stats"][:4] == b["stats"][:4]
    assert a["stats"][4:] != b["stats"][4:], "the same noise would lead to the same NaN"
    assert b["state"]["attempt"] == 1


def test_no_checkpoint_is_written_of_a_measurement_that_is_infinite(
    few_images: ImageSet, tmp_path: Path
) -> None:
    """Its sum would make every run that goes on from it break down at its next line of statistics."""
    trainer = trainer_of(tiny(log_every=100, checkpoint_every=2), few_images, tmp_path)
    iterate = trainer._iterate

    def measured(step: int) -> None:
        iterate(step)
        if step == 4:
            trainer._meter_d.add({name: torch.tensor(math.inf) for name in trainer._meter_d.means()})

    trainer._iterate = measured  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert checkpoint.load(tmp_path / "checkpoints" / "latest.pt")["step"] == 4
    trainer_of(tiny(log_every=100, checkpoint_every=2), few_images, tmp_path).train()


def test_retries_are_bounded(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = breaking(few_images, tmp_path, at=[10] * 9, nan_retries=2)
    with pytest.raises(NonFiniteError, match="No rollback: 2 retries are used up"):
        trainer.train()
    assert checkpoint.load(tmp_path / "checkpoints" / "latest.pt")["step"] == 4
    assert (tmp_path / "log.txt").read_text().count("with other noise") == 2


def test_no_checkpoint_to_go_back_to(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = breaking(few_images, tmp_path, at=[1])
    with pytest.raises(NonFiniteError, match="No rollback: there is no checkpoint yet"):
        trainer.train()


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture
def state() -> dict[str, Any]:
    return dict.fromkeys(checkpoint._KEYS) | {"step": 3, "netG": {"w": torch.arange(3.0)}}


def test_checkpoints_run_no_code(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"state\['optG'\]\[0\] is a PosixPath"):
        checkpoint.save(tmp_path / "a.pt", state | {"optG": [tmp_path]})
    torch.save({"format": 1, "step": tmp_path}, tmp_path / "b.pt")
    with pytest.raises(RunFolderError, match=r"b.pt is damaged: Weights only load failed"):
        checkpoint.load(tmp_path / "b.pt")


def test_a_rate_that_is_a_tensor_stays_that_tensor() -> None:
    """A captured graph reads it; and what a checkpoint brings lies on the CPU."""
    weight = nn.Parameter(torch.zeros(1))
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD([weight], lr=rate)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = torch.tensor(0.05)
    checkpoint.load_optimizer(optimizer, saved)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)


def test_a_rate_that_was_a_tensor_elsewhere_becomes_a_number() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = torch.tensor(0.05)
    checkpoint.load_optimizer(optimizer, saved)
    assert type(optimizer.param_groups[0]["lr"]) is float


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_told(share: float, tmp_path: Path, state: dict[str, Any]) -> None:
    path = tmp_path / "latest.pt"
    checkpoint.save(path, state)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunFolderError, match=r"latest.pt is damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 9}, "format 9, expected 1"),
        ([1], "format 'list'"),
        ({"format": 1}, "incomplete: it has no step"),
    ],
    ids=str,
)
def test_other_files_are_told(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(RunFolderError, match=message):
        checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(RunFolderError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "y.pt")


def test_checkpoints_of_other_nets_are_told(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(steps=2), few_images, tmp_path).train()
    config = TrainConfig.from_dict(tiny(steps=2).to_dict())
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace("ngf: 4", "ngf: 8"))
    with pytest.raises(ConfigError, match="is of other nets than these"):
        trainer_of(config.replace({"ngf": 8}), few_images, tmp_path)


FULL = """
import resource, sys
sys.path.insert(0, {tree!r})
from pathlib import Path
import torch
from fastdat.training import checkpoint
state = {{key: None for key in checkpoint._KEYS}} | {{"netG": {{"w": torch.ones(100)}}}}
path = Path({path!r})
checkpoint.save(path, state | {{"step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    checkpoint.save(path, state | {{"step": 2, "netG": {{"w": torch.ones(1 << 20)}}}})
except Exception as error:
    print(type(error).__name__, error)
print(checkpoint.load(path)["step"], [p.name for p in path.parent.iterdir()])
"""


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    """A limit on the size of files, which the operating system enforces in the middle of the write."""
    tree = str(Path(__file__).resolve().parents[2])
    code = FULL.format(tree=tree, path=str(tmp_path / "latest.pt"))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "RunFolderError cannot write a checkpoint to" in out
    assert "The one before it is intact" in out
    assert out.splitlines()[-1] == "1 ['latest.pt']"


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_stops_the_run_and_leaves_what_was_there(
    tensorboard: bool, few_images: ImageSet, small_disk: Path
) -> None:
    config = tiny(sample_every=100, tensorboard=tensorboard)
    trainer = trainer_of(config, few_images, small_disk / "run")
    stop_at(trainer, 9)
    with pytest.raises(EndError):
        trainer.train()
    before = results(small_disk / "run")
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(4 << 20))
    with pytest.raises(RunFolderError, match=r"No space left on device"):
        trainer_of(config, few_images, small_disk / "run").train()
    (small_disk / "ballast").unlink()
    assert_same(before["state"], results(small_disk / "run")["state"])
    trainer_of(config, few_images, small_disk / "run").train()
    assert results(small_disk / "run")["state"]["step"] == 8
