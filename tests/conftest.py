"""Set-up of every test: compile caches inside the tree, fixed seeds, GPU tests only where there is one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from tests.environment import REPOSITORY, let_cublas_be_deterministic, use_cache_folder

use_cache_folder()  # both before anything imports torch
let_cublas_be_deterministic()

import pytest  # noqa: E402
import torch  # noqa: E402

if (REPOSITORY / "tests" / "data_fixtures.py").exists():
    pytest_plugins = ["tests.data_fixtures"]

torch.set_num_threads(min(torch.get_num_threads(), 4))  # the tests are small; more threads only wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="needs a CUDA device (make gpu-check)")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same generator state, whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def full_precision() -> None:
    """On a GPU, TF32 would hide errors of a thousandth."""
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(autouse=True)
def broken_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """After an illegal access nothing runs on the device in this process. One of pytest-xdist's ends then, and another
    takes its place: or all its later tests would fail as well."""
    yield
    if request.node.get_closest_marker("gpu") and "PYTEST_XDIST_WORKER" in os.environ:
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            os._exit(1)


@pytest.fixture
def own_engines() -> Iterator[None]:
    """The test makes its engines itself, and no other test finds them."""
    from fastdat.engine.compile import _ENGINES

    _ENGINES.clear()
    yield
    _ENGINES.clear()


@pytest.fixture
def compile_counters(own_engines: None) -> Iterator[dict[str, Counter[str]]]:
    """torch.compile's own counters (`["stats"]["unique_graphs"]`, `["graph_break"]`), from zero, nothing compiled."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    yield counters
    torch.compiler.reset()
    counters.clear()
