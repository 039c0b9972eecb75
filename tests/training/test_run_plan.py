"""Plans of runs: what they say of measured runs, of several GPUs, and of what was not measured."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastdat.data.known_sizes import TRAIN_IMAGES
from fastdat.data.registry import DATASETS
from fastdat.training import ConfigError, preset
from fastdat.training.iteration_cost import iteration_cost
from fastdat.training.measured_sizes import Measured, read_results, shipped
from fastdat.training.run_plan import USABLE, Planner, device_named, divisors
from tests.environment import REPOSITORY

LSUN = preset("sngan-dat-lsun-bedroom")


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner("h200", shipped())


def test_measured_runs(planner: Planner) -> None:
    """Each within 20% of what was measured."""
    for m in shipped():
        plan = planner.plan(m.config)
        assert plan.seconds == pytest.approx(m.seconds, rel=0.20), m.name
        assert m.held is None or plan.memory.held + m.images == pytest.approx(m.held, rel=0.20)
        assert plan.memory.fits


def test_what_a_plan_says(planner: Planner) -> None:
    plan = planner.plan(LSUN.replace({"batch_size": 512, "steps": 7200, "n_dis": 3}))
    assert (plan.gpu, plan.gpus, plan.batch) == ("NVIDIA H200", 1, 512)
    assert plan.hours == pytest.approx(2 * plan.seconds)
    assert plan.images_per_second == pytest.approx(3 * 512 / plan.seconds)
    assert (plan.config.precision, plan.config.channels_last) == ("bf16", True)
    assert plan.by == {"computing": plan.seconds, "host": 0, "reducing": 0}
    assert plan.advice == ()
    (remark,) = plan.remarks
    assert remark.startswith(
        "fakes_at_once=auto, but false: G makes the fakes of all D steps in one pass where it"
    )
    assert planner.plan(LSUN.replace({"fakes_at_once": False})).remarks == ()
    count, errors = plan.measured
    assert count == sum(m.captured for m in shipped())
    assert 0 < errors.seconds <= 0.20
    assert 0 < errors.held <= 0.20


def test_several_gpus(planner: Planner) -> None:
    """They share the batch; they launch without graphs; they average gradients."""
    config = LSUN.replace({"batch_size": 512})
    one, four = planner.plan(config), planner.plan(config, gpus=4)
    assert four.batch == 128
    alone = planner.plan(LSUN.replace({"batch_size": 128}))
    assert four.by["computing"] == alone.seconds
    assert four.memory.held == alone.memory.held < one.memory.held
    uncaptured = next(m for m in shipped() if not m.captured)
    host = uncaptured.seconds / 385 * iteration_cost(config.replace({"precision": "bf16"})).launches
    assert four.by["computing"] + four.by["host"] == pytest.approx(host), "a small batch waits for the host"
    assert four.by["reducing"] == pytest.approx(
        1.5 * 4 * (5 * 10_141_441 + 12_220_675) / 100e9 + (6 + 63) * 1e-4
    )
    assert four.seconds == sum(four.by.values())
    assert any("no run on several GPUs was measured" in remark for remark in four.remarks)
    assert any("the host's time is that of one measurement" in remark for remark in four.remarks)
    large = planner.plan(LSUN.replace({"batch_size": 8192}), gpus=4)
    assert large.by["host"] == 0, "a large batch does not"


def test_a_batch_that_cannot_be_shared_out(planner: Planner) -> None:
    with pytest.raises(
        ConfigError, match=r"a batch of 1,000 cannot be .* 3 GPUs, .* that can: 999 and 1,002$"
    ):
        planner.plan(LSUN.replace({"batch_size": 1000}), gpus=3)
    with pytest.raises(ConfigError, match=r"the nearest that can: 8$"):
        planner.plan(LSUN.replace({"batch_size": 4}), gpus=8)


def test_what_would_fit(planner: Planner) -> None:
    first = planner.plan(LSUN.replace({"batch_size": 32768}))
    assert first.memory.fits is False
    assert first.advice == ("--gpus 4 fits, with a batch of 8192 a GPU",), "G's step takes its whole batch"
    second = planner.plan(LSUN.replace({"batch_size": 6144, "dat.second_order": True, "ndf": 2048}))
    assert second.memory.fits is False
    (parts, more) = second.advice
    microbatch = int(parts.split()[1])
    assert parts == f"--microbatch {microbatch} fits"
    for fitting in (microbatch, 2 * microbatch):
        memory = planner.memory(second.config.replace({"microbatch": fitting}), 1)
        assert memory.fits == (fitting == microbatch)
    gpus = int(more.split()[1])
    assert planner.plan(second.config, gpus).memory.fits
    assert not any(planner.plan(second.config, n).memory.fits for n in divisors(6144) if n < gpus)


def test_what_a_training_refuses_is_refused(planner: Planner) -> None:
    """In the same words; and nothing is advised that would be refused."""
    ssgan, dcgan = preset("ssgan-dat-cifar10"), preset("dcgan-dat-cifar10")
    whole = {"batch_size": 65536, "dat.second_order": True}
    with pytest.raises(
        ConfigError, match=r"^microbatch=16: the auxiliary loss of SSGANDiscriminator needs the"
    ):
        planner.plan(ssgan.replace({"microbatch": 16}))
    with pytest.raises(ConfigError, match=r"^microbatch=16: DCGANDiscriminator has batch norms \("):
        planner.plan(dcgan.replace({"microbatch": 16}))
    for config in (ssgan, dcgan):
        plan = planner.plan(config.replace({**whole, "ndf": 2048}))
        assert plan.memory.fits is False
        assert not any("microbatch" in line for line in plan.advice if "no microbatch" not in line)
    at_once = LSUN.replace({"fakes_at_once": True})
    with pytest.raises(
        ConfigError, match=r"^fakes_at_once=true is for one process, and there are 2, which share"
    ):
        planner.plan(at_once, gpus=2)
    assert planner.plan(at_once).remarks[0].startswith("fakes_at_once=true, but false: ")
    assert not any("fakes_at_once" in remark for remark in planner.plan(LSUN, gpus=2).remarks)


def test_what_was_not_measured(planner: Planner) -> None:
    with pytest.raises(
        ConfigError, match=r"no measurement on NVIDIA H200 with precision=fp32; .* precision=bf16"
    ):
        planner.plan(LSUN.replace({"precision": "fp32"}))
    with pytest.raises(ConfigError, match="with compile=false; measured are runs with compile=true"):
        planner.plan(LSUN.replace({"compile": False}))
    with pytest.raises(ConfigError, match="with precision=fp32"):
        planner.plan(LSUN.replace({"regularizers": [{"name": "ar1"}]}))
    other = planner.plan(preset("ssgan-dat-stl10").replace({"regularizers": [{"name": "gp"}]}))
    assert other.remarks[0].startswith("ssgan at resolution 48: extrapolated from sngan at 32, ")
    assert other.remarks[1].startswith("regularizers, other attacks and augmentation were not measured")
    thin = planner.plan(LSUN.replace({"ngf": 64, "fakes_at_once": False}))
    assert thin.remarks == (
        "sngan at resolution 64 with ngf=64: extrapolated from sngan at 32, sngan at 64, with unknown errors",
    )
    as_before = planner.plan(LSUN.replace({"ngf": 1024, "ndf": 1024, "fakes_at_once": False}))
    assert as_before.remarks == (), "the paper's widths"
    slow = planner.plan(LSUN.replace({"cuda_graph": False}))
    assert slow.by["host"] > 0
    assert slow.remarks[-1].startswith("cuda_graph=false: the host's time")


def test_names_of_devices() -> None:
    some = shipped()[0]
    two = [dataclasses.replace(some, device=name) for name in ("NVIDIA H200", "NVIDIA H200 NVL")]
    assert device_named("nvidia h200", two) == "NVIDIA H200"
    assert device_named("nvl", two) == "NVIDIA H200 NVL"
    with pytest.raises(
        ConfigError, match="'H200' may be NVIDIA H200 or NVIDIA H200 NVL: give the whole name"
    ):
        device_named("H200", two)
    expected = (
        r"no measurement for 'A100'; measured are: NVIDIA H200; NVIDIA H200 NVL\. .* gpu-check PART=sizes"
    )
    with pytest.raises(ConfigError, match=expected):
        device_named("A100", two)
    with pytest.raises(ConfigError, match="NVIDIA H200 NVL has 0 measurements of sizes, and a model needs 4"):
        Planner("NVL", two)


def results(tmp_path: Path, benchmarks: list[dict[str, Any]]) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"benchmarks": benchmarks, "commit_info": {"id": "abc"}}))
    return path


def test_results_of_another_device(tmp_path: Path) -> None:
    """A processor, whose memory is that of the process."""
    config = preset("sngan-dat-cifar10").replace(
        {"ngf": 32, "ndf": 32, "batch_size": 8, "steps": 3, "log_every": 7}
    )
    of_run = {
        "seconds": 1.5,
        "peak_process_bytes": 2e9,
        "settings": config.to_dict(),
        "machine": {"device": "EPYC"},
    }
    (found,) = read_results(results(tmp_path, [{"name": "bench_run_size[a]", "extra_info": of_run}]))
    assert (found.name, found.device, found.source) == ("a", "EPYC", "mine.json, commit abc")
    assert (found.config.ngf, found.config.batch_size) == (32, 8)
    assert (found.config.steps, found.config.log_every) == (100_000, 50), (
        "what is no part of an iteration is left out"
    )
    assert (found.seconds, found.held, found.images, found.whole) == (1.5, 2e9, 4096 * 3 * 32**2, None)
    more = of_run | {"peak_reserved_bytes": 5, "image_bytes": 6, "device_bytes": 7}
    del more["peak_process_bytes"]
    (found,) = read_results(results(tmp_path, [{"name": "bench_run_size[a]", "extra_info": more}]))
    assert (found.held, found.images, found.whole) == (5, 6, 7)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"mine.json has no result of bench_run_size: measure with make gpu-check"
    ):
        read_results(results(tmp_path, [{"name": "bench_other", "extra_info": {}}]))
    with pytest.raises(ConfigError, match=r"none.json does not exist: make gpu-check PART=sizes writes"):
        read_results(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"list\.json is no file of results"):
        read_results(tmp_path / "list.json")


RUN = {
    "settings": preset("sngan-dat-cifar10").to_dict(),
    "machine": {"device": "x"},
    "seconds": 1.0,
    "peak_reserved_bytes": 1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peak_reserved_bytes": None}, "peak_reserved_bytes must be a positive number, got None"),
        ({"seconds": "a"}, "seconds must be a positive number, got 'a'"),
        ({"seconds": True}, "seconds must be a positive number, got True"),
        ({"seconds": float("nan")}, "seconds must be a positive number, got nan"),
        ({"seconds": 0}, "seconds must be a positive number, got 0"),
        ({"image_bytes": [3]}, "image_bytes must be a positive number"),
        ({"device_bytes": -1}, "device_bytes must be a positive number"),
        ({"machine": {"device": 3}}, "the name of the device must be text, got 3"),
        ({"settings": {"batch_size": "many"}}, "batch_size"),
    ],
)
def test_a_file_with_a_wrong_entry(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = results(tmp_path, [{"name": "bench_run_size[a]", "extra_info": RUN | change}])
    with pytest.raises(ConfigError, match=f"mine.json is no file of results: .*{message}"):
        read_results(path)


def test_files_that_are_no_results(tmp_path: Path) -> None:
    lacking = {key: value for key, value in RUN.items() if key != "peak_reserved_bytes"}
    path = results(tmp_path, [{"name": "bench_run_size[a]", "extra_info": lacking}])
    expected = "bench_run_size\\[a\\] has neither peak_reserved_bytes nor peak_process_bytes"
    with pytest.raises(ConfigError, match=expected):
        read_results(path)
    uncaptured = {"name": "bench_iteration[fastdat DAT, not captured]"}
    for more in ({"median_ms": "x", "batch": 64, "n_dis": 5}, {"median_ms": 1, "batch": "x", "n_dis": 5}):
        path = results(tmp_path, [uncaptured | {"extra_info": more}])
        path.write_text(path.read_text()[:-1] + ', "machine_info": {"device": "x"}}')
        with pytest.raises(ConfigError, match=r"no file of results: .*(median_ms|batch_size)"):
            read_results(path)
    for text in ("[" * 100_000, "\xff", "{"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"mine\.json is no file of results"):
            read_results(path)


def test_the_images_count_where_they_lie_on_the_gpu(planner: Planner) -> None:
    """LSUN's 3,023,042 images lie on the one GPU; on two, each would hold a copy, more than a third of its memory."""
    one, two = planner.plan(LSUN), planner.plan(LSUN, gpus=2)
    assert one.memory.images == 3_023_042 * 3 * 64 * 64
    assert one.memory.total == one.memory.held + one.memory.images
    assert two.memory.images == 0
    grey = planner.plan(preset("dcgan-dat-mnist"), gpus=4)
    assert grey.memory.images == 60_000 * 28 * 28
    assert planner.plan(preset("sngan-dat-folder")).memory.images is None
    large = planner.plan(LSUN.replace({"batch_size": 10_240}))
    assert large.memory.held < USABLE * 141e9 < large.memory.total, "it would fit but for the images"
    assert large.memory.fits is False
    assert large.advice == ("--gpus 2 fits, with a batch of 5120 a GPU",)


