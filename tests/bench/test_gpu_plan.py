"""The plan for a GPU: counts, model and JSON, and today's code compared with the committed file."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu_plan import __main__ as gpu_plan
from bench.gpu_plan import generated_kernels, plan, pretended_gpu
from bench.gpu_plan.generated_kernels import Compiled
from bench.gpu_plan.launches import Launch, by_kind, by_part, kind_of_kernel, listing, table, total
from bench.gpu_plan.multi_tensor import shares_of_kernels
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


def test_launches_are_grouped_by_part() -> None:
    a, b, c = LAUNCHES
    parts = by_part([replace(a, part="D"), replace(b, part="G"), replace(c, part="D")])
    assert {part: of_part.launches for part, of_part in parts.items()} == {"G": 1, "D": 2}
    assert list(parts) == ["G", "D"]  # the part with the most time first


def test_operators_on_lists_are_as_many_kernels_as_torch_makes() -> None:
    """Up to 64 tensors of two lists in a kernel, and up to 320 chunks of 65536 elements."""
    many = [torch.empty(5) for _ in range(65)]
    assert shares_of_kernels([many]) == [1]  # up to 110 tensors of one list
    assert shares_of_kernels([many, list(many)]) == pytest.approx([64 / 65, 1 / 65])
    large = [torch.empty(321 * 65536, device="meta"), torch.empty(2 * 65536, device="meta")]
    assert shares_of_kernels([large]) == pytest.approx([320 / 323, 3 / 323])
    assert shares_of_kernels([large, large]) == pytest.approx([320 / 323, 3 / 323])  # one list, named twice


@pytest.mark.parametrize(
    "other",
    [
        [torch.empty(2, 3), torch.empty(4, dtype=torch.float64)],  # two dtypes in a list
        [torch.empty(3, 2).t(), torch.empty(4)],  # another layout
        [torch.empty(()), torch.empty(())],  # other shapes
    ],
)
def test_lists_that_do_not_fit_are_a_kernel_for_each_tensor(other: list[torch.Tensor]) -> None:
    first = [torch.empty(2, 3), torch.empty(4)]
    assert shares_of_kernels([first, [torch.empty(2, 3), torch.empty(4)]]) == [1]
    assert shares_of_kernels([first, other]) == pytest.approx([0.6, 0.4])


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
    assert next(table(LAUNCHES, parts=True)).split()[0] == "part"


def test_json_has_the_keys_of_the_committed_file() -> None:
    workload = Workload(64, torch.device("cuda", 0), torch.bfloat16)
    summary = plan.summary(workload, "default", LAUNCHES)
    _, config = plan.ITERATIONS["dat"]
    config = config.replace({"precision": "bf16", "channels_last": True})
    iteration = plan.iteration_summary(config, LAUNCHES)
    assert (iteration["n_dis"], iteration["dtype"], iteration["layout"]) == (5, "bfloat16", "channels_last")
    document = json.loads(json.dumps(plan.document({"SNGAN-32": {"DAT": summary}}, {"DAT": iteration})))
    before = committed()
    assert document.keys() == before.keys()
    assert document["versions"].keys() == before["versions"].keys()
    assert document["model"] == before["model"]
    assert iteration.keys() == before["iterations"]["DAT"].keys()
    assert list(before["iterations"]) == [name for name, _ in plan.ITERATIONS.values()]
    plans = before["plans"]
    assert summary.keys() == plans["SNGAN-32"]["DAT"].keys()
    assert list(plans) == [name for name, _ in plan.NETS.values()]
    for variants in plans.values():
        assert list(variants) == [name for name, _ in plan.VARIANTS.values()]


def test_committed_file_adds_up() -> None:
    before = committed()
    steps = [(found, ["kinds"]) for variants in before["plans"].values() for found in variants.values()]
    iterations = [(found, ["kinds", "parts"]) for found in before["iterations"].values()]
    for found, groupings in steps + iterations:
        for grouping in groupings:
            groups = found[grouping].values()
            for what in ("launches", "bytes", "flops"):
                assert sum(group[what] for group in groups) == found[what]
            us = sum(group["us"] for group in groups)
            assert us == pytest.approx(found["model_us"], abs=0.06 * (len(groups) + 1))


def test_parts_of_the_committed_iterations_are_those_of_an_iteration() -> None:
    """Nothing is missing: 5 D steps with an Adam step of two kernels each, and an average only where there is one."""
    for name, found in committed()["iterations"].items():
        parts = found["parts"]
        assert {"fakes for D", "D's steps", "G's step", "Adam of G", "measurements", "reals"} < parts.keys()
        assert parts["Adam of D"]["launches"] == 10
        assert ("average of G" in parts) == ("average" in name)


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
    some = {"plans": {"SNGAN-32": {"DAT": before["plans"]["SNGAN-32"]["DAT"]}}, "iterations": {}}
    assert plan.differences(some, before) == []
    [difference] = plan.differences(before, some)[:1]
    assert "not in the committed file" in difference


def test_iterations_are_compared_too() -> None:
    before = committed()
    found = copy.deepcopy(before)
    found["iterations"]["DAT"]["launches"] *= 2
    [difference] = plan.differences(found, before)
    assert difference.startswith("iteration, DAT: launches ")
    assert "+100.0%" in difference


@pytest.mark.parametrize(
    ("argv", "steps", "iterations"),
    [
        ([], 8, 3),
        (["--nets", "sngan64"], 4, 0),
        (["--variants", "dat"], 2, 0),
        (["--iterations", "dat"], 0, 1),
        (["--nets", "sngan32", "--variants", "dat", "--iterations", "plain", "dat"], 1, 2),
    ],
)
def test_what_is_named_is_planned(
    argv: list[str],
    steps: int,
    iterations: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(gpu_plan, "pretend", lambda: None)
    monkeypatch.setattr(gpu_plan, "_plan", lambda *args: ({}, True))
    monkeypatch.setattr(gpu_plan, "_plan_iteration", lambda *args: ({}, True))
    assert gpu_plan.main([*argv, "--json", str(tmp_path / "plan.json")]) == 0
    document = json.loads((tmp_path / "plan.json").read_text())
    assert sum(map(len, document["plans"].values())) == steps
    assert len(document["iterations"]) == iterations


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
        (["--iterations", "sngan"], "sngan"),
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
    flags = [
        "--nets",
        "sngan32",
        "--variants",
        "plain",
        "dat",
        "dat2",
        "--iterations",
        "dat",
        "--json",
        str(path),
    ]
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
    assert list(found["iterations"]) == ["DAT"]
    differences = plan.differences(found, before)
    advice = "The GPU's work has changed. If that is intended, run `make gpu-plan` and commit its file:"
    assert not differences, "\n".join([advice, *differences])
