"""fp32 without TF32 where a regularizer compares D at very close samples; and D in bf16 for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat.regularizers import AR, R1, RFM
from tests.discriminators import Conv, batch
from tests.engine.term_cases import TERMS, Direction

BACKENDS: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)  # type: ignore[attr-defined]


def flags() -> tuple[str, ...]:
    return tuple(backend.fp32_precision for backend in BACKENDS)


class Noting(Conv):
    """Notes PyTorch's flags in every forward."""

    fails = False

    def __init__(self) -> None:
        super().__init__()
        self.noted: set[tuple[str, ...]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.noted.add(flags())
        if self.fails:
            raise ArithmeticError("of D")
        return super().forward(x)


@pytest.fixture(autouse=True)
def with_tf32() -> Any:
    before = flags()
    for backend in BACKENDS:
        backend.fp32_precision = "tf32"
    yield
    for backend, precision in zip(BACKENDS, before, strict=True):
        backend.fp32_precision = precision


@pytest.mark.parametrize("term", [AR(), RFM("conv1"), R1()], ids=lambda term: term.name)
def test_no_tf32_where_it_would_be_noise(term: Any) -> None:
    D, (xr, xf, _) = Noting(), batch("conv", m=5)
    fastdat.dat_step(D, xr.float(), xf.float(), regularizers=(term,), compile=False).backward()
    assert D.noted == {("tf32" if term.name == "r1" else "ieee",) * 3}
    assert flags() == ("tf32",) * 3


def test_the_flags_are_put_back_where_D_fails() -> None:
    D, (xr, xf, _) = Noting(), batch("conv", m=5)
    fastdat.dat_step(D, xr.float(), xf.float(), regularizers=(AR(),), compile=False)
    D.fails = True
    with pytest.raises(ArithmeticError):
        fastdat.dat_step(D, xr.float(), xf.float(), regularizers=(AR(),), compile=False)
    assert flags() == ("tf32",) * 3


@pytest.mark.usefixtures("only_traced")
def test_a_graph_serves_again() -> None:
    D: nn.Module = Conv()
    xr, xf, _ = batch("conv", m=5)
    for i in range(3):
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            fastdat.dat_step(D.double(), xr, xf, regularizers=(AR(),)).backward()
    assert flags() == ("tf32",) * 3


@pytest.mark.parametrize("name", [name for name in TERMS if not TERMS[name]().in_full_precision])
def test_a_discriminator_in_bf16(name: str) -> None:
    """Its weights and samples, without autocast: every call of D gets samples of D's own type."""
    D: nn.Module = Direction(Conv()) if name == "san" else Conv()
    xr, xf, _ = batch("conv", m=5, dtype=torch.bfloat16)
    fastdat.dat_step(D.bfloat16(), xr, xf, regularizers=(TERMS[name](),), compile=False).backward()
    for p in D.parameters():
        assert p.grad is not None
        assert p.grad.dtype == torch.bfloat16
        assert p.grad.isfinite().all()
