"""The parts of a first step's time: nothing is lost and nothing counted twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.compile_time import compile_parts
from bench.compile_time.compile_parts import first_step_of

COLD: dict[str, Any] = {
    "import": 2.0,
    "inspect": 3.0,
    "first": 70.0,
    "second": 1.0,
    "cpu": 50.0,
    "cpu_compilers": 40.0,
    "metrics": {
        "_compile.compile_inner": 64.0,
        "OutputGraph.call_user_compiler": 59.0,
        "_recursive_joint_graph_passes": 1.0,
        "_recursive_post_grad_passes": 0.5,
        "pass.post_grad_passes.post_grad_custom_pre_pass": 0.25,
        "GraphLowering.run": 3.0,
        "Scheduler.__init__": 4.0,
        "Scheduler.codegen": 20.0,
        "PyCodeCache.load_by_key_path": 25.0,
    },
    "counters": {"aot_autograd": {"autograd_cache_miss": 1}, "inductor": {}},
}
WARM: dict[str, Any] = {
    **COLD,
    "first": 9.0,
    "metrics": {"_compile.compile_inner": 5.0, "OutputGraph.call_user_compiler": 2.0},
    "counters": {"aot_autograd": {"autograd_cache_hit": 1}, "inductor": {}},
}


def test_parts_add_up_to_the_time_to_the_end_of_the_first_step() -> None:
    step = first_step_of("DAT", "cold", "a warning\n" + json.dumps(COLD) + "\n")
    assert step.total == pytest.approx(2.0 + 70.0)
    assert step.parts["dynamo"] == 5.0
    assert step.parts["own passes"] == 0.25
    assert step.parts["torch's passes"] == 1.25
    assert step.parts["AOTAutograd, rest"] == pytest.approx(59.0 - 1.5 - 3 - 4 - 20 - 25)
    assert step.parts["run"] == 70.0 - 3.0 - 64.0
    assert not step.autograd_cache_hit


def test_what_a_warm_cache_leaves_out_takes_no_time() -> None:
    step = first_step_of("DAT", "warm", json.dumps(WARM))
    assert step.parts["code"] == step.parts["kernels"] == 0.0
    assert step.total == pytest.approx(11.0)
    assert step.autograd_cache_hit
    assert step.summary()["total_s"] == step.total


def test_a_process_without_a_measurement_is_an_error() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        first_step_of("DAT", "cold", "Segmentation fault\n")


def test_table_has_a_column_for_each_process() -> None:
    steps = [first_step_of("DAT", cache, json.dumps(f)) for cache, f in (("cold", COLD), ("warm", WARM))]
    head, *rows = compile_parts.tables(steps)
    assert head.split() == ["seconds", "DAT", "cold", "DAT", "warm"]
    assert next(row for row in rows if row.startswith("total")).split()[1:] == ["72.00", "11.00"]
    assert rows[-1].split()[-2:] == ["missed", "hit"]
