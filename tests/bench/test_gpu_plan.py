"""The plan for a GPU: counts, model and JSON, and today's code compared with the committed file."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu_plan import __main__ as gpu_plan
from bench.gpu_plan import generated_kernels, plan, pretended_gpu
from bench.gpu_plan.generated_kernels import Compiled
from bench.gpu_plan.launches import Launch, by_kind, kind_of_kernel, listing, table, total
from bench.step.workloads import Workload
from fastdat.kernels.offline import Resources
from tests.environment import REPOSITORY

LAUNCHES = [
    Launch("pointwise", "triton_poi_fused_relu_0", bytes=43_000_000),
    Launch("conv forward", "(64, 3, 32, 32) * (128, 3, 3, 3)", bytes=4_300_000, flops=79_000_000_000),
    Launch("pointwise", "triton_poi_fused_relu_1", bytes=16),
]


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / plan.COMMITTED).read_text())
    return found


def changed(document: dict[str, Any], what: str, factor: float) -> dict[str, Any]:
    document = copy.deepcopy(document)
    document["plans"]["SNGAN-32"]["DAT"][what] *= factor
    return document


# --- pure parts ----------------------------------------------------------------------------------------------------


def test_time_of_a_launch_is_that_of_its_bytes_or_its_flops() -> None:
    """10 us of bytes, 100 us of FLOPs, and almost no work; each with the gap to the next launch."""
    assert [launch.us for launch in LAUNCHES] == pytest.approx([11.5, 101.5, 2.5])


def test_launches_are_grouped_by_kind() -> None:
    kinds = by_kind(LAUNCHES)
    assert list(kinds) == ["conv forward", "pointwise"]  # the kind with the most time first
    assert kinds["pointwise"].summary() == {"launches": 2, "bytes": 43_000_016, "flops": 0, "us": 14.0}
    assert total(LAUNCHES).summary() == {
        "launches": 3,
        "bytes": 47_300_016,
        "flops": 79_000_000_000,
        "us": 115.5,
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("triton_poi_fused_add_relu_3", "pointwise"),
        ("triton_poi_fused_clone_transpose_21", "layout copy"),
        ("triton_poi_fused__to_copy_clone_transpose_4", "pointwise"),  # another dtype as well
        ("triton_red_fused_sum_0", "reduction"),
        ("triton_per_fused_sum_12", "reduction"),
        ("triton_for_fused_2", "foreach"),
        ("triton_tem_fused_mm_2", "other of Triton"),
    ],
)
def test_kinds_of_kernels(name: str, kind: str) -> None:
    assert kind_of_kernel(name) == kind


def test_table_ends_with_the_total() -> None:
    header, *rows, last = table(LAUNCHES)
    assert header.split() == ["kind", "launches", "MB", "GFLOP", "model", "us"]
    assert len(rows) == 2
    assert last.split() == ["all", "3", "47.3", "79.0", "115.5"]
    assert len(list(listing(LAUNCHES))) == 3


def test_json_has_the_keys_of_the_committed_file() -> None:
    workload = Workload(64, torch.device("cuda", 0), torch.bfloat16)
    summary = plan.summary(workload, "default", LAUNCHES)
    document = json.loads(json.dumps(plan.document({"SNGAN-32": {"DAT": summary}})))
    before = committed()
    assert document.keys() == before.keys()
    assert document["versions"].keys() == before["versions"].keys()
    assert document["model"] == before["model"]
    plans = before["plans"]
    assert summary.keys() == plans["SNGAN-32"]["DAT"].keys()
    assert list(plans) == [name for name, _ in plan.NETS.values()]
    for variants in plans.values():
        assert list(variants) == [name for name, _ in plan.VARIANTS.values()]


def test_committed_file_adds_up() -> None:
    for variants in committed()["plans"].values():
        for found in variants.values():
            for what in ("launches", "bytes", "flops"):
                assert sum(kind[what] for kind in found["kinds"].values()) == found[what]
            us = sum(kind["us"] for kind in found["kinds"].values())
            assert us == pytest.approx(found["model_us"], abs=0.06 * (len(found["kinds"]) + 1))


@pytest.mark.parametrize("what", ["launches", "model_us"])
@pytest.mark.parametrize(
    ("factor", "reported"), [(1.03, "+3.0%"), (0.97, "-3.0%"), (1.01, None), (0.99, None)]
)
def test_increases_and_decreases_are_reported(what: str, factor: float, reported: str | None) -> None:
    before = committed()
    differences = plan.differences(changed(before, what, factor), before)
    if reported is None:
        assert differences == []
    else:
        [difference] = differences
        assert f"SNGAN-32, DAT: {what}" in difference
        assert reported in difference


def test_only_planned_variants_are_compared() -> None:
    before = committed()
    some = {"plans": {"SNGAN-32": {"DAT": before["plans"]["SNGAN-32"]["DAT"]}}}
    assert plan.differences(some, before) == []
    [difference] = plan.differences(before, some)[:1]
    assert "not in the committed file" in difference


# --- machines without a plan ----------------------------------------------------------------------------------------


def test_build_without_cuda_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert gpu_plan.main([]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert f"error: torch {torch.__version__} is a build without CUDA" in error
    assert "make gpu-plan" in error


def test_other_obstacles_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert "there is a GPU here (NVIDIA H100)" in str(pretended_gpu.obstacle())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pretended_gpu.dispatch, "AVAILABLE", False)
    assert "TRITON_INTERPRET" in str(pretended_gpu.obstacle())
    monkeypatch.setattr(pretended_gpu.dispatch, "AVAILABLE", True)
    monkeypatch.setattr(pretended_gpu.dispatch, "INTERPRETED", False)
    monkeypatch.setattr(pretended_gpu.platform, "machine", lambda: "aarch64")
    assert "aarch64" in str(pretended_gpu.obstacle())
    monkeypatch.setattr(pretended_gpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "'no-such-compiler'" in str(pretended_gpu.obstacle())
    monkeypatch.setenv("CXX", sys.executable)
    assert pretended_gpu.obstacle() is None


def test_bad_arguments_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, says in (
        (["--nets", "sngan33"], "sngan33"),
        (["--mode", "max-autotune"], "max-autotune"),
        (["--batch", "1"], "at least 2 samples a side, got 1"),
    ):
        with pytest.raises(SystemExit):
            gpu_plan.main(argv)
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("compiles", [True, False])
def test_exit_status_is_1_where_a_kernel_does_not_compile(
    compiles: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_plan, "pretend", lambda: None)
    monkeypatch.setattr(gpu_plan, "_plan", lambda net, variant, given: ({"of": variant}, compiles))
    path = tmp_path / "results" / "plan.json"
    assert gpu_plan.main(["--nets", "sngan64", "--compile", "--json", str(path)]) == int(not compiles)
    plans = json.loads(path.read_text())["plans"]
    assert {name: found["of"] for name, found in plans["SNGAN-64"].items()} == {
        "SNGAN": "plain",
        "DAT": "dat",
        "DAT second order": "dat2",
        "DAT official": "official",
    }


def test_kernels_that_fail_or_spill_are_named() -> None:
    found = [
        Compiled("triton_a", "XBLOCK: 64", Resources(32, 0, 0, 0)),
        Compiled("triton_a", "XBLOCK: 128", Resources(255, 8, 4, 0)),
        Compiled("triton_b", "XBLOCK: 64", None, "RuntimeError: ptxas failed"),
    ]
    assert list(generated_kernels.report(found)) == [
        "  2 Triton kernels in 3 configurations compiled for sm_90",
        "  1 fail to compile",
        "    triton_b XBLOCK: 64: RuntimeError: ptxas failed",
        "  1 spill registers",
        f"    triton_a XBLOCK: 128: {found[1].resources}",
    ]
    assert generated_kernels.failed(found) == found[2:]


# --- today's code --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_todays_code_gives_the_gpu_the_committed_work(tmp_path: Path) -> None:
    obstacle = pretended_gpu.obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    before, here = committed(), plan.plan_versions()
    for name in ("torch", "triton"):
        if here[name] != before["versions"][name]:
            pytest.skip(
                f"{plan.COMMITTED} was made with {name} {before['versions'][name]}, but {here[name]} is installed"
            )
    path = tmp_path / "plan.json"
    flags = ["--nets", "sngan32", "--variants", "plain", "dat", "dat2", "--json", str(path)]
    outcome = subprocess.run(
        [sys.executable, "-m", "bench.gpu_plan", *flags],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    found = json.loads(path.read_text())
    assert len(found["plans"]["SNGAN-32"]) == 3
    differences = plan.differences(found, before)
    advice = "The GPU's work has changed. If that is intended, run `make gpu-plan` and commit its file:"
    assert not differences, "\n".join([advice, *differences])
