"""What looks wrong and is right in eager mode: equal to the reference, and everything else stays as it was."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import fastdat
from fastdat import DATConfig, regularizers
from fastdat.config import AttackConfig
from fastdat.engine.copies import Copies
from fastdat.engine.prepared import Prepared
from fastdat.engine.types import Batch
from fastdat.regularizers import RobGAN
from tests.compare import gradients, relative_error
from tests.engine.odd_discriminators import (
    OUTSIDE,
    PLAIN,
    RIGHT,
    STRONG,
    Conditional,
    Converts,
    Fixed,
    Net,
    Scaled,
    Y,
    after,
    before,
    net,
    of_inference,
    samples,
)


def assert_right(
    D: nn.Module, xr: Tensor, xf: Tensor, config: DATConfig = STRONG, loss: Any = "gan", **options: Any
) -> None:
    """Loss and gradients of two eager steps in a row are the reference's, and everything else stays as it is."""
    x = xr.detach().clone(), xf.detach().clone()
    of_reference_too = {name: option for name, option in options.items() if name != "microbatch"}
    expected = fastdat.reference.dat_step(D, *x, config, loss, **of_reference_too)
    old = {name: p.detach().clone() for name, p in D.named_parameters()}
    D.zero_grad()
    expected.backward()
    of_reference = gradients(D)
    for _ in range(2):
        D.zero_grad()
        value = fastdat.dat_step(D, xr, xf, config, loss, compile=False, **options)
        value.backward()
        assert relative_error(value.detach(), expected.detach()) < 1e-9
        assert float((gradients(D) - of_reference).abs().max()) < 1e-9 * float(of_reference.abs().max())
    assert torch.equal(xr, x[0])
    assert torch.equal(xf, x[1])
    for name, p in D.named_parameters():
        torch.testing.assert_close(p.detach(), old[name])


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("kind", RIGHT)
def test_an_odd_discriminator_is_right_in_eager_mode(kind: str, second_order: bool) -> None:
    D = RIGHT[kind]().double()
    xr, xf = samples(dtype=torch.float64), samples(dtype=torch.float64)
    assert_right(D, xr, xf, replace(STRONG, second_order=second_order))
    if kind in ("weight norm, older", "keeps its features"):
        with torch.no_grad():
            D(xr)
        copy.deepcopy(D)  # no graph of a step is left in it


def double(D: nn.Module, **options: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "D": D.double(),
        "xr": samples(6, torch.float64),
        "xf": samples(6, torch.float64),
        **options,
    }


def of_one_tensor(how: Callable[[Tensor], tuple[Tensor, Tensor]], size: tuple[int, ...]) -> Any:
    def make() -> dict[str, Any]:
        xr, xf = how(torch.rand(size, dtype=torch.float64) * 2 - 1)
        return {"D": Net().double(), "xr": xr, "xf": xf}

    return make


