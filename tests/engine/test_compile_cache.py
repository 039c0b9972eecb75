"""A step with fastdat's operators in its graph is found again in torch's caches, and not if their code has changed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch._inductor.utils import fresh_cache

import fastdat
from fastdat.engine import compile
from fastdat.kernels import inductor
from tests.discriminators import batch, make


def step_as_in_a_new_process(counters: dict[str, Counter[str]]) -> Counter[str]:
    """A step by an equal D, of which nothing is known but what lies in the caches; what AOTAutograd's cache counts."""
    torch.compiler.reset()
    compile._ENGINES.clear()
    counters.clear()
    xr, xf, args = batch("spectral", dtype=torch.float32)
    fastdat.dat_step(make("spectral", torch.float32), xr, xf, **args).backward()
    return Counter(
        {name: n for name, n in counters["aot_autograd"].items() if name.startswith("autograd_cache")}
    )


@pytest.mark.slow
def test_a_later_process_finds_the_step(
    compile_counters: dict[str, Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_cache():
        assert step_as_in_a_new_process(compile_counters)["autograd_cache_saved"] == 1
        assert step_as_in_a_new_process(compile_counters) == {"autograd_cache_hit": 1}
        monkeypatch.setattr(inductor, "_hash", lambda: "of other files")
        again = step_as_in_a_new_process(compile_counters)
        assert again["autograd_cache_hit"] == 0
        assert again["autograd_cache_miss"] == 1
