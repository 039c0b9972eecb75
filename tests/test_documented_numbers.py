"""The numbers in the documents are those of the committed measurements."""

from __future__ import annotations

import json
import re
from typing import Any

from bench.host.host_parts import PARTS
from tests.environment import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results"


def results(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def numbers(text: str) -> list[str]:
    """The numbers of a text: not those of links, nor of names such as SNGAN-32."""
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.findall(r"(?<![\w-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)


def claims() -> list[str]:
    """The bullets of the README's section on what is measured, each in one line."""
    section = (REPOSITORY / "README.md").read_text().split("## Measured so far\n")[1].split("\n## ")[0]
    bullets = section.strip().split("\n\n")[0]
    return [" ".join(bullet.split()) for bullet in bullets.removeprefix("- ").split("\n- ")]


def modes(name: str) -> dict[str, tuple[str, str]]:
    """Arm -> modes found in the balanced and in the imbalanced mixture, at the end."""
    arms = results(f"fig3/{name}.json")["arms"]
    last = {arm: found["measurements"][-1] for arm, found in arms.items()}
    return {
        arm: (f"{m['balanced']['modes']['mean']:.1f}", f"{m['imbalanced']['modes']['mean']:.1f}")
        for arm, m in last.items()
    }


STEPS = "amd-epyc-2-cores-2026-11-26.json"
ITERATION = "amd-epyc-2-cores-2026-11-27.json"


def steps(net: str = "sngan32") -> dict[str, dict[str, Any]]:
    """Variant of the step -> its measurements, on SNGAN's D or on the one of plain torch."""
    records = (benchmark["extra_info"] for benchmark in results(STEPS)["benchmarks"])
    return {r["variant"]: r for r in records if r.get("workload", "").startswith(net)}


TITLES = {
    "eager released DAT": "released-style DAT, eager PyTorch",
    "eager SNGAN": "SNGAN without attack, eager PyTorch",
    "fastdat SNGAN": "fastdat, no attack",
    "fastdat DAT": "**fastdat DAT**",
    "fastdat DAT second order": "fastdat DAT, second order",
}
UNFOLDED = {
    "fastdat SNGAN, not folded": "fastdat, no attack, `fold=False`",
    "fastdat DAT, not folded": "fastdat DAT, `fold=False`",
    "fastdat DAT second order, not folded": "fastdat DAT, second order, `fold=False`",
}


def step_rows(titles: dict[str, str] = TITLES, net: str = "sngan32") -> list[str]:
    """The table of steps, as its numbers must be."""
    found = {titles[name]: s for name, s in steps(net).items() if name in titles}
    assert list(found) == list(titles.values())
    return [
        f"| {title} | {s['median_ms']:.0f} ({s['q20_ms']:.0f} to {s['q80_ms']:.0f}) | {s['flops_in_forwards']:.2f} |"
        for title, s in found.items()
    ]


def ratio(one: str, other: str, what: str = "median_ms", net: str = "sngan32") -> str:
    return f"{steps(net)[one][what] / steps(net)[other][what]:.2f}"


def loop() -> dict[str, Any]:
    """Benchmark of data and loop -> what it noted."""
    return {b["name"]: b["extra_info"] for b in results("amd-epyc-2-cores-2026-11-24.json")["benchmarks"]}


GPU = "nvidia-h200-2026-11-26.json"
GPU_TITLES = {
    **TITLES,
    "fastdat SNGAN, reduce-overhead": 'fastdat, no attack, `compile="reduce-overhead"`',
    "fastdat DAT, reduce-overhead": '**fastdat DAT**, `compile="reduce-overhead"`',
    "fastdat DAT second order, reduce-overhead": 'fastdat DAT, second order, `compile="reduce-overhead"`',
    "fastdat DAT, not folded": UNFOLDED["fastdat DAT, not folded"],
}


def gpu_steps(part: str = "step64") -> dict[str, dict[str, Any]]:
    """Variant of the step -> its measurements on a GPU, with 64 samples a side, or in another part of gpu-check."""
    return {
        b["extra_info"]["variant"]: b["extra_info"] for b in results(GPU)["benchmarks"] if b["part"] == part
    }


def test_numbers_of_the_gpu() -> None:
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    text = " ".join(page.split())
    for part in ("step64", "step512"):
        found = gpu_steps(part)
        for name, title in GPU_TITLES.items():
            s = found[name]
            times = (
                f"{s['median_ms']:.2f} ({s['q20_ms']:.2f} to {s['q80_ms']:.2f}) | {s['device_median_ms']:.2f}"
            )
            assert f"| {title} | {times} | {s['launches']} |" in page
        released, eager, plain, dat, second = (found[name]["device_median_ms"] for name in TITLES)
        of_released, of_eager = f"{dat / released:.2f}", f"{dat / eager:.2f}"
        assert (
            f"takes {of_released} of the time of the released-style step, {of_eager} of that of the" in text
        )
        for_order = re.escape(f"and {dat / plain:.2f} times fastdat's step without attack")
        assert re.search(rf"{for_order}[.;] [Ss]econd order takes {second / plain:.2f} times", text)
    found = gpu_steps()
    of_claim = [found[name] for name in ("fastdat DAT, reduce-overhead", *list(TITLES)[:2])]
    expected = ["64", f"{of_claim[0]['median_ms']:.2f}"]
    expected += [f"{s['median_ms']:.1f}" for s in of_claim[1:]]
    expected += [f"{s['device_median_ms']:.2f}" for s in of_claim]
    assert numbers(claims()[4]) == expected


REGULARIZED = {
    "eager WGAN-GP": "WGAN-GP, eager PyTorch",
    "fastdat GP": "**wgan + GP**",
    "eager RpGAN + R1 + R2": "RpGAN + R1 + R2, eager PyTorch",
    "fastdat RpGAN + R1 + R2": "**rpgan + R1 + R2**",
    "fastdat RpGAN + R1": "rpgan + R1",
    "fastdat RpGAN": "rpgan",
    "fastdat DAT": "DAT",
    "fastdat DAT + R1 + R2": "**DAT + R1 + R2**",
    "fastdat DAT second order": "DAT, second order",
    "fastdat DAT second order + R1 + R2": "**DAT, second order + R1 + R2**",
    "fastdat hinge + AR": "hinge + AR",
}


def test_numbers_of_regularizers() -> None:
    found = {
        b["extra_info"]["variant"]: b["extra_info"]
        for b in results("amd-epyc-2-cores-2026-11-26-5.json")["benchmarks"]
    }
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    for name, title in REGULARIZED.items():
        s = found[name]
        times = f"{s['median_ms']:.0f} ({s['q20_ms']:.0f} to {s['q80_ms']:.0f})"
        memory = f"{s['peak_memory_bytes'] / 2**20:.0f}"
        assert f"| {title} | {times} | {s['flops_in_forwards']:.2f} | {memory} |" in page

    def ratio(one: str, other: str) -> str:
        return f"{found[one]['median_ms'] / found[other]['median_ms']:.2f}"

    text = " ".join(page.split())
    gp, both = (
        ratio("fastdat GP", "eager WGAN-GP"),
        ratio("fastdat RpGAN + R1 + R2", "eager RpGAN + R1 + R2"),
    )
    assert f"GP takes {gp} of the time of the eager loop, R1 with R2 {both}." in text
    free = ratio("fastdat DAT second order + R1 + R2", "fastdat DAT second order")
    assert f"up to noise: {free}, at equal FLOPs and memory." in text
    of_both = [found[name] for name in ("fastdat DAT second order", "fastdat DAT second order + R1 + R2")]
    for what in ("flops", "peak_memory_bytes"):
        one, other = (s[what] for s in of_both)
        assert abs(other / one - 1) < 0.01


def test_modes_with_regularizers() -> None:
    losses = results("regularizers/quick.json")["losses"]
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    for arm, title in {
        "none": "no attack",
        "DAT": "DAT",
        "0-GP both 0.1": "0-GP on both sides, weight 0.1",
        "DAT + 0-GP both 0.1": "DAT and 0-GP on both sides, weight 0.1",
    }.items():
        found = [losses[loss]["arms"][arm]["measurements"][-1] for loss in ("wgan", "gan")]
        cells = [
            " / ".join(f"{m[mixture]['modes']['mean']:.1f}" for mixture in ("balanced", "imbalanced"))
            for m in found
        ]
        assert f"| {title} | {cells[0]} | {cells[1]} |" in page


def test_numbers_of_verification() -> None:
    found = {b["name"]: b for b in results("amd-epyc-2-cores-2026-11-26-4.json")["benchmarks"]}

    def ms(name: str, digits: int = 0) -> str:
        return f"{1000 * found[name]['stats']['median']:.{digits}f}"

    size = found["bench_save[fastdat]"]["extra_info"]["mebibytes"]
    rate = found["bench_opening_a_store[checked]"]["extra_info"]["GB_per_second"]
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    for line in (
        f"both Adams, {size} MiB | {ms('bench_save[fastdat]')} | {ms('bench_save[torch]')} |",
        f"| read it | {ms('bench_load[fastdat]')} | {ms('bench_load[torch]')} |",
        f"{rate} GB/s | {ms('bench_opening_a_store[checked]')} | {ms('bench_opening_a_store[mapped-only]', 1)} |",
        f"reals | {ms('bench_reading_reals[checked]')} | {ms('bench_reading_reals[read-only]')} |",
    ):
        assert line in page


def test_numbers_around_the_step() -> None:
    found = {b["name"]: b["extra_info"] for b in results("amd-epyc-2-cores-2026-11-26-3.json")["benchmarks"]}
    cold, warm = (found[f"bench_first_step[DAT-{cache}]"] for cache in ("cold", "warm"))
    us = {part: f"{found[f'bench_step[DAT-{part}]']['min_us']:.0f} us" for part in PARTS}
    text = " ".join((REPOSITORY / "docs" / "benchmarks.md").read_text().split())
    assert f"needs {cold['total_s']:.0f} seconds from its start" in text
    assert (
        f"{cold['code_s']:.0f} of them for generating code and {cold['kernels_s']:.0f} for compiling" in text
    )
    assert f"and {warm['total_s']:.0f} seconds where" in text
    assert f"{warm['import_s']:.0f} of them for importing torch" in text
    assert f"takes {us['dat_step']} outside of its graph, of which {us['D unchanged']} tell" in text
    assert f"backward pass {us['backward']}; PyTorch's own" in text
    assert f"content takes {us['floor of backward']} of these" in text
    of_gpu = {b["name"]: b["extra_info"] for b in results(GPU)["benchmarks"] if b["part"] == "host"}
    us = {part: f"{of_gpu[f'bench_step[DAT-{part}]']['min_us']:.0f} us" for part in PARTS}
    assert f"the call takes {us['dat_step']} and the backward pass {us['backward']}" in text
    assert f"of which {us['floor of backward']} are PyTorch's own" in text
    forward, backward = (
        f"{of_gpu[f'bench_spectral_norm[{way}]']['min_us']:.0f} us" for way in ("forward", "backward")
    )
    assert f"take {forward} forward and {backward} backward there" in text


def test_claim_about_modes() -> None:
    config = results("fig3/fig3.json")["config"]
    assert (config["iterations"], config["seeds"], config["init"]) == (10_000, 10, "kaiming")
    other = results("fig3/init-torch.json")["config"]
    assert (other["iterations"], other["seeds"], other["init"]) == (10_000, 10, "torch")
    plain, dat, second = modes("fig3").values()
    expected = ["10,000", plain[0], "9", plain[1], *dat, *second, "10"]
    expected += [*(number for pair in modes("init-torch").values() for number in pair)]
    assert numbers(claims()[0]) == expected


def test_claim_about_the_step() -> None:
    error = steps()["fastdat DAT"]["gradient_error"]
    ratios = [ratio("fastdat DAT", other) for other in ("eager released DAT", "eager SNGAN")]
    assert numbers(claims()[2]) == [*ratios, "2", f"{error:.1e}"]
    machine = results(STEPS)["machine_info"]
    assert machine["device"] == "AMD EPYC, 2 cores"


def test_claim_about_the_loop() -> None:
    assert numbers(claims()[3]) == [f"{loop()['bench_loop[trainer]']['trainer_over_bare']:.3f}", "2"]
    assert len(claims()) == 6


def test_tables_of_steps() -> None:
    plain = {**TITLES, "fastdat DAT, not folded": UNFOLDED["fastdat DAT, not folded"]}
    expected = {
        "README.md": step_rows(),
        "docs/benchmarks.md": [*step_rows({**TITLES, **UNFOLDED}), *step_rows(plain, "plain32")],
    }
    for path, rows in expected.items():
        lines = (REPOSITORY / path).read_text().splitlines()
        # A row of times and FLOPs; rows with a third number are those of regularizers.
        assert [line for line in lines if re.fullmatch(r"\| .* \| \d+ \(\d[^|]*\| [\d.]+ \|", line)] == rows


def test_claim_about_folding() -> None:
    text = " ".join((REPOSITORY / "docs" / "folding.md").read_text().split())
    flops = {name: f"{s['flops_in_forwards']:.2f} F" for name, s in steps().items()}
    dat, second = "fastdat DAT", "fastdat DAT second order"
    assert f"takes {flops[dat]} where it took {flops[dat + ', not folded']}, and" in text
    assert f"second order {flops[second]} where it took {flops[second + ', not folded']} (" in text


def iteration_rows() -> list[str]:
    """The table of whole iterations, as its numbers must be."""
    titles = {**TITLES, "fastdat DAT, fakes at once": "fastdat DAT, `fakes_at_once=true`"}
    found = results(ITERATION)["benchmarks"]
    assert all(b["name"].startswith("bench_iteration[") for b in found)
    names = [b["name"].partition("[")[2][:-1] for b in found]
    return [
        f"| {titles[name]} | {b['extra_info']['median_ms'] / 1e3:.2f} | {b['extra_info']['over_released']:.2f} |"
        for name, b in zip(names, found, strict=True)
    ]


def test_numbers_of_the_benchmarks_page() -> None:
    text = " ".join((REPOSITORY / "docs" / "benchmarks.md").read_text().split())
    dat, plain, second = "fastdat DAT", "fastdat SNGAN", "fastdat DAT second order"
    released, eager, flops = "eager released DAT", "eager SNGAN", "flops_in_forwards"
    peaks = [f"{steps()[name]['percent_of_matmul_peak']:.0f}%" for name in (dat, eager)]
    for sentence in (
        f"takes {ratio(dat, released)} of the time of the released-style step, {ratio(dat, eager)} of the time of the "
        f"eager step without attack, and {ratio(dat, plain)} times",
        f"Second order takes {ratio(second, released)} of the time of the released-style step",
        f"of first order, and {ratio(second, plain)} times",
        f"Folding leaves {ratio(dat, dat + ', not folded')} of the time of a DAT step, and "
        f"{ratio(second, second + ', not folded')} of that of second order.",
        f"By FLOPs the DAT step is {ratio(dat, eager, flops)} of the eager",
        f"ran at {peaks[0]} of the rate of a large matrix product, the eager step without attack at {peaks[1]}.",
        f"Here fastdat DAT takes {ratio(dat, released, net='plain32')} of the time of the released-style step, and "
        f"{ratio(dat, eager, net='plain32')} of that",
    ):
        assert sentence in text
    measured = [steps(net)[name]["compile_s"] for net in ("sngan32", "plain32") for name in TITLES]
    seconds = [s for s in measured if s is not None]
    assert f"compiled for {min(seconds):.0f} to {max(seconds):.0f} seconds." in text
    for row in iteration_rows():
        assert row in text
    rows = [
        *(loop()[f"bench_batches[{kind}]"]["images_per_second"] for kind in ("64-direct", "256-direct")),
        *(loop()[f"bench_batches[{kind}]"]["images_per_second"] for kind in ("64-thread", "256-thread")),
    ]
    growth = loop()["bench_memory"]["growth_mebibytes"]
    over = loop()["bench_loop[trainer]"]["trainer_over_bare"]
    for value in (*(f"{rate:,}" for rate in rows), f"{over:.3f}", f"{growth:.2f} MiB"):
        assert f"| {value} |" in text
    for arm, here in modes("fig3").items():
        assert f"| {arm} | {' / '.join(here)} | {' / '.join(modes('init-torch')[arm])} |" in text


def plan_rows() -> list[str]:
    """The table of bench/README.md on the plan for a GPU, without the names of the nets."""
    groups = {
        "convolutions": (
            "conv forward",
            "conv gradient of input",
            "conv gradient of weight",
            "conv with a filter as large as the image",
        ),
        "inductor": ("pointwise", "reduction", "foreach", "layout copy", "other of Triton"),
        "fastdat": ("fastdat",),
        "libraries": ("matrix product", "other of torch"),
    }
    rows = []
    for variants in results("gpu-plan.json")["plans"].values():
        for variant, plan in variants.items():
            kinds = plan["kinds"]
            assert set(kinds) <= {kind for group in groups.values() for kind in group}
            counts = [sum(kinds[k]["launches"] for k in group if k in kinds) for group in groups.values()]
            us = sum(kinds[kind]["us"] for kind in groups["convolutions"] if kind in kinds)
            cells = [variant, plan["launches"], *counts, f"{plan['bytes'] / 1e9:.2f}"]
            cells += [f"{plan['flops'] / 1e9:.0f}", f"{plan['model_us']:.0f}", f"{us:.0f}"]
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def test_table_of_the_plan_for_a_gpu() -> None:
    lines = (REPOSITORY / "bench" / "README.md").read_text().splitlines()
    rows = [re.sub(r"^\|[^|]*", "", line) for line in lines if re.match(r"\|( SNGAN-\d+)? \| .*\d \|$", line)]
    assert rows == plan_rows(), "the table should be:\n" + "\n".join(plan_rows())


def _all_of(plans: dict[str, Any]) -> str:
    cells = [f"**{plan['launches']}** ({plan['model_us']:.0f})" for plan in plans.values()]
    return f"| **all** | {' | '.join(cells)} |"


def iteration_plan_rows() -> list[str]:
    """The table of bench/README.md on the plan for a whole iteration."""
    plans = results("gpu-plan.json")["iterations"]
    parts = dict.fromkeys(part for plan in plans.values() for part in plan["parts"])
    rows = [f"| launches (model us) of | {' | '.join(plans)} |", "|---|---|---|---|"]
    for part in sorted(
        parts, key=lambda part: -max(p["parts"].get(part, {"us": 0})["us"] for p in plans.values())
    ):
        found = [plan["parts"].get(part) for plan in plans.values()]
        cells = ["-" if p is None else f"{p['launches']} ({p['us']:.0f})" for p in found]
        rows.append(f"| {' | '.join([part, *cells])} |")
    rows.append(_all_of(plans))
    work = [f"{p['bytes'] / 1e9:.1f}, {p['flops'] / 1e12:.2f}" for p in plans.values()]
    return [*rows, f"| GB, TFLOP | {' | '.join(work)} |"]


def test_table_of_the_plan_for_an_iteration() -> None:
    text = (REPOSITORY / "bench" / "README.md").read_text()
    assert "\n".join(iteration_plan_rows()) in text, "the table should be:\n" + "\n".join(
        iteration_plan_rows()
    )
    launches = results("gpu-plan.json")["iterations"]["DAT"]["launches"]
    graphs = (REPOSITORY / "docs" / "cuda_graphs.md").read_text()
    assert f"{launches} launches an iteration" in " ".join(graphs.split())


def test_claim_about_fakes_at_once() -> None:
    found = {b["name"]: b["extra_info"] for b in results("amd-epyc-2-cores-2026-11-27-2.json")["benchmarks"]}
    once, apart = (
        found[f"bench_iteration[fastdat DAT{kind}]"]["median_ms"] for kind in (", fakes at once", "")
    )
    text = " ".join((REPOSITORY / "docs" / "cuda_graphs.md").read_text().split())
    assert f"SNGAN-32 takes {once / apart:.2f} times as long with it" in text
