"""The numbers of input at scale in the page on data are those of the committed measurements."""

from __future__ import annotations

from tests.environment import REPOSITORY
from tests.test_documented_gpu_numbers import gpu_results
from tests.test_documented_numbers import results


def test_numbers_of_loading_and_packing() -> None:
    page = (REPOSITORY / "docs" / "data.md").read_text()
    text = " ".join(page.split())
    iteration = gpu_results("bench_run_size[")["sngan-dat-lsun-bedroom batch=1024"]
    assert iteration["settings"]["n_dis"] == 5
    assert f"batch 1,024 takes {iteration['seconds']:.3f} s" in text
    needed = round(5 * 1024 / iteration["seconds"])
    assert f"| needed | {needed:,} | {8 * 5 * 1024 / iteration['seconds']:,.0f} |" in page
    found = {b["name"]: b["extra_info"] for b in results("amd-epyc-2-cores-2026-11-27-3.json")["benchmarks"]}
    gathered = found["bench_rows[gathered]"]["images_per_second"]
    assert f"| {gathered:,} | {8 * gathered:,} |" in page
    one, two = (found[f"bench_packing_lsun[{workers}]"] for workers in (0, 2))
    assert (
        f"{one['images_per_second']:,} images a second in one process, {two['images_per_second']:,} with two workers, "
        f"{two['images_per_second_and_core']:,} a core (goal: {two['goal']})"
    ) in text
    assert two["images_per_second_and_core"] >= two["goal"]
