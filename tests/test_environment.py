"""What the tests' own set-up does before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import REPOSITORY, use_cache_folder


def test_cublas_is_deterministic_where_tests_ask_for_it() -> None:
    """These are the settings with which torch takes cuBLAS for deterministic; it reads them once."""
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


@pytest.mark.parametrize("always", [False, True])
def test_compile_times_are_measured_without_the_users_cache(
    always: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "warm")
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    use_cache_folder(tmp_path, always=always)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == (str(tmp_path / "inductor") if always else "warm")
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "triton")


def test_set_up_comes_before_torch() -> None:
    code = "import sys, tests.environment, bench.gpu_check.records; print('torch' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert outcome.stdout == "False\n", outcome.stderr
