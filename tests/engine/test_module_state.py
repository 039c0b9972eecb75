"""What D keeps of its own, beside buffers: a look at D leaves it alone, and a step moves it as a plain call does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.engine.module_state import attributes_kept
from fastdat.regularizers import LeCam

BATCH, WIDTH = 6, 4


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    xr, xf = (torch.rand(BATCH, WIDTH, generator=generator) * 2 - 1 for _ in range(2))
    return xr, xf


class Keeping(nn.Module):
    """Keeps something while it is called; ``calls`` counts the calls of all of them."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Any:
        Keeping.calls += 1
        h = torch.tanh(self.first(x))
        self.keep(h)
        return self.last(h)

    def keep(self, h: Tensor) -> None: ...


class Assigned(Keeping):
    m: Tensor = torch.zeros(5)

    def keep(self, h: Tensor) -> None:
        self.m = 0.9 * self.m + 0.1 * h.detach().mean(0)


class InPlace(Keeping):
    def __init__(self) -> None:
        super().__init__()
        self.m = torch.zeros(5)

    def keep(self, h: Tensor) -> None:
        with torch.no_grad():
            self.m.lerp_(h.mean(0), 0.1)


class Number(Keeping):
    m = 0.0

    def keep(self, h: Tensor) -> None:
        self.m = 0.9 * self.m + 0.1 * h.detach().mean().item()


class Among(Keeping):
    """In containers."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {"m": torch.zeros(5), "all": []}

    def keep(self, h: Tensor) -> None:
        with torch.no_grad():
            self.kept["m"].lerp_(h.mean(0), 0.1)
        self.kept["all"] = [*self.kept["all"][-3:], h.detach()]


@pytest.mark.parametrize("kind", [Assigned, InPlace, Number, Among])
def test_what_d_keeps_stays_a_number(kind: type[Any]) -> None:
    """D is looked at with NaN among its samples."""
    D = kind()
    loss = fastdat.dat_step(D, *samples(), compile=False)
    kept = D.kept["m"] if kind is Among else D.m
    assert torch.isfinite(loss)
    assert bool(torch.isfinite(torch.as_tensor(kept)).all())
    assert bool(torch.as_tensor(kept).ne(0).any()), "the step itself has moved it"


def test_an_error_of_the_compiler_leaves_d_as_it_was() -> None:
    D = InPlace()
    with pytest.raises(RuntimeError, match=r"dat_step\(..., compile=False\)"):
        fastdat.dat_step(D, *samples())
    assert D.m.eq(0).all()


def test_attributes_are_put_back() -> None:
    inner, generator = nn.Linear(2, 2), torch.Generator().manual_seed(3)
    D: Any = nn.Sequential(inner)
    activation = torch.ones(2, requires_grad=True) * 2
    D.count, D.items, D.average, D.rng, D.activation = (
        1,
        [1, {"a": torch.ones(2)}],
        torch.ones(2),
        generator,
        activation,
    )
    average, items, draws = D.average, D.items, generator.get_state()
    with attributes_kept(dict(D.named_modules())) as touched:
        D.count += 1
        D.items[1]["a"].zero_()
        D.items.append(3)
        D.average = torch.zeros(2)
        average.fill_(5)
        torch.rand(1, generator=generator)
        inner.new = "left behind"
    assert (D.count, len(D.items), D.average is average, D.items is items) == (1, 2, True, True)
    assert D.average.tolist() == D.items[1]["a"].tolist() == [1, 1]
    assert torch.equal(generator.get_state(), draws)
    assert not hasattr(inner, "new")
    assert touched == {("", "count"), ("", "items"), ("", "average"), ("", "rng"), ("0", "new")}
    activation.sum().backward()  # what was not changed was not written, either


class Counter(Keeping):
    count = 0

    def keep(self, h: Tensor) -> None:
        self.count += 1


class Features(Keeping):
    def keep(self, h: Tensor) -> None:
        self.features = [h, {"twice": 2 * h}]


@pytest.mark.parametrize("kind", [Counter, Features])
def test_an_eager_d_that_keeps_something_is_looked_at_once(kind: type[Any]) -> None:
    def calls(D: Keeping) -> int:
        before = Keeping.calls
        fastdat.dat_step(D, *samples(), compile=False)
        return Keeping.calls - before

    D, plain = kind(), Keeping()
    first, second = calls(D), calls(D)
    assert first > second
    assert second == [calls(plain) for _ in range(2)][1]


# --- frozen parameters and buffers that D moves --------------------------------------------------------------------


class Moving(nn.Module):
    """Centres its features by an average that it keeps under ``how``."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.how = nn.Linear(WIDTH, 5), nn.Linear(5, 1), how
        if how.startswith("buffer"):
            self.register_buffer("m", torch.zeros(5))
        else:
            self.m = nn.Parameter(torch.zeros(5), requires_grad=False)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.first(x))
        if self.training:
            now = 0.9 * self.m + 0.1 * h.detach().mean(0)
            if self.how == "buffer, assigned":
                self.m = now
            elif self.how.endswith("data"):
                self.m.data = now
            else:
                with torch.no_grad():
                    self.m.copy_(now)
        return self.last(h - self.m.clone())


HOW = ["buffer, assigned", "parameter, in place", "buffer, data", "parameter, data"]
COMPILED = [
    pytest.param(how, True, marks=pytest.mark.slow) for how in HOW[:2]
]  # torch.compile takes no ``.data =``


