"""The trainer's small parts: meter, schedule, noise, images, run folder, display."""

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from fastdat.training import NonFiniteError, RunFolderError
from fastdat.training.clock import Clock
from fastdat.training.display import Bar, Lines, display_for, summarise
from fastdat.training.events import Events
from fastdat.training.finite import check_finite, infinite
from fastdat.training.meter import Meter
from fastdat.training.noise import D_STEP, G_STEP, Noise
from fastdat.training.png import grid_png, to_uint8
from fastdat.training.run_folder import RunFolder, append_metrics
from fastdat.training.schedule import LearningRate
from fastdat.training.steps import evaluating, frozen
from fastdat.util.run_layout import read_config

CPU = torch.device("cpu")

# --- meter -------------------------------------------------------------------------------------------------------


def test_meter_means_since_it_was_cleared() -> None:
    meter = Meter()
    assert meter.means() == {}
    for value in (1.0, 2.0, 6.0):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)})
    assert meter.means() == meter.means() == {"a": 3.0, "b": -3.0}
    meter.clear()
    assert meter.means() == {}
    meter.add({"a": torch.tensor(5.0, requires_grad=True)})
    assert meter.means() == {"a": 5.0}


def test_meter_remembers_nan_and_infinity() -> None:
    meter = Meter()
    for value in (1.0, math.nan, 1.0):
        meter.add({"a": torch.tensor(value)})
    assert math.isnan(meter.means()["a"])
    meter.clear()
    for value in (1.0, math.inf):
        meter.add({"a": torch.tensor(value)})
    assert meter.means()["a"] == math.inf


# --- schedule ----------------------------------------------------------------------------------------------------


def test_linear_decay_keeps_the_ratio_of_the_rates() -> None:
    nets = [torch.nn.Linear(1, 1) for _ in range(2)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(net.parameters(), lr=lr) for net, lr in zip(nets, (1.0, 4.0), strict=True)
    ]
    rate = LearningRate(optimizers, "linear", 10)
    seen = []
    for done in (0, 5, 9):
        rate.set(done)
        seen.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
    assert seen == [pytest.approx([1, 4]), pytest.approx([0.5, 2]), pytest.approx([0.1, 0.4])]


def test_no_decay() -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.3)
    rate = LearningRate([optimizer], "none", 10)
    rate.set(9)
    assert optimizer.param_groups[0]["lr"] == 0.3


# --- noise -------------------------------------------------------------------------------------------------------


def test_noise_is_a_function_of_its_arguments_alone() -> None:
    noise = Noise(8, seed=1, device=CPU)
    first = noise.draw(D_STEP, 3, 5)
    assert first.shape == (5, 8)
    others = [
        noise.draw(G_STEP, 3, 5),
        noise.draw(D_STEP, 4, 5),
        Noise(8, seed=2, device=CPU).draw(D_STEP, 3, 5),
        Noise(8, seed=1, device=CPU, rank=1).draw(D_STEP, 3, 5),
    ]
    assert all(not torch.equal(first, other) for other in others)
    state = torch.get_rng_state()
    assert torch.equal(first, Noise(8, seed=1, device=CPU).draw(D_STEP, 3, 5))
    assert torch.equal(state, torch.get_rng_state()), "the global generator is not touched"


def test_noise_is_standard_normal() -> None:
    z = Noise(100, seed=0, device=CPU).draw(D_STEP, 0, 1000)
    assert abs(z.mean().item()) < 0.01
    assert abs(z.std().item() - 1) < 0.01


# --- images ------------------------------------------------------------------------------------------------------


def test_to_uint8_inverts_the_sampler() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(pixels.float() / 127.5 - 1), pixels)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


