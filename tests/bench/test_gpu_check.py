"""`make gpu-check` without a GPU: parts that end in every way, and what the result says about them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import environment
from bench.gpu_check import __main__ as gpu_check
from bench.gpu_check import parts as gpu_parts
from bench.gpu_check import process, records
from bench.gpu_check.parts import Part
from bench.gpu_check.result import Outcome, Result
from fastdat.util import provenance
from tests.environment import REPOSITORY

TESTS = {
    "good": """
        import warnings
        def test_one(): warnings.warn("something new")
        def test_two(): warnings.warn("something new")
        def test_known(): warnings.warn("`torch.jit.script_method` is deprecated", DeprecationWarning)
    """,
    "bad": """
        import pytest
        @pytest.fixture
        def broken(): raise OSError("no such thing")
        def test_good(): pass
        def test_bad(): assert 1 == 2, "one is not two"
        def test_broken(broken): pass
        def test_skipped(): pytest.skip("not here")
    """,
    "benchmark": """
        def test_quick(benchmark):
            benchmark.extra_info["variant"] = "first"
            benchmark.pedantic(lambda: None, rounds=3)
        def test_raises(benchmark):
            benchmark.pedantic(lambda: 1 / 0, rounds=3)
    """,
    "deaf": """
        import signal, time
        def test_quick(): pass
        def test_deaf():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(60)
        def test_never(): pass
    """,
    "crash": """
        import os
        def test_quick(): pass
        def test_crash(): os._exit(77)
    """,
    "empty": "",
}
LIMITS = {"deaf": 8.0}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend a GPU named "NVIDIA H300", with parts by the names of ``TESTS``; returns the path of its result."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environment, "device_name", lambda: "NVIDIA H300")
    monkeypatch.setattr(environment, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(provenance, "machine_info", lambda: {"device": "NVIDIA H300"})
    monkeypatch.setattr(process, "GRACE", 1.5)
    monkeypatch.delenv("OUT", raising=False)
    monkeypatch.chdir(REPOSITORY)
    parts = {}
    for name, text in TESTS.items():
        path = tmp_path / f"test_{name}.py"
        path.write_text("\n".join(line[8:] for line in text.splitlines()) + "\n")
        parts[name] = Part((str(path),), LIMITS.get(name, 60.0), workers=None if name == "benchmark" else 1)
    monkeypatch.setattr(gpu_check, "all_parts", lambda: parts)
    return environment.results_path()


def part(result: Path, name: str) -> Any:
    return json.loads(result.read_text())["parts"][name]


def test_parts_add_up(gpu: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are reported and fail nothing; a later run keeps the parts that it does not repeat."""
    monkeypatch.setenv("OUT", str(gpu.parent.parent / "out"))
    assert gpu_check.main(["good"]) == 0
    assert (
        capfd.readouterr().out.splitlines()[-1]
        == "gpu-check: passed: good; failed: nothing; not reached: nothing"
    )
    assert gpu_check.main(["bad", "empty"]) == 1
    out = capfd.readouterr().out
    expected = "passed: nothing; failed: bad (2 of 4 failed, 1 of 4 skipped), empty (nothing was selected)"
    assert out.splitlines()[-1] == f"gpu-check: {expected}; not reached: nothing"
    assert "bad.py::test_bad: AssertionError: one is not two" in out

    good, bad = part(gpu, "good"), part(gpu, "bad")
    assert (good["verdict"], good["passed"], good["failed"], good["limit_s"]) == ("passed", 3, 0, 60.0)
    assert [(w["message"], w["count"]) for w in good["warnings"]] == [("something new", 2)]
    assert good["warnings"][0]["first"].endswith("test_good.py::test_one")
    assert (bad["passed"], bad["failed"], bad["skipped"], bad["not_reached"]) == (1, 2, 1, 0)
    assert {name.split("::")[-1]: message for name, message in bad["failures"].items()} == {
        "test_bad": "AssertionError: one is not two\nassert 1 == 2",
        "test_broken": "OSError: no such thing",
    }
    assert list(bad["skips"].values()) == ["not here"]
    assert part(gpu, "empty")["verdict"] == "failed"
    copies = {path.name: path for path in (gpu.parent.parent / "out").iterdir()}
    assert set(copies) == {gpu.name, gpu.with_suffix(".log").name}
    assert copies[gpu.name].read_text() == gpu.read_text()
    for log in (gpu.with_suffix(".log"), copies[gpu.with_suffix(".log").name]):
        assert "=== good ===" in log.read_text()
        assert "one is not two" in log.read_text()


