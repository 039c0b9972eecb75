"""A launch that is kept starts what Triton's own would have started: the same kernel, grid and arguments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from fastdat.kernels import formulas, multi_tensor, ops, repeated, spectral_launch, spectral_norm_backward
from fastdat.kernels.multi_tensor import SOME

EPS = 1e-12
SHAPES = ((16, 3, 3, 3), (16, 32, 3, 3), (1, 64))  # of them the first is not wide by rows
PLANS = spectral_launch.PLANS, spectral_norm_backward.PLANS


@pytest.fixture(autouse=True)
def no_plans() -> Iterator[None]:
    for plans in PLANS:
        plans.clear()
    yield
    for plans in PLANS:
        plans.clear()


def tensor(
    shape: Sequence[int], offset: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Tensor:
    """Random, ``offset`` elements after a multiple of 16 bytes; channels_last in 4-D."""
    size = torch.Size(shape).numel()
    flat = torch.randn(size + offset, dtype=dtype).to(device)[offset:]
    if len(shape) == 4:
        n, c, h, w = shape
        return flat.view(n, h, w, c).permute(0, 3, 1, 2)
    return flat.view(shape)


def arguments(
    offset: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], ...]:
    """Weights, of which the second begins elsewhere, u and v."""
    weights = [tensor(s, offset * (i == 1), dtype, device) for i, s in enumerate(SHAPES)]
    us = [F.normalize(tensor((w.shape[0],), 0, dtype, device), dim=0) for w in weights]
    vs = [F.normalize(tensor((w[0].numel(),), 0, dtype, device), dim=0) for w in weights]
    return weights, us, vs


# --- results, in the interpreter or on a GPU ----------------------------------------------------------------------


@pytest.mark.parametrize("u_first", [True, False], ids=["u first", "v first"])
def test_equal_shapes_elsewhere_in_memory(u_first: bool, device: str) -> None:
    """Other tensors, other alignment, other strides: each call has the results of its own arguments."""
    for offset in (0, 1, 0):
        for layout in (torch.channels_last, torch.contiguous_format):
            weights, us, vs = arguments(offset, device, torch.float64)
            if layout == torch.contiguous_format:
                weights = [w.contiguous() for w in weights]
            leaves = [w.requires_grad_() for w in weights]
            found = ops.spectral_norm(leaves, us, vs, 1, EPS, u_first, torch.float64)
            plain = formulas.spectral_norm(leaves, us, vs, 1, EPS, u_first, torch.float64)
            torch.testing.assert_close(found[:3], plain[:3], rtol=1e-12, atol=1e-12)
            upstream = [tensor(w.shape, offset, torch.float64, device) for w in weights]
            ours, theirs = (torch.autograd.grad(o[0], leaves, upstream) for o in (found, plain))
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert [len(plans) for plans in PLANS] == [2, 2]  # one a layout


def test_a_kept_plan_does_not_keep_a_mistake_unseen(device: str) -> None:
    weights, us, vs = arguments(device=device)
    ops.spectral_norm(weights, us, vs, 1, EPS, True, torch.float32)
    with pytest.raises(ValueError, match="must be of shapes"):
        ops.spectral_norm(weights, vs, us, 1, EPS, True, torch.float32)
    with pytest.raises(ValueError, match="as many"):
        ops.spectral_norm(weights, us[:2], vs, 1, EPS, True, torch.float32)


def test_dots_of_many_blocks(device: str, small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_tensor, "DOTS_A_LAYER", 2)
    weights = [
        torch.randn(3, 5 * multi_tensor.TILES.dot.cols + 1, device=device).requires_grad_(),
        torch.randn(2, 3, device=device),
    ]
    us = [F.normalize(torch.randn(w.shape[0], device=device), dim=0) for w in weights]
    vs = [F.normalize(torch.randn(w.shape[1], device=device), dim=0) for w in weights]
    found, exact = [], []
    for function, dtype, grads in ((ops, torch.float32, found), (formulas, torch.float64, exact)):
        leaf = weights[0].detach().to(dtype).requires_grad_()
        given = [leaf, weights[1].to(dtype)], [u.to(dtype) for u in us], [v.to(dtype) for v in vs]
        outs, *_ = function.spectral_norm(*given, 1, EPS, True, dtype)
        grads += torch.autograd.grad(outs[0].square().sum(), leaf)
    torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-4, atol=1e-6)


def test_layers_that_are_wide_and_others_in_one_launch() -> None:
    weights, us, vs = arguments()
    plan = spectral_launch._Plan(weights, us, vs, 1, True)
    (_, rows), (_, columns), (_, divide) = plan.steps_for(None)
    assert [row[multi_tensor.IS_WIDE.value] for row in rows.constants["LAYERS"]] == [0, 1, 1]
    assert rows.constants["WIDE"] == columns.constants["WIDE"] == SOME.value
    assert divide.constants["WIDE"] == multi_tensor.ALL.value
    steps = plan.steps_for((True, False, *[True] * 10))
    assert [row[multi_tensor.IS_WIDE.value] for row in steps[0][1].constants["LAYERS"]] == [0, 0, 1]
    assert [row[multi_tensor.IS_WIDE.value] for row in steps[2][1].constants["LAYERS"]] == [1, 0, 1]


def test_what_lies_in_work_begins_on_16_elements() -> None:
    work, size = multi_tensor.work_of(multi_tensor.SNGAN_32)
    spans = sorted(
        span
        for (rows, cols, *_), w in zip(multi_tensor.SNGAN_32, work, strict=True)
        for span in ((w.work_u, rows), (w.work_v, cols), (w.u_sums, w.u_count), (w.v_sums, w.v_count))
    )
    assert all(begin % 16 == 0 for begin, _ in spans)
    ends = [begin + length for begin, length in spans]
    assert all(end <= begin for end, (begin, _) in zip(ends, [*spans[1:], (size, 0)], strict=True))


# --- without a GPU, by Triton's own way to the driver -------------------------------------------------------------


class Driver:
    """In the place of Triton's driver: notes what it is given to launch."""

    numbers = itertools.count(10**6)

    def __init__(self) -> None:
        from triton.backends.compiler import GPUTarget

        self.utils, self.target = self, GPUTarget("cuda", 90, 32)
        self.launches: list[tuple[Any, ...]] = []
        self.device = next(self.numbers)  # of no GPU: a kernel keeps by this number what was compiled

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return 7

    def load_binary(self, name: str, *_: Any) -> tuple[str, str, int, int, int]:
        return name, name, 32, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 200_000}

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launch(*given: Any) -> None:
            grid, (stream, function), hooks, bound = given[:3], given[3:5], given[7:9], given[9:]
            self.launches.append((grid, stream, function, source, hooks, bound))

        return launch