def test_the_known_sizes_are_those_of_the_page() -> None:
    page = (REPOSITORY / "fastdat" / "data" / "docs" / "README.md").read_text()
    rows = re.findall(r"^\| \[([a-z0-9-]+)\].*? \| ([\d,]+) \| [\d,]+[^|]* \|$", page, re.MULTILINE)
    assert {name: int(count.replace(",", "")) for name, count in rows} == TRAIN_IMAGES
    assert TRAIN_IMAGES.keys() == DATASETS.keys() - {"folder"}


def test_a_device_of_known_memory() -> None:
    """What the measurements say of the memory counts."""
    told = [dataclasses.replace(m, device="Mine", whole=5 * 10**8) for m in shipped()]
    planned = Planner("Mine", told).plan(LSUN.replace({"batch_size": 64}))
    assert planned.memory.whole == 5 * 10**8
    assert planned.memory.fits is False
    assert planned.advice == (
        "no number of GPUs and no microbatch fits: the nets themselves are too large for this GPU",
    )
    untold = Planner("Mine", [dataclasses.replace(m, whole=None) for m in told]).plan(LSUN)
    assert (untold.memory.fits, untold.advice) == (None, ())


def test_what_is_shipped_is_measured() -> None:
    assert all(isinstance(m, Measured) and m.seconds > 0 for m in shipped())
    assert {m.device for m in shipped()} == {"NVIDIA H200"}
