"""Where kernels run: on a CUDA device, else under Triton's interpreter, in a run of its own.

Triton reads ``TRITON_INTERPRET`` once, at import. So `make test` makes two runs: plain, where kernels are compiled for
GPUs that are not there, and as `TRITON_INTERPRET=1 pytest tests/kernels`, where they run on the CPU. A test that asks
for the fixture ``device`` runs kernels, one that asks for ``compiler`` compiles them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastdat.kernels.dispatch import AVAILABLE, INTERPRETED

CUDA = torch.cuda.is_available() and AVAILABLE and not INTERPRETED


# Triton 3.6's interpreter, at a loop whose bound is an argument, with NumPy 1.25 and later.
OF_INTERPRETER = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a CUDA device tests that run kernels are GPU tests."""
    for item in items:
        of_kernels = Path(__file__).parent in item.path.parents
        if of_kernels and "device" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu if CUDA else OF_INTERPRETER)


@pytest.fixture(scope="session")
def device() -> str:
    """The device kernels run on."""
    pytest.importorskip("triton")
    if CUDA:
        return "cuda"
    if not (INTERPRETED and AVAILABLE):
        pytest.skip("runs kernels: needs a CUDA device or TRITON_INTERPRET=1 (make test does that)")
    return "cpu"


@pytest.fixture(scope="session")
def compiler() -> None:
    """Kernels can be compiled for a GPU that is not there."""
    pytest.importorskip("triton")
    if INTERPRETED:
        pytest.skip("compiles kernels: needs TRITON_INTERPRET unset (make test does that too)")


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiles of ``spectral_norm`` so small that a small weight takes many programs of every kernel."""
    pytest.importorskip("triton")
    from fastdat.kernels import multi_tensor, spectral_launch, spectral_norm_backward
    from fastdat.kernels.multi_tensor import Tile, Tiles

    of_both = spectral_launch.PLANS, spectral_norm_backward.PLANS
    tiles = Tiles(Tile(4, 16), Tile(8, 4), divide=Tile(1, 64), dot=Tile(1, 64), combine=Tile(4, 8))
    monkeypatch.setattr(multi_tensor, "TILES", tiles)
    for plans in of_both:
        plans.clear()
    yield
    for plans in of_both:
        plans.clear()


@pytest.fixture
def deterministic() -> Iterator[None]:
    """New memory is filled with NaN, so that what a kernel leaves unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)
    torch.utils.deterministic.fill_uninitialized_memory = fill
