"""The numbers of whole iterations on a GPU in the documents are those of the committed measurements."""

from __future__ import annotations

from typing import Any

from tests.environment import REPOSITORY
from tests.test_documented_numbers import TITLES, claims, numbers, results

GPU_ITERATIONS = "nvidia-h200-2026-11-27.json"
GPU_ITERATION_TITLES = {
    "eager released DAT": TITLES["eager released DAT"],
    "eager SNGAN": TITLES["eager SNGAN"],
    "fastdat DAT, not captured": "fastdat DAT, `cuda_graph=false`",
    "fastdat DAT": TITLES["fastdat DAT"],
    "fastdat DAT, fakes step by step": "fastdat DAT, `fakes_at_once=false`",
    "fastdat DAT second order": TITLES["fastdat DAT second order"],
}


def gpu_results(bench: str) -> dict[str, dict[str, Any]]:
    """Parameters of a benchmark on the GPU -> what it noted."""
    found = results(GPU_ITERATIONS)["benchmarks"]
    return {b["name"].partition("[")[2][:-1]: b["extra_info"] for b in found if b["name"].startswith(bench)}


def test_numbers_of_iterations_on_a_gpu() -> None:
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    text = " ".join(page.split())
    found, (train,) = gpu_results("bench_iteration["), gpu_results("bench_train").values()
    for name, title in GPU_ITERATION_TITLES.items():
        s = found[name]
        times = f"{s['median_ms']:.1f} ({s['q20_ms']:.1f} to {s['q80_ms']:.1f})"
        assert f"| {title} | {times} | {s['over_released']:.3f} |" in page
    assert f"made {train['it_per_s']:.1f} iterations a second" in text
    assert f"take {train['minutes_for_all_steps']:.1f} minutes" in text
    launches = results("launches/nvidia-h200-2026-11-27.json")["launches"]
    of_cudnn = [
        launch["us"]
        for launch in launches
        if not launch["name"].startswith("triton")
        and any(word in launch["name"].lower() for word in ("grad", "conv", "fprop"))
    ]
    total = sum(launch["us"] for launch in launches)
    assert f"take {total / 1e3:.1f} ms, {sum(of_cudnn) / 1e3:.1f} of them in cuDNN's convolutions" in text
    for name, s in gpu_results("bench_run_size[").items():
        memory = [f"{s[f'peak_{kind}_bytes'] / 2**30:.2f}" for kind in ("allocated", "reserved")]
        assert f"| {name} | {1e3 * s['seconds']:.1f} | {' | '.join(memory)} |" in page
    captured, plain = (
        f"{found[name]['median_ms']:.1f}" for name in ("fastdat DAT", "fastdat DAT, not captured")
    )
    graphs = " ".join((REPOSITORY / "docs" / "cuda_graphs.md").read_text().split())
    assert f"takes {captured} ms captured and {plain} not" in graphs
    released, eager = (f"{found[name]['median_ms']:.0f}" for name in list(TITLES)[:2])
    minutes = f"{train['minutes_for_all_steps']:.0f}"
    assert [n.rstrip(",") for n in numbers(claims()[5])] == [
        "64",
        captured,
        released,
        eager,
        "100,000",
        minutes,
    ]