@pytest.mark.parametrize(("count", "size"), [(1, (1, 1)), (5, (3, 2)), (9, (3, 3)), (64, (8, 8))])
def test_grid(count: int, size: tuple[int, int]) -> None:
    images = torch.linspace(-1, 0.9, count)[:, None, None, None].expand(count, 3, 4, 4).clone()
    images[:, 0] = -1
    sheet = np.asarray(Image.open(io.BytesIO(grid_png(images))))
    columns, rows = size
    assert sheet.shape == (2 + 6 * rows, 2 + 6 * columns, 3)
    for i in range(count):
        tile = sheet[2 + 6 * (i // columns) :, 2 + 6 * (i % columns) :][:4, :4]
        assert (tile[..., 0] == 0).all()
        assert (tile[..., 1:] == to_uint8(images[i, 1, 0, 0]).item()).all()
    assert (sheet[0] == 255).all()
    assert (sheet[:, 0] == 255).all()


# --- run folder --------------------------------------------------------------------------------------------------


def test_run_folder_writes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "run")
    folder.write_config({"b": 1, "a": [1, 2]})
    folder.write_reals(b"png")
    folder.append_stats({"step": 1, "loss_d": 2.5})
    folder.append_stats({"step": 2, "loss_d": 1.5})
    folder.append_log("one\ntwo")
    assert folder.write_samples(500, b"png") == folder.path / "samples" / "step-000500.png"
    assert (folder.path / "config.yaml").read_text().startswith("b: 1\n"), "in the order given"
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == {"b": 1, "a": [1, 2]}
    lines = (folder.path / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss_d"] for line in lines] == [2.5, 1.5]
    assert [line.split("  ")[1] for line in (folder.path / "log.txt").read_text().splitlines()] == [
        "one",
        "two",
    ]
    names = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())
    assert names == [
        ".lock",
        "config.yaml",
        "log.txt",
        "reals.png",
        "samples/step-000500.png",
        "stats.jsonl",
    ]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_reals(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFolderError, match=r"reals.png: No space left on device.*it has no checkpoint yet"):
        folder.write_reals(b"new")
    assert (folder.path / "reals.png").read_bytes() == b"old"
    assert {path.name for path in folder.path.iterdir()} == {".lock", "checkpoints", "samples", "reals.png"}


def test_stats_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        RunFolder(tmp_path / "run").append_stats({"loss_d": math.nan})


def test_occupied_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert (tmp_path / "samples").is_dir()
    assert folder.read_config() is None


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match="another process is training in"):
        RunFolder(tmp_path)
    folder.close()
    RunFolder(tmp_path).close()


def test_rewind_drops_what_comes_later(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (2, 4, 6):
        folder.append_stats({"step": step})
        folder.append_metrics({"step": step, "scores": {}})
        folder.write_samples(step, b"png")
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # what a kill in the middle of a write may leave
    folder.rewind(4)
    for name in ("stats.jsonl", "metrics.jsonl"):
        assert [json.loads(line)["step"] for line in (tmp_path / name).read_text().splitlines()] == [2, 4]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-000002.png",
        "step-000004.png",
    ]


def test_damage_elsewhere_is_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "stats.jsonl").write_text('{"step": 2}\nrubbish\n{"step": 4}\n')
    with pytest.raises(RunFolderError, match=r"stats.jsonl, line 2, is damaged: b'rubbish'"):
        folder.rewind(4)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_damaged_configuration_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match=r"config.yaml (cannot be read|must hold settings)"):
        read_config(tmp_path)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    with pytest.raises(RunFolderError, match=r"cannot use .*file as a run folder: "):
        RunFolder(tmp_path / "file")


# --- net modes ---------------------------------------------------------------------------------------------------


def test_frozen_restores_what_was_trained() -> None:
    net = torch.nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    with contextlib.suppress(RuntimeError), frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        raise RuntimeError
    assert (net.weight.requires_grad, net.bias.requires_grad) == (True, False)


def test_evaluating_restores_each_module() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    net[1].eval()
    with contextlib.suppress(RuntimeError), evaluating(net):
        assert not any(module.training for module in net.modules())
        raise RuntimeError
    assert [module.training for module in net.modules()] == [True, True, False]


# --- display -----------------------------------------------------------------------------------------------------

STATS = {"step": 50, "it_per_s": 2.0, "loss_d": 1.5, "loss_g": -0.25, "logits_real": 0.5, "logits_fake": -0.5}


def test_summary() -> None:
    assert summarise(STATS, 1050) == (
        "step 50/1050  loss D 1.500  G -0.250  D(x) +0.50  D(G(z)) -0.50  2 it/s  ETA 0:08:20"
    )
    assert "delta 0.0012" in summarise(STATS | {"delta_rms_fake": 0.00123}, 50)


def test_lines_are_plain() -> None:
    file = io.StringIO()
    with Lines(file) as lines:
        lines.note("hello")
        for done in range(1, 100):
            lines.advance(done)
        lines.stats(summarise(STATS, 100))
    assert file.getvalue().splitlines() == ["hello", summarise(STATS, 100)]


def test_bar_on_a_terminal() -> None:
    file = io.StringIO()
    with Bar(100, Console(file=file, force_terminal=True, width=150)) as bar:
        bar.note("[50%] is no markup")
        bar.advance(50)
        bar.stats(summarise(STATS, 100))
    text = file.getvalue()
    assert "[50%] is no markup" in text
    assert "50/100" in text
    assert "loss D 1.500" in text


def test_no_bar_where_there_is_no_terminal() -> None:
    assert isinstance(display_for(10), Lines)


def test_forced_colour_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(display_for(10), Lines)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(display_for(10), Lines)