@pytest.mark.parametrize(("how", "compile"), [*[(how, False) for how in HOW], *COMPILED])
def test_it_moves_as_a_buffer_that_is_moved_in_place(how: str, compile: bool) -> None:
    D, expected = Moving(how), Moving("buffer, in place")
    for config in (DATConfig(), DATConfig(steps=2)):
        for net, compiled in ((D, compile), (expected, False)):
            net.zero_grad()
            fastdat.dat_step(net, *samples(), config, compile=compiled).backward()
        torch.testing.assert_close(D.m, expected.m)
        for own, other in zip(D.first.parameters(), expected.first.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)
    assert bool(D.m.ne(0).all())


class OldSpectralNorm(nn.Module):
    """The wrapper that was copied into hundreds of repositories before torch had its own."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__()
        self.module = module
        w = module.weight
        del module._parameters["weight"]
        module.weight_bar = w
        module.weight_u = nn.Parameter(torch.randn(w.shape[0]), requires_grad=False)

    def forward(self, x: Tensor) -> Any:
        w, u = self.module.weight_bar, self.module.weight_u
        v = nn.functional.normalize(w.data.t() @ u.data, dim=0)
        u.data = nn.functional.normalize(w.data @ v, dim=0)
        self.module.weight = w / (u @ w @ v)
        return self.module(x)


def test_a_spectral_norm_written_by_hand_advances() -> None:
    torch.manual_seed(0)
    D = nn.Sequential(OldSpectralNorm(nn.Linear(WIDTH, 5)), nn.Tanh(), nn.Linear(5, 1))
    for _ in range(30):
        fastdat.dat_step(D, *samples(), compile=False)
    inner: Any = D[0]
    w, u = inner.module.weight_bar, inner.module.weight_u
    assert (w.t() @ u).norm().item() == pytest.approx(torch.linalg.matrix_norm(w, 2).item(), rel=1e-3)


def test_one_moving_tensor_of_two_layers_is_refused() -> None:
    D: Any = nn.Sequential(
        nn.Linear(WIDTH, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 1)
    )
    D[3].running_mean = D[1].running_mean
    with pytest.raises(
        ValueError, match=r"D moves '1.running_mean', and '3.running_mean' is the same tensor"
    ):
        fastdat.dat_step(D, *samples(), compile=False)
    assert D[1].running_mean.eq(0).all()


def test_parameters_that_the_first_batch_initialises() -> None:
    class ActNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(5))
            self.register_buffer("ready", torch.tensor(False))

        def forward(self, x: Tensor) -> Tensor:
            if not self.ready:
                self.loc.data.copy_(-x.detach().mean(0))
                self.ready.fill_(True)
            return x + self.loc

    D: Any = nn.Sequential(nn.Linear(WIDTH, 5), ActNorm(), nn.ReLU(), nn.Linear(5, 1))
    xr, xf = samples()
    with pytest.raises(ValueError, match=r"D changes its parameter '1.loc'.*call D\(xr\) once before"):
        fastdat.dat_step(D, xr, xf, compile=False)
    assert D[1].loc.eq(0).all()
    D(xr)
    assert torch.isfinite(fastdat.dat_step(D, xr, xf, compile=False))


# --- buffers of other kinds ----------------------------------------------------------------------------------------


class Mixing(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Any:
        return self.last(torch.tanh((self.matrix @ x.t()).t()))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_sparse_buffers(sparse: Callable[[Tensor], Tensor]) -> None:
    dense = torch.eye(WIDTH).roll(1, 0) * 2
    losses = []
    for matrix in (dense, sparse(dense)):
        torch.manual_seed(0)
        losses.append(fastdat.dat_step(Mixing(matrix), *samples(), compile=False))
    torch.testing.assert_close(losses[0], losses[1])


def test_a_buffer_of_nan_does_not_move() -> None:
    D = nn.Linear(WIDTH, 1)
    D.register_buffer("best", torch.tensor(torch.nan))
    assert torch.isfinite(fastdat.dat_step(D, *samples(), compile=False, microbatch=2))


# --- precision -----------------------------------------------------------------------------------------------------


class Halved(Keeping):
    dtype = torch.float16

    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=self.dtype):
            h = torch.tanh(self.first(x))
        self.cached = torch.is_autocast_cache_enabled()
        return self.last(h.float())


@pytest.mark.parametrize(("dtype", "warned"), [(torch.float16, True), (torch.bfloat16, False)])
def test_fp16_within_d_is_warned_of(
    dtype: torch.dtype, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    D = Halved()
    D.dtype = dtype
    with caplog.at_level(logging.WARNING, logger="fastdat"):
        fastdat.dat_step(D, *samples(), compile=False)
    assert ("before a GradScaler" in caplog.text) is warned


@pytest.mark.parametrize("outside", [None, False, True])
def test_no_cast_weights_are_kept(outside: bool | None) -> None:
    """Within a region that turns autocast off they would be kept until it ends, those of every step."""
    D = Halved()
    D.dtype = torch.bfloat16
    if outside is None:
        fastdat.dat_step(D, *samples(), compile=False)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outside):
            fastdat.dat_step(D, *samples(), compile=False)
    assert D.cached is False
    assert torch.is_autocast_cache_enabled()


# --- parts ---------------------------------------------------------------------------------------------------------


def test_without_spectral_norm_parts_need_not_share_a_sigma() -> None:
    losses = []
    for microbatch in (None, 2):
        torch.manual_seed(0)
        D = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, 1))
        losses.append(
            fastdat.dat_step(
                D,
                *samples(),
                DATConfig.official(),
                regularizers=(LeCam(),),
                compile=False,
                microbatch=microbatch,
            )
        )
    torch.testing.assert_close(losses[0], losses[1])
    normed = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, 5)), nn.Tanh(), nn.Linear(5, 1)
    )
    with pytest.raises(ValueError, match="needs one sigma for all parts"):
        fastdat.dat_step(
            normed, *samples(), DATConfig.official(), regularizers=(LeCam(),), compile=False, microbatch=2
        )
