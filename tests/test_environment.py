"""What the tests' own set-up does before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.environment import REPOSITORY


def test_cublas_is_deterministic_where_tests_ask_for_it() -> None:
    """These are the settings with which torch takes cuBLAS for deterministic; it reads them once."""
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_set_up_comes_before_torch() -> None:
    code = "import sys, tests.environment, bench.gpu_check.records; print('torch' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert outcome.stdout == "False\n", outcome.stderr
