"""Runs the code of a step on tensors without memory, and records each launch instead of making it.

Call ``pretended_gpu.pretend()`` before importing this.
"""

from __future__ import annotations

from typing import Any

from torch._subclasses import FakeTensorMode

from bench.gpu_plan.launches import Launch
from bench.gpu_plan.recorder import REPLACEMENTS_OF_C, Recorder, recording_kernels


def launches_of(code: str) -> list[Launch]:
    """The launches of ``GeneratedStep.code``, in order."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        recorder = Recorder()
        scope: dict[str, Any] = {"__file__": "step", "__name__": "step"}
        with recording_kernels(recorder):
            exec(compile(code, "step", "exec"), scope)
            scope |= REPLACEMENTS_OF_C
            arguments = scope["get_args"]()
            with recorder:
                scope["call"](arguments)
    return recorder.launches
