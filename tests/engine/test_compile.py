"""dat_step as one compiled graph: exact in both orders, on every kind of D, traced once."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches, gradients, relative_error
from tests.discriminators import batch, make
from tests.gan_discriminators import CHECKPOINTED
from tests.slow_cases import slow_except

FP32 = 1e-5
STRONG = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)
# Each set of fields is another graph; together they hold every field and loss in second order.
GRAPHS = {
    "eq10-hinge": ({"seed": "eq10", "reduction": "sample", "bounds": None}, "hinge"),
    "alg1-gan": ({"seed": "alg1", "eps_batch": None, "eps": 3.0, "clip_real": False}, "gan"),
    "eq10-lsgan-steps": ({"seed": "eq10", "steps": 2, "eps": 8.0}, "lsgan"),
    "wgan-datt": ({"reduction": "sample", "clean_weight": 1.0, "delta_clip": None}, "wgan"),
    "real-only": ({"fake": False}, "gan"),
    "fake-only": ({"real": False}, "gan"),
    "no-attack": ({"real": False, "fake": False}, "gan"),
}


@pytest.mark.parametrize("graph", slow_except(["fake-only"], GRAPHS))
def test_every_field_and_loss(graph: str) -> None:
    fields, loss = GRAPHS[graph]
    xr, xf, _ = batch("mlp", dtype=torch.float32)
    D = make("mlp", torch.float32)
    assert_step_matches(D, xr, xf, replace(STRONG, **fields), loss, tolerance=FP32, compile=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "second_order"),
    [
        *[(kind, True) for kind in ("smooth", "spectral", "spectral-hook", "batchnorm", "conditional")],
        *[
            (kind, False) for kind in ("spectral", "conditional")
        ],  # the others' are part of their second order
    ],
)
def test_every_kind_of_discriminator(kind: str, second_order: bool) -> None:
    xr, xf, args = batch(kind, dtype=torch.float32)
    D = make(kind, torch.float32)
    config = replace(STRONG, second_order=second_order)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=FP32, compile=True, **args)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["official", "paper"])
def test_presets(preset: str) -> None:
    xr, xf, _ = batch("spectral", dtype=torch.float32)
    D = make("spectral", torch.float32)
    config = getattr(DATConfig, preset)()
    assert_step_matches(D, xr, xf, config, "hinge", tolerance=FP32, compile=True)


def rotation_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    """SSGAN's on a batch whose quarters are turned by 0, 90, 180 and 270 degrees."""
    turns = torch.arange(xr.shape[0], device=xr.device) * 4 // xr.shape[0]
    turned = torch.stack([x.rot90(i * 4 // xr.shape[0], (1, 2)) for i, x in enumerate(xr)])
    return nn.functional.cross_entropy(D(turned)[1], turns)


@pytest.mark.slow
def test_several_outputs_and_an_aux_loss() -> None:
    xr, xf, _ = batch("two-heads", dtype=torch.float32)
    D = make("two-heads", torch.float32)
    assert_step_matches(D, xr, xf, STRONG, "gan", tolerance=FP32, compile=True, aux_loss=rotation_loss)


@pytest.mark.slow
def test_microbatches() -> None:
    xr, xf, _ = batch("spectral", m=8, dtype=torch.float32)
    D = make("spectral", torch.float32)
    config = replace(STRONG, second_order=False)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=FP32, compile=True, microbatch=4)


@pytest.mark.slow
def test_bf16_autocast() -> None:
    """As close to fp64 as the eager reference under the same autocast is, within a factor."""
    D, (xr, xf, _) = make("conv"), batch("conv", m=16)
    config = replace(STRONG, delta_clip=None, bounds=None)
    grads = {}
    for name in ("exact", "reference", "compiled"):
        E = make("conv", torch.float64 if name == "exact" else torch.float32)
        E.load_state_dict(D.state_dict())
        step = fastdat.dat_step if name == "compiled" else fastdat.reference.dat_step
        x = (xr, xf) if name == "exact" else (xr.float(), xf.float())
        with torch.autocast("cpu", torch.bfloat16, enabled=name != "exact"):
            loss = step(E, *x, config, "gan")
        loss.backward()
        grads[name] = gradients(E)
    bound = relative_error(grads["reference"], grads["exact"])
    assert relative_error(grads["compiled"], grads["exact"]) <= 2 * bound < 0.2


def test_one_graph_no_break_no_recompile(compile_counters: dict[str, Counter[str]]) -> None:
    """20 training steps with new data, moving weights and a fresh aux_loss object each: traced once."""
    D = make("two-heads", torch.float32)
    optimizer = torch.optim.Adam(D.parameters(), lr=1e-3)
    losses = []
    for i in range(20):
        xr, xf, _ = batch("two-heads", dtype=torch.float32)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            loss = fastdat.dat_step(
                D, xr, xf, STRONG, "gan", aux_loss=lambda D, xr, xf: D(xf)[1].square().mean()
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert compile_counters["stats"]["unique_graphs"] == 1
    assert not compile_counters["graph_break"]
    assert torch.stack(losses).isfinite().all()


def test_a_discriminator_that_changes_is_followed(compile_counters: dict[str, Counter[str]]) -> None:
    """Attributes that D's forward reads are guarded: a progressive D's blending factor, say."""

    class Blending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)
            self.alpha = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.alpha * self.linear(x)

    D = Blending()
    xr, xf, _ = batch("mlp", dtype=torch.float32)
    plain = DATConfig(real=False, fake=False)
    for alpha in (1.0, 0.5):
        D.alpha = alpha
        expected = fastdat.dat_step(D, xr, xf, plain, "wgan", compile=False)
        torch.testing.assert_close(fastdat.dat_step(D, xr, xf, plain, "wgan"), expected)


@pytest.mark.slow
def test_more_steps_than_torch_compile_keeps_variants(compile_counters: dict[str, Counter[str]]) -> None:
    """torch.compile keeps 8 variants of a function; a sweep over eps makes more, each an engine of its own."""
    D, (xr, xf, _) = make("mlp", torch.float32), batch("mlp", dtype=torch.float32)
    with torch._dynamo.config.patch(recompile_limit=1):
        for eps in (1.0, 2.0, 3.0):
            config = DATConfig(eps=eps, real=False, fake=False)
            fastdat.dat_step(D, xr, xf, config).backward()


def test_what_cannot_be_one_graph_says_so() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            out = self.linear(x)
            return out if out.sum().item() > 1e9 else 2 * out

    xr, xf, _ = batch("mlp", dtype=torch.float32)
    with pytest.raises(RuntimeError, match=r"cannot be compiled into one graph.*compile=False"):
        fastdat.dat_step(Breaks(), xr, xf)


def test_checkpointing_compiles_or_says_what_to_do() -> None:
    """torch 2.11 takes such a D. 2.13 stops half way inside torch.func: nothing of that may reach later steps."""
    D, (xr, xf, _) = CHECKPOINTED["plain"](), batch("conv", dtype=torch.float32)
    try:
        assert_step_matches(D, xr, xf, STRONG, tolerance=FP32, compile=True)
    except RuntimeError as error:
        assert re.search(r"checkpointing.*compile=False.*microbatch", str(error))  # noqa: PT017
        assert isinstance(error.__cause__, torch._dynamo.exc.BackendCompilerFailed)  # noqa: PT017
    assert torch.backends.cuda.flash_sdp_enabled()
    assert_step_matches(D, xr, xf, STRONG, tolerance=FP32)


class DrawsInPython(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * random.uniform(0.5, 2.0)


def test_an_error_inside_torch_compile_says_what_to_do_and_leaves_nothing_behind() -> None:
    D, (xr, xf, _) = DrawsInPython(), batch("mlp", dtype=torch.float32)
    level = torch._C._functorch.get_dynamic_layer_stack_depth()
    with pytest.raises(RuntimeError, match=r"torch.compile failed.*compile=False"):
        fastdat.dat_step(D, xr, xf)
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == level
    fastdat.dat_step(D, xr, xf, compile=False).backward()
    assert gradients(D).isfinite().all()


class Sine(torch.autograd.Function):
    """Of the old style; torch.compile looks inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].cos()


class WithFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(Sine.apply(self.a(x)))


# torch.compile makes the instance by itself.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.slow
def test_autograd_functions() -> None:
    """torch.compile differentiates their backward wrongly and says nothing, which only second order asks for."""
    D, (xr, xf, _) = WithFunction(), batch("mlp", dtype=torch.float32)
    first = replace(STRONG, second_order=False, clean_weight=0.5)
    assert_step_matches(D, xr, xf, first, "gan", tolerance=FP32, compile=True)
    with pytest.raises(NotImplementedError, match=r"autograd.Function Sine.*second_order.*compile=False"):
        fastdat.dat_step(D, xr, xf, STRONG)
    with pytest.raises(NotImplementedError, match=r"autograd.Function Sine"):
        fastdat.dat_step(D.b, xr.new_ones(4, 8), xf.new_zeros(4, 8), STRONG, aux_loss=lambda *_: D(xr).mean())
    assert_step_matches(D, xr, xf, STRONG, "gan", tolerance=FP32)


def test_a_discriminator_that_changes_every_time_says_so(compile_counters: dict[str, Counter[str]]) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.calls

    D, (xr, xf, _) = Counts(), batch("mlp", dtype=torch.float32)
    plain = DATConfig(real=False, fake=False)
    with torch._dynamo.config.patch(recompile_limit=1):
        fastdat.dat_step(D, xr, xf, plain)
        D.calls = 1
        with pytest.raises(RuntimeError, match=r"too many times.*buffer"):
            fastdat.dat_step(D, xr, xf, plain)


@pytest.mark.slow
def test_engines_are_forgotten_with_their_discriminator() -> None:
    import gc
    import weakref

    D, (xr, xf, _) = make("spectral", torch.float32), batch("spectral", dtype=torch.float32)
    fastdat.dat_step(D, xr, xf, STRONG, "gan").backward()
    gone = weakref.ref(D)
    del D
    gc.collect()
    assert gone() is None