@pytest.fixture
def driver(compiler: None) -> Iterator[Driver]:
    from triton.runtime import driver

    before, noting = driver._active, Driver()
    driver.set_active(noting)  # type: ignore[arg-type]
    yield noting
    driver._active = before


def with_addresses(bound: Any) -> Any:
    if isinstance(bound, tuple):
        return tuple(map(with_addresses, bound))
    return bound.data_ptr() if isinstance(bound, Tensor) else bound


def step(offset: int = 0) -> list[Tensor]:
    """One forward and backward without a graph, as in a compiled step. Returns what must live on."""
    weights, us, vs = arguments(offset)
    outs, state, sigma = spectral_launch.launch(weights, us, vs, 2, EPS, True, torch.bfloat16)
    grads = [torch.randn_like(o) for o in outs]
    dws = spectral_norm_backward.launch(grads, weights, state, sigma, torch.randn_like(sigma))
    return [*weights, *us, *vs, *outs, state, sigma, *grads, *dws]


@pytest.mark.parametrize("offset", [0, 1])
def test_what_is_launched_again(offset: int, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """In launches with addresses the same tensors, values and constants stand in the same places."""
    sets: list[list[Any]] = []
    run = repeated.run

    def noted(steps: Any, on: Any, tensors: Any, pointers: Any, sets_of: Any) -> None:
        run(steps, on, tensors, pointers, sets_of)
        sets.append([with_addresses(sets_of(tensors)[i]) for i, _ in steps])

    monkeypatch.setattr(repeated, "run", noted)
    alive = [step(offset)]
    first, driver.launches = driver.launches, []
    alive.append(step(offset))
    again = driver.launches
    names = ["rows_kernel", "columns_kernel"] * 2 + ["divide_kernel", "_dot_kernel", "_combine_kernel"]
    assert [function for *_, function, _, _, _ in again] == names
    expected = [each for launches in sets[2:] for each in launches]
    for ours, theirs, arguments in zip(again, first, expected, strict=True):
        assert ours[:5] == theirs[:5]  # grid, stream, function, source, hooks
        assert ours[5][: len(arguments)] == arguments  # addresses of the tensors of this call
        assert ours[5][len(arguments) :] == theirs[5][len(arguments) :]  # constants
        assert len(ours[5]) == len(theirs[5]) == len(ours[3].fn.arg_names)
        assert not any(isinstance(x, Tensor) for x in ours[5])
        assert with_addresses(theirs[5]) != ours[5]  # the tensors of the first call live elsewhere


def test_another_alignment_has_kernels_of_its_own(driver: Driver) -> None:
    """Also after both were compiled, each call starts the one for its own."""
    alive, seen = [], []
    for offset in (0, 1, 0, 1):
        driver.launches = []
        alive.append(step(offset))
        seen.append([source for _, _, _, source, _, _ in driver.launches])
    assert all(a is b for i in (0, 1) for a, b in zip(seen[i], seen[i + 2], strict=True))
    assert [a is b for a, b in zip(seen[0], seen[1], strict=True)] == [False] * 6 + [
        True
    ]  # dW takes no weights


def test_hooks_of_launches_are_called_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profilers live on them."""
    from triton import knobs

    alive = [step()]
    driver.launches = []
    entered, left = object(), object()
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", entered)
    monkeypatch.setattr(knobs.runtime, "launch_exit_hook", left)
    alive.append(step())
    assert [hooks for *_, hooks, _ in driver.launches] == [(entered, left)] * len(driver.launches)
    assert len(driver.launches) == 7


def test_the_oldest_plan_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated.Plans, "most", 2)
    plans: repeated.Plans[int] = repeated.Plans()
    for k in range(4):
        plans[k] = k
    assert dict(plans) == {2: 2, 3: 3}


def test_alignment() -> None:
    assert repeated.alignment([32, 0, 1600]) is None
    assert repeated.alignment([32, 8, 1600]) == (True, False, True)