@pytest.mark.slow
def test_a_part_ends_at_its_limit(gpu: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The finished tests are known if pytest ignores SIGINT and is killed, and if it dies."""
    start = time.monotonic()
    assert gpu_check.main(["deaf", "crash"]) == 1
    assert time.monotonic() - start < 30
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "gpu-check: passed: nothing; failed: crash (pytest ended with status 77, 1 not reached); "
        "not reached: deaf (stopped after 8 s with 2 of 3 not reached"
    )
    deaf = part(gpu, "deaf")
    assert (deaf["verdict"], deaf["passed"], deaf["failed"]) == ("stopped", 1, 0)
    assert [test.split("::")[-1] for test in deaf["unreached"]] == ["test_deaf", "test_never"]
    assert deaf["pytest_status"] == -signal.SIGKILL
    assert part(gpu, "crash")["verdict"] == "failed"
    assert list(gpu.parent.glob("*.jsonl")) == []


def test_benchmarks_are_in_the_file(gpu: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A benchmark that raises is reported, and the others are kept."""
    assert gpu_check.main(["benchmark"]) == 1
    found = json.loads(gpu.read_text())
    assert list(found["parts"]["benchmark"]["failures"].values()) == ["ZeroDivisionError: division by zero"]
    (record,) = found["benchmarks"]
    assert (record["part"], record["name"], len(record["stats"]["data"])) == ("benchmark", "test_quick", 3)
    assert record["extra_info"] == {"variant": "first"}


def test_sigterm_ends_the_part_and_the_run(
    gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM, as a scheduler sends it, counts as SIGINT: the part is recorded, and later parts do not begin."""
    slow, began = tmp_path / "test_slow.py", tmp_path / "began"
    slow.write_text(
        f"import pathlib, time\ndef test_slow():\n    pathlib.Path({str(began)!r}).touch()\n    time.sleep(60)\n"
    )
    monkeypatch.setattr(
        gpu_check, "all_parts", lambda: dict.fromkeys(["first", "second"], Part((str(slow),), 30.0))
    )

    def end() -> None:
        while not began.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # in case gpu-check does not handle it
    try:
        threading.Thread(target=end, daemon=True).start()
        assert gpu_check.main([]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    expected = (
        "passed: nothing; failed: nothing; not reached: first (interrupted with 1 of 1 not reached), second"
    )
    assert capfd.readouterr().out.splitlines()[-1] == f"gpu-check: {expected}"
    assert list(json.loads(gpu.read_text())["parts"]) == ["first"]


def test_a_repeated_part_replaces_its_earlier_findings(gpu: Path) -> None:
    def outcome(name: str) -> Outcome:
        found = records.Records(outcomes={name: "passed"}, benchmarks=[{"name": name}])
        return Outcome(found, status=0, ended_by=None, started=0.0, seconds=1.0, limit=2.0)

    for name, found in (("a", "old"), ("b", "other"), ("a", "new")):
        Result(gpu).add(name, outcome(found))
    content = json.loads(gpu.read_text())
    assert [(b["part"], b["name"]) for b in content["benchmarks"]] == [("b", "other"), ("a", "new")]
    assert content["parts"]["a"]["started"] == "1970-01-01T00:00:00+00:00"
    assert set(content["parts"]["a"]["commit_info"]) == {"id", "dirty"}


def test_a_damaged_result_is_not_overwritten(gpu: Path) -> None:
    gpu.parent.mkdir(parents=True)
    gpu.write_text('{"parts": {')
    with pytest.raises(SystemExit, match=r"is not valid JSON .*; move it away and start again"):
        gpu_check.main(["good"])
    assert gpu.read_text() == '{"parts": {'


def test_results_contain_no_path_of_this_machine(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/venv")
    message = f"in {REPOSITORY}/tests/a.py and /opt/venv/lib/b.py and {Path.home()}/c"
    found = records.Records(outcomes={"t": "failed"}, messages={"t": message})
    Result(gpu).add("a", Outcome(found, status=1, ended_by=None, started=0.0, seconds=1.0, limit=2.0))
    assert part(gpu, "a")["failures"] == {"t": "in ./tests/a.py and python/lib/b.py and ~/c"}


def test_an_unknown_part_is_an_error_that_lists_the_parts(
    gpu: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        gpu_check.main(["good", "step65"])
    assert end.value.code == 2
    assert "there is no part 'step65'; the parts are good, bad, benchmark" in capsys.readouterr().err


def test_the_last_note_of_a_benchmark_counts_if_it_did_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records"
    records.note(interim={"group": "nowhere"})  # ignored outside of gpu-check
    monkeypatch.setenv(records.VARIABLE, str(path))
    for name, ms in (("a", 1.0), ("b", 2.0)):
        records.note(interim={"group": "g", "extra_info": {"variant": name, "median_ms": ms}})
    with path.open("a") as file:
        file.write('{"benchmark": {"group": "g", "extra_info": {"variant": "a", "median_ms": 1.5}}}\n')
    assert records.read(path).benchmarks == [
        {"group": "g", "extra_info": {"variant": "a", "median_ms": 1.5}},
        {"group": "g", "extra_info": {"variant": "b", "median_ms": 2.0}, "interim": True},
    ]


def test_a_result_of_make_bench_is_left_alone(gpu: Path) -> None:
    gpu.parent.mkdir(parents=True)
    gpu.write_text('{"benchmarks": []}')
    result = Result.of_today()
    assert result.path.name == gpu.stem + "-2.json"
    result.path.write_text('{"parts": {}, "benchmarks": []}')
    assert Result.of_today().path == result.path


def test_an_incomplete_line_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "records"
    path.write_text(
        '{"collected": ["a", "b"]}\n{"test": "a", "outcome": "passed", "seconds": 1, "message": ""}\n{"te'
    )
    found = records.read(path)
    assert (found.outcomes, found.not_reached) == ({"a": "passed"}, ["b"])
    assert records.read(tmp_path / "none").counts() == dict.fromkeys(
        ("passed", "failed", "skipped", "not_reached"), 0
    )


# --- the list of parts --------------------------------------------------------------------------------------------


def test_parts_and_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    parts = gpu_parts.all_parts()
    names = [
        "smoke",
        "step64",
        "kernels",
        "tests",
        "host",
        "cudnn",
        "step512",
        "step2048",
        "iteration",
        "sizes",
        "train",
        "loop",
    ]
    assert list(parts) == names
    assert parts["cudnn"].environment == {"FASTDAT_CUDNN_BENCHMARK": "1"}
    assert all(part.limit <= 300 for part in parts.values())  # two of them fit into ten minutes
    assert all((part.begin_until or 0) < part.limit for part in parts.values())
    files = {path for part in parts.values() for path in part.arguments if "/" in path}
    assert files == {
        *(
            "tests/kernels",
            "tests/engine/test_gpu.py",
            "tests/engine/test_terms_gpu.py",
            "tests/data/test_sampler.py",
            "tests/training/test_devices.py",
            "tests/training/test_replay_gpu.py",
        ),
        *(
            "bench/bench_dat_step.py",
            "bench/bench_host.py",
            "bench/bench_kernels.py",
            "bench/bench_iteration.py",
            "bench/bench_run_size.py",
            "bench/bench_cifar10_run.py",
            "bench/bench_training.py",
            "bench/bench_data.py",
        ),
    }
    assert all((REPOSITORY / path).exists() for path in files)


def is_smoke(function: Any) -> bool:
    """Whether a test function, or one of its parameters, has the mark ``smoke``."""
    marks = getattr(function, "pytestmark", [])
    values = [value for mark in marks if mark.name == "parametrize" for value in mark.args[1]]
    return any(
        mark.name == "smoke" for mark in [*marks, *(m for v in values for m in getattr(v, "marks", ()))]
    )


def test_smoke_covers_each_kernel_and_each_mode_and_order_of_the_step() -> None:
    names = (
        "kernels.test_perturb_clip",
        "kernels.test_perturb_clip_derivatives",
        "kernels.test_attack_coefficients",
        "kernels.test_spectral_norm",
        "engine.test_gpu",
    )
    modules = {name: importlib.import_module(f"tests.{name}") for name in names}
    found = {
        name: {n for n, function in vars(module).items() if n.startswith("test_") and is_smoke(function)}
        for name, module in modules.items()
    }
    assert found == {
        "kernels.test_perturb_clip": {"test_sizes"},
        "kernels.test_perturb_clip_derivatives": {"test_gradients_match_the_plain_formula"},
        "kernels.test_attack_coefficients": {"test_targets_of_the_first_step"},
        "kernels.test_spectral_norm": {"test_as_accurate_as_the_plain_formula", "test_gradients"},
        "engine.test_gpu": {"test_as_exact_as_on_the_cpu"},
    }


def test_pytest_xdist_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.os, "cpu_count", lambda: 16)
    installed: Callable[..., Any] = lambda name: object()  # noqa: E731
    tests, benchmarks = Part((), 1.0, workers=12), Part((), 1.0)
    monkeypatch.setattr(process.importlib.util, "find_spec", installed)
    assert process.parallel_options(tests) == ["-p", "no:benchmark", "-n", "12"]
    assert process.parallel_options(benchmarks) == []
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None)
    assert process.parallel_options(tests) == ["-p", "no:benchmark"]