def penalty_by_func(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    """R1."""
    return torch.func.grad(lambda x: D(x).sum())(xr).square().sum(1).mean()


def penalty_by_autograd(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    with torch.enable_grad():
        x = xr.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        return gradient.square().sum(1).mean()


class Squeezed(Net):
    """Of one sample it gives a logit of shape ()."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        return logits.squeeze()


def frozen(D: nn.Module) -> nn.Module:
    D.a.requires_grad_(False)
    return D


WORKS: dict[str, Callable[[], dict[str, Any]]] = {
    "detached input, no attack": double(before(Tensor.detach), config=PLAIN),
    "a frozen layer": double(frozen(Net())),
    "two halves of one batch": of_one_tensor(lambda x: x.chunk(2), (8, 4)),
    "samples that overlap": of_one_tensor(lambda x: (x[:-1], x[1:]), (8, 4)),
    "one sample, expanded": of_one_tensor(lambda x: (x[:1].expand(4, -1), x[1:2].expand(4, -1)), (8, 4)),
    "every other column": of_one_tensor(lambda x: x[:, ::2].chunk(2), (8, 8)),
    "transposed": of_one_tensor(lambda x: x.T.chunk(2), (4, 8)),
    "other outputs": double(after(lambda t: (t, t.detach(), 2 * t))),
    "an argument for all samples": double(
        Scaled(), args_real=(torch.tensor([2.0]),), args_fake=(torch.tensor([3.0]),)
    ),
    "a number as an argument": double(Scaled(), args_real=(2.0,), args_fake=(3,)),
    "labels": double(Conditional(), args_real=(torch.arange(6) % 5,), args_fake=(torch.zeros(6).long(),)),
    "a loss of one's own": double(Net(), loss=Fixed()),
    "R1 in aux_loss by torch.func": double(Net(), aux_loss=penalty_by_func),
    "R1 in aux_loss by autograd": double(Net(), aux_loss=penalty_by_autograd),
    "aux_loss with constants": double(Net(), aux_loss=lambda D, xr, xf: (D(xf) * OUTSIDE.detach()).mean()),
    "no limits": double(Net(), config=DATConfig(bounds=None, delta_clip=None)),
    "no logit dimension": double(Squeezed(), microbatch=5),
    "no logit dimension, one side": double(Squeezed(), microbatch=5, config=replace(STRONG, real=False)),
    "D in eval mode": double(net(lambda h, norm: norm(h), nn.BatchNorm1d(6)).eval()),
}


@pytest.mark.parametrize("case", WORKS)
def test_what_looks_odd_is_right(case: str) -> None:
    call = WORKS[case]()
    assert_right(**call)


def test_a_frozen_discriminator_gives_the_loss_and_the_gradient_of_the_fakes() -> None:
    D = Net().double().requires_grad_(False)
    xr, xf = samples(dtype=torch.float64), samples(dtype=torch.float64)
    assert not fastdat.dat_step(D, xr, xf, STRONG, compile=False).requires_grad
    found = []
    for step in (fastdat.reference.dat_step, lambda *a: fastdat.dat_step(*a, compile=False)):
        x = xf.clone().requires_grad_()
        step(D, xr, x, STRONG).backward()
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=str)
def test_a_discriminator_that_converts_its_input_is_right(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    D, x = Converts().to(dtypes[0]), (samples(dtype=dtypes[1]), samples(dtype=dtypes[1]))
    fastdat.reference.dat_step(D, *x, STRONG).backward()
    expected = gradients(D)
    D.zero_grad()
    fastdat.dat_step(D, *x, STRONG, compile=False).backward()
    assert relative_error(gradients(D), expected) < 1e-6


def test_inference_mode_gives_the_loss_only() -> None:
    D, xr, xf = Net().double(), samples(dtype=torch.float64), samples(dtype=torch.float64)
    expected = fastdat.reference.dat_step(D, xr, xf, STRONG).detach()
    with torch.inference_mode():
        loss, info = fastdat.dat_step(D, xr, xf, STRONG, compile=False, with_info=True)
        again = fastdat.dat_step(D, xr.clone(), xf.clone(), STRONG, compile=False)
    torch.testing.assert_close((loss, again), (expected, expected), rtol=1e-12, atol=0)
    assert not loss.requires_grad
    assert not info.xr_adv.is_inference()


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
def test_a_step_leaves_no_weight_behind_in_older_weight_norm(second_order: bool) -> None:
    D = RIGHT["weight norm, older"]()
    weight = D.a.weight
    fastdat.dat_step(D, samples(), samples(), replace(STRONG, second_order=second_order), compile=False)
    assert D.a.weight is weight


@pytest.mark.parametrize(
    "x",
    [torch.rand(4, 4).T, torch.rand(8, 8)[:, ::2], torch.rand(1, 4).expand(4, -1)],
    ids=["T", "columns", "1"],
)
def test_copies_have_the_strides_for_which_a_step_is_compiled(x: Tensor) -> None:
    copied = Copies(Batch(x, x + 1)).batch.xr
    assert torch.equal(copied, x)
    assert copied.stride() == x.stride()


def test_a_compiled_step_gets_no_tensor_of_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is traced for others, and would look at these anew in every call."""
    seen: list[bool] = []
    run = Prepared.run

    def watched(self: Prepared, D: nn.Module, batch: Batch, *rest: Any) -> Any:
        seen.extend(x.is_inference() for x in (batch.xr, batch.xf, *batch.args_real))
        return run(self, D, batch, *rest)

    monkeypatch.setattr(Prepared, "run", watched)
    xr, xf, y = of_inference(lambda: (samples(), samples(), Y.clone()))
    fastdat.dat_step(Conditional(), xr, xf, args_real=(y,), args_fake=(Y,), compile=False)
    assert seen == [False] * 3


@pytest.mark.parametrize("microbatch", [None, 2])
def test_samples_made_in_inference_mode(microbatch: int | None) -> None:
    D = Conditional().double()
    xr, xf, y = of_inference(lambda: (samples(dtype=torch.float64), samples(dtype=torch.float64), Y.clone()))
    labels = {"args_real": (y,), "args_fake": (y,)}
    fastdat.reference.dat_step(
        D, xr.clone(), xf.clone(), STRONG, args_real=(y.clone(),), args_fake=(y.clone(),)
    ).backward()
    expected = gradients(D)
    D.zero_grad()
    fastdat.dat_step(D, xr, xf, STRONG, compile=False, microbatch=microbatch, **labels).backward()
    assert relative_error(gradients(D), expected) < 1e-12


@pytest.mark.parametrize(
    "config", [PLAIN, STRONG, replace(STRONG, second_order=True)], ids=["plain", "1", "2"]
)
def test_samples_stay_as_they_are_where_only_some_are_changed_in_place(config: DATConfig) -> None:
    """The first call shows nothing of it."""

    class Rescales(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.div_(255) if x.max() > 1 else x)

    D = Rescales()
    fastdat.dat_step(D, samples(), samples(), config, compile=False)
    bright, dark = samples() * 255, samples()
    old = bright.clone(), dark.clone()
    # Where both sides go through D in one copy, as in the plain step, nothing is wrong.
    refused = (
        pytest.raises((ValueError, RuntimeError), match=r"in.place") if config.attacks else nullcontext()
    )
    with refused:
        fastdat.dat_step(D, bright, dark, config, compile=False)
    torch.testing.assert_close((bright, dark), old, rtol=0, atol=0)


def test_samples_stay_as_they_are_where_aux_loss_changes_only_some() -> None:
    def aux_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
        return D(xf.div_(255) if xf.max() > 1 else xf).mean()

    D, xr, bright = Net(), samples(), samples() * 255
    fastdat.dat_step(D, xr, samples(), PLAIN, aux_loss=aux_loss, compile=False)
    old = xr.clone(), bright.clone()
    with pytest.raises(ValueError, match=r"D \(or aux_loss\) changes its input in place"):
        fastdat.dat_step(D, xr, bright, PLAIN, aux_loss=aux_loss, compile=False)
    torch.testing.assert_close((xr, bright), old, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1.0 + 1e-7])
def test_check_finite_lets_right_values_through(scale: float) -> None:
    xr, xf = samples() * 0, samples().abs()  # G may give bright images only
    xr[0, 0], xr[0, 1] = -scale, scale
    fastdat.dat_step(Net(), xr, xf, compile=False, check_finite=True)
    fastdat.dat_step(Net(), 300 * xr, xf, DATConfig(bounds=None), compile=False, check_finite=True)
    fastdat.dat_step(Net(), xr.abs(), xf, DATConfig(bounds=(0.0, 1.0)), compile=False, check_finite=True)
    low = Net().bfloat16(), xr.bfloat16(), xf.bfloat16()
    fastdat.dat_step(*low, compile=False, check_finite=True)


def test_a_further_output_without_samples_in_parts() -> None:
    """It is a number of each call of D."""
    D = after(lambda t: (t, t.mean())).double()
    xr, xf = samples(5, torch.float64), samples(5, torch.float64)
    _, whole = fastdat.dat_step(D, xr, xf, PLAIN, compile=False, with_info=True)
    _, info = fastdat.dat_step(D, xr, xf, PLAIN, compile=False, with_info=True, microbatch=2)
    assert [side[0].shape for side in whole.aux] == [(), ()]
    for side, x in zip(info.aux, (xr, xf), strict=True):
        torch.testing.assert_close(side[0], torch.stack([D(part)[1] for part in x.split(2)]).detach())


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_torch_caches(normed: Callable[[nn.Module], nn.Module]) -> None:
    """Those of the first pass, which are constants, must not serve the pass that trains D."""
    D = nn.Sequential(normed(nn.Linear(4, 6)), nn.Tanh(), normed(nn.Linear(6, 1))).double()
    xr, xf = samples(dtype=torch.float64), samples(dtype=torch.float64)
    other = copy.deepcopy(D)
    fastdat.dat_step(D, xr, xf, STRONG, "gan", compile=False).backward()
    with parametrize.cached():
        fastdat.dat_step(other, xr, xf, STRONG, "gan", compile=False).backward()
        assert parametrize._cache_enabled == 1
    assert parametrize._cache_enabled == 0
    assert float(gradients(D).abs().min()) > 0
    torch.testing.assert_close(gradients(other), gradients(D), rtol=1e-12, atol=0)


@pytest.mark.parametrize("microbatch", [None, 3])
@pytest.mark.parametrize(
    "config", [STRONG, replace(STRONG, second_order=True), RobGAN(steps=2)], ids=["1", "2", "robgan"]
)
def test_samples_that_are_numbers(config: AttackConfig, microbatch: int | None) -> None:
    class OfNumbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.7, -1.2, 0.4], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (x[:, None] * self.w).tanh().sum(1)

    D, xr, xf = OfNumbers(), samples(5, torch.float64)[:, 0], samples(5, torch.float64)[:, 1]
    terms = (regularizers.R1(0.3), regularizers.GP(0.2), regularizers.DRAGAN(0.1))
    found = []
    for step, more in (
        (fastdat.reference.dat_step, {}),
        (fastdat.dat_step, {"compile": False, "microbatch": microbatch}),
    ):
        D.zero_grad()
        options = {
            "regularizers": terms,
            "generator": torch.Generator().manual_seed(3),
            "with_info": True,
            **more,
        }
        loss, info = step(D, xr, xf, config, "gan", **options)
        loss.backward()
        found.append((loss.detach(), gradients(D), info.grad_norm_real, info.delta_rms_fake))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_hooks_on_saved_tensors() -> None:
    D, xr, xf = Net().double(), samples(dtype=torch.float64), samples(dtype=torch.float64)
    expected = fastdat.reference.dat_step(D, xr, xf, STRONG).detach()
    with torch.autograd.graph.save_on_cpu():
        loss = fastdat.dat_step(D, xr, xf, STRONG, compile=False)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)


def test_expanded_samples_stay_constants() -> None:
    x = torch.rand(1, 4).expand(4, -1)
    Copies(Batch(x, x + 1)).batch.xr.requires_grad_()
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [
        (1.0, 0.0, ""),
        (127.5, 1.0, r"xr has values in \[.*x / 127.5 - 1"),
        (0.5, 1.0, r"xr has values .*x \* 2 - 1"),
    ],
)
def test_the_first_step_looks_at_the_range(
    caplog: pytest.LogCaptureFixture, scale: float, shift: float, said: str
) -> None:
    """Images in 0..255 or in [0, 1] would be moved wrongly without a word."""
    D, xr, xf = Net(), (samples(64) + shift) * scale, samples(64)
    for _ in range(2):
        fastdat.dat_step(D, xr, xf, compile=False)
        fastdat.dat_step(D, xr, xf, PLAIN, compile=False)
    assert len(caplog.messages) == bool(said)
    assert re.search(said, "".join(caplog.messages))
    caplog.clear()
    fastdat.dat_step(Net(), xr, xf, DATConfig(bounds=None), compile=False)
    fastdat.dat_step(Net(), samples(4).abs(), samples(4), compile=False)  # so few may be positive by chance
    assert not caplog.messages
