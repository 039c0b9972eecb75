"""Stop requests and interrupts: after a step, and while scoring."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.engine.announce import CompilationEnded, CompilationStarted
from fastdat.metrics import Evaluator, Extractor, extractors
from fastdat.metrics.evaluators import Fakes, Progress, Record, keep_going
from fastdat.training import StoppedError, build_evaluator, checkpoint
from fastdat.training.stop import _WATCHING, StopRequests, _Watcher
from tests.slow_cases import slow_except
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    Means,
    assert_same,
    change_reals,
    read_log,
    read_scores,
    read_stats,
    results,
    resumable,
    scored,
    tiny,
    train_until,
    trainer_of,
)


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_request_ends_the_run_after_a_step(few_images: ImageSet, tmp_path: Path) -> None:
    """With a checkpoint of that step."""
    config = resumable(**{"checkpoints.every": 1000})
    trainer_of(config, few_images, tmp_path / "straight").train()
    trainer = trainer_of(config, few_images, tmp_path / "stopped")

    def asked(step: int, reals: Tensor) -> Tensor:
        if step == 6:
            ask_to_stop()
        return reals

    change_reals(trainer, asked)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "stopped by SIGTERM after 4 steps" in read_log(tmp_path / "stopped")
    trainer_of(config, few_images, tmp_path / "stopped").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "stopped"))


def test_an_interrupted_run_leaves_whole_files(few_images: ImageSet, tmp_path: Path) -> None:
    trainer, _ = own_trainer(few_images, tmp_path / "run", tiny(steps=10))
    train_until(trainer, 9, KeyboardInterrupt)
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4]
    assert (
        "stopped by an interrupt after 4 steps; run the same command again to resume from the beginning"
        in (read_log(tmp_path / "run"))
    )


def test_a_request_before_the_first_step_makes_none(few_images: ImageSet, tmp_path: Path) -> None:
    """The first step may have to be compiled for minutes."""
    trainer = trainer_of(resumable(), few_images, tmp_path)
    note = trainer.note

    def noted(text: str) -> None:
        note(text)
        if text == "first step ...":
            ask_to_stop()

    trainer.note = noted  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        trainer.train()
    assert trainer.done == 0
    assert "stopped by SIGTERM after 0 steps; run the same command again to resume" in read_log(tmp_path)


STARTED = CompilationStarted("D's step", torch.Size([4, 3]), torch.float32, torch.device("cpu"), "first")


def test_a_request_interrupts_a_compilation() -> None:
    with StopRequests() as stop:
        stop._hear(STARTED)
        with pytest.raises(StoppedError) as stopped:
            ask_to_stop()
        assert (stopped.value.signal, stop.in_compilation) == (signal.SIGTERM, True)


def test_an_interrupt_stays_an_interrupt() -> None:
    """Of exactly this class, for which Python ends a script as shells expect after Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt) as interrupted:
                stop.raise_if_requested()
            assert interrupted.type is KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_was_caught_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much is caught in the middle of a compilation."""
    monkeypatch.setattr("fastdat.training.stop.PATIENCE", 20.0)
    caught = 0
    with StopRequests() as stop:
        stop._hear(STARTED)
        for _ in range(2):
            try:
                ask_to_stop() if not caught else time.sleep(60)
            except StoppedError:
                caught += 1
    assert caught == 2


def test_no_compilation_begins_after_a_request() -> None:
    with StopRequests() as stop:
        stop._hear(STARTED)
        stop._hear(CompilationEnded("D's step", 1.0, True))
        ask_to_stop()
        with pytest.raises(StoppedError):
            stop._hear(STARTED)


def test_ignored_signals_stay_ignored() -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested is None
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_as_it_would_without(capfd: pytest.CaptureFixture[str]) -> None:
    """It closes its copy of the watcher's descriptor, and neither it nor its parent takes its signal for a request."""
    with StopRequests() as requests:
        (descriptor,) = _WATCHING
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # forking beside threads: the child does little
            child = os.fork()
        if child == 0:
            try:
                os.fstat(descriptor)
            except OSError:
                if signal.set_wakeup_fd(-1) == -1 and not _WATCHING:
                    ask_to_stop()
            os._exit(3)
        _, status = os.waitpid(child, 0)
        assert (os.waitstatus_to_exitcode(status), requests.requested) == (-signal.SIGTERM, None)
        assert {descriptor} == _WATCHING
    assert not _WATCHING
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compiling", [True, False])
def test_how_a_compilation_that_does_not_end_is_ended(
    compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After four requests, in equal parts of its time. After Ctrl-C, which people repeat, nothing is done."""
    requests, did = StopRequests(), []
    watcher = _Watcher(requests)
    requests.compiling = compiling
    monkeypatch.setattr(watcher._over, "wait", lambda seconds: did.append(seconds))
    monkeypatch.setattr(signal, "pthread_kill", lambda *of: did.append(of))
    monkeypatch.setattr(os, "_exit", did.append)
    again = (threading.get_ident(), signal.SIGHUP)
    try:
        os.write(watcher._write, bytes([signal.SIGINT, signal.SIGHUP]))
        os.close(watcher._write)
        watcher.run()
    finally:
        os.close(watcher._read)
    assert did == ([2.5, again] * 4 + [129] if compiling else [2.5])


BLOCKED = """
import hashlib, sys
from fastdat.training import stop
from tests.training.test_stop import STARTED
stop.PATIENCE = 1.0
with stop.StopRequests() as requests:
    requests.compiling = {compiling}
    print("blocked", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {iterations})  # in C, where no handler runs
    requests.raise_if_requested()
"""


@pytest.mark.parametrize(("compiling", "code"), [pytest.param(True, 143, marks=pytest.mark.slow), (False, 1)])
def test_a_compilation_that_does_not_end_is_ended(compiling: bool, code: int) -> None:
    """In a process whose main thread is blocked; without a compilation the step goes on to its end."""
    script = BLOCKED.format(compiling=compiling, iterations=10**9 if compiling else 10**7)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"blocked\n"
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, b"the compilation does not end" in errors) == (code, compiling)


RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
sys.argv = ["fastdat", "train", "--preset", "{preset}", "--outdir", {outdir!r}, "--device", "cpu", *{options!r}]
from fastdat.cli import main
main()
"""


@contextmanager
def command(preset: str, outdir: Path, until: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run by the command line, once it has printed ``until``."""
    script = RUN.format(preset=preset, outdir=str(outdir), options=options)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                break
        yield process


SIGNALS = [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)]


@pytest.mark.parametrize(("name", "code"), slow_except(SIGNALS[:1], SIGNALS))
def test_the_exit_code_names_the_signal(name: str, code: int, tmp_path: Path) -> None:
    settings = [
        "--no-compile",
        "--set",
        "log_every=1",
        "--set",
        "eval.every=null",
        "--set",
        "logger=none",
    ]
    with command("mlp-dat-gaussians", tmp_path, "step 3/", *settings) as process:
        process.send_signal(getattr(signal, name))
        out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stopped by {name} after " in read_log(tmp_path)
    done = checkpoint.load(tmp_path / "checkpoints" / "latest.pt")["step"]
    assert read_stats(tmp_path)[-1]["step"] == done
    assert out.splitlines()[-1] == ("interrupted" if name == "SIGINT" else f"stopped by {name}")


@pytest.mark.slow
def test_a_closed_terminal_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    """Nothing can be printed any more."""
    options = [
        "--no-compile",
        "--set",
        "eval.every=null",
        "--set",
        "logger=none",
        "--set",
        "log_every=1",
    ]
    script = RUN.format(preset="mlp-dat-gaussians", outdir=str(tmp_path), options=options)
    reader, writer = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=writer, stdout=writer, stderr=writer, start_new_session=True
    ) as process:
        os.close(writer)
        deadline = time.monotonic() + 60
        while not (tmp_path / "stats.jsonl").exists() and time.monotonic() < deadline:
            os.read(reader, 4096)
        os.close(reader)
        process.send_signal(signal.SIGHUP)  # what the kernel sends to the terminal's own session
        assert process.wait(timeout=60) == 129
    assert "stopped by SIGHUP after " in read_log(tmp_path)
    assert checkpoint.load(tmp_path / "checkpoints" / "latest.pt")["step"] == read_stats(tmp_path)[-1]["step"]


@pytest.mark.slow
def test_sigterm_while_compiling_ends_the_process_within_20_seconds(
    tmp_path: Path, cifar10_root: Path
) -> None:
    settings = ["--data", str(cifar10_root), "--ngf", "8", "--ndf", "8", "--set", "eval.every=null"]
    with command("sngan-dat-cifar10", tmp_path, "compiling D's step ...", *settings) as process:
        time.sleep(2)
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    assert process.returncode == 143
    assert "stopped by SIGTERM while compiling after 0 steps" in read_log(tmp_path)


class AsksToStop:
    """An evaluator that gets a stop request with each batch of fakes."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.drawn: list[Tensor] = []

    def prepare(self) -> None:
        self.evaluator.prepare()

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        def asked(count: int) -> Iterator[Tensor]:
            for batch in fakes(count):
                self.drawn.append(batch)
                ask_to_stop()
                yield batch

        return self.evaluator(asked, progress)


def test_a_stop_request_ends_scoring(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    config = scored(cifar10_root, **{"eval.batch_size": 4})
    evaluator = AsksToStop(build_evaluator(config, torch.device("cpu"), few_images))
    trainer = trainer_of(config, few_images, tmp_path / "run", evaluator)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert len(evaluator.drawn) == 1
    log = read_log(tmp_path / "run")
    assert "stopped by SIGTERM while scoring after 2 steps; run the same command again to resume" in log
    trainer_of(scored(cifar10_root), few_images, tmp_path / "run").train()
    assert [(r["step"], r["split"]) for r in read_scores(tmp_path / "run")] == [
        (2, "train"), (2, "test"), (4, "train"), (4, "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("moment", ["reals", "fakes"])
def test_a_stop_request_ends_the_extraction_of_features(
    moment: str, few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """Those of reals come first. Once complete they are kept, and the next process does not compute them again."""
    seen: list[int] = []

    class Stopping(Means):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            if len(seen) == {"reals": 1, "fakes": 3}[moment]:
                ask_to_stop()
            return super().forward(images)

    extractors.FACTORIES["means"] = lambda weights: Extractor("means", Stopping(), "none")
    config = scored(cifar10_root, **{"steps": 2, "eval.batch_size": 30, "eval.splits": ["train", "test"]})
    trainer = trainer_of(config, few_images, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert seen == {"reals": [30], "fakes": [30, 30, 20]}[moment]
    log = read_log(tmp_path / "run")
    assert "scoring with 20 samples ..." in log
    assert "stopped by SIGTERM while scoring after 2 steps" in log
    again = trainer_of(config, few_images, tmp_path / "run")
    again.train()
    assert [r["by"] for r in read_scores(tmp_path / "run")] == ["train", "train"]
    # A look at four reals of each split shows that the extractor is the one whose features were kept.
    assert seen[{"reals": 1, "fakes": 3}[moment] :] == {"reals": [30, 30, 20], "fakes": [4, 4, 20]}[moment]


def test_a_stop_request_ends_the_scoring_of_points(tmp_path: Path) -> None:
    config = tiny("mlp-dat-gaussians", steps=2, **{"eval.every": 1, "eval.metrics": ["modes"]})
    evaluator = AsksToStop(build_evaluator(config, torch.device("cpu")))
    with pytest.raises(KeyboardInterrupt):
        trainer_of(config, None, tmp_path / "run", evaluator).train()
    assert len(evaluator.drawn) == 1
    trainer_of(config, None, tmp_path / "run").train()
    assert [r["step"] for r in read_scores(tmp_path / "run")] == [1, 2]