def test_a_folder_is_free_while_a_forked_process_lives(tmp_path: Path) -> None:
    """A DataLoader's processes are forked, and hold every open file of their parent."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunFolderError, match="another process is training"):
        RunFolder(tmp_path / "run")
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forking beside threads: the child does nothing
        child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent is done
        os._exit(0)
    try:
        folder.close()
        RunFolder(tmp_path / "run").close()
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def test_a_folder_is_free_after_a_kill_while_a_forked_process_lives(tmp_path: Path) -> None:
    """The processes of a DataLoader notice after seconds that theirs was killed."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from fastdat.training.run_folder import RunFolder
folder = RunFolder({str(tmp_path / "run")!r})
if os.fork():
    time.sleep(60)
print(os.getpid(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(RunFolderError, match="another process is training"):
                RunFolder(tmp_path / "run")
            process.kill()
            process.wait()
            RunFolder(tmp_path / "run").close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_kill_while_the_configuration_is_first_written(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").close()
    (tmp_path / "run" / ".config.yaml.tmp").write_text("model:")
    RunFolder(tmp_path / "run").close()


def test_rewinding_leaves_files_of_other_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    names = ("step-000005 (copy).png", "step-000005-annotated.png", "step-000005.png", "step-000003.png")
    for name in names:
        (tmp_path / "run" / "samples" / name).write_bytes(b"")
    folder.rewind(3)
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == set(names) - {
        "step-000005.png"
    }


def test_scores_of_an_unfinished_scoring_are_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for step in (2, 4):
        folder.append_metrics({"step": step})
        folder.append_stats({"step": step})
    folder.rewind(4, scored=False)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 2}\n'
    assert len((tmp_path / "run" / "stats.jsonl").read_text().splitlines()) == 2


def test_scores_that_eval_made_are_not_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for by in ("train", "eval"):
        folder.append_metrics({"step": 4, "by": by})
    folder.rewind(4, scored=False)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 4, "by": "eval"}\n'
    folder.rewind(3)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("whole", [b"", b'{"step": 1}\n', b'{"a": "' + b"x" * 9000 + b'", "step": 1}\n'])
def test_half_a_line_is_not_glued_to_the_next(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(whole + b'{"step": 2, "scor')
    append_metrics(tmp_path, {"step": 3})
    assert path.read_bytes() == whole + b'{"step": 3}\n'


def test_a_line_that_does_not_fit_leaves_none(tmp_path: Path) -> None:
    """A limit on the size of files takes the first bytes of it, as a full disk does."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from fastdat.util.errors import RunFolderError
from fastdat.training.run_folder import append_metrics
run = Path({str(tmp_path)!r})
append_metrics(run, {{"step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    append_metrics(run, {{"step": 2, "scores": 3}})
except RunFolderError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "metrics.jsonl: File too large" in out
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_constants_that_are_infinite_are_no_breakdown() -> None:
    """An attention's mask; the same value in a buffer that was finite is one."""
    net = torch.nn.Linear(2, 2)
    net.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
    net.register_buffer("mean", torch.zeros(2))
    constant = infinite({"netD": net})
    assert constant == {"netD.mask"}
    check_finite({"netD": net}, {}, 1, 2, apart_from=constant)
    net.mean[0] = math.inf
    with pytest.raises(NonFiniteError, match=r"1 of 3 tensors are affected, first netD.mean"):
        check_finite({"netD": net}, {}, 1, 2, apart_from=constant)


def test_the_clock_leaves_scoring_out_of_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(done=4, before=10.0)
    clock.start()
    now[0] = 30.0  # scores of step 4 that were due
    clock.pause(30.0)
    now[0] = 31.0
    assert clock.since_start() == 1.0
    assert clock.lap(5) == 1.0
    now[0] = 61.0
    clock.pause(29.0)
    assert clock.lap(6) == 1.0


def test_events_that_are_made_again_count_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def written() -> list[int]:
        events = EventAccumulator(str(tmp_path / "events")).Reload()
        return [event.step for event in events.Scalars("loss/D")]

    def log(events: Events, *steps: int) -> None:
        for step in steps:
            events.stats({"step": step, "loss_d": 1.0})

    events = Events(tmp_path / "events", 0)
    log(events, 1, 2, 3)
    events.flush()  # and is killed before its first checkpoint
    time.sleep(1.1)  # the name of an event file has the second it was begun in
    events = Events(tmp_path / "events", 0)
    log(events, 1, 2)
    time.sleep(1.1)
    events.rewind(1)  # NaN: back to the checkpoint of step 1
    log(events, 2, 3)
    events.close()
    assert written() == [1, 2, 3]
