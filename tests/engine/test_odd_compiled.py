"""Odd discriminators in a compiled step: right, or an error that names compile=False and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from tests.compare import gradients, relative_error
from tests.engine.odd_discriminators import (
    PLAIN,
    RIGHT,
    STRONG,
    Features,
    Net,
    PartUnderInference,
    before,
    net,
    samples,
    tensor_hook,
)

SECOND = DATConfig(eps=4.0, second_order=True)


def assert_right(D: nn.Module, config: DATConfig, compile: bool) -> None:
    xr, xf = samples(), samples()
    fastdat.reference.dat_step(D, xr, xf, config, "gan").backward()
    expected = gradients(D)
    for _ in range(2):
        D.zero_grad()
        fastdat.dat_step(D, xr, xf, config, "gan", compile=compile).backward()
        assert relative_error(gradients(D), expected) < 1e-5


@pytest.mark.slow
def test_older_weight_norm_compiles() -> None:
    D = RIGHT["weight norm, older"]()
    stale = D.a.weight
    assert_right(D, SECOND, compile=True)
    assert D.a.weight is not stale  # the reference's call of D
    assert [type(hook).__name__ for hook in D.a._forward_pre_hooks.values()] == ["WeightNorm"]
    assert "weight" not in D.a._parameters


REFUSED: dict[str, tuple[Callable[[], nn.Module], DATConfig, str]] = {
    "keeps its features": (Features, PLAIN, r"keeps a tensor.*Return it as a further output"),
    "inference mode in a part": (PartUnderInference, STRONG, r"torch.compile failed"),
    "control flow by data": (RIGHT["control flow by data"], PLAIN, r"cannot be compiled into one graph"),
    "a choice of Python's": (RIGHT["a choice of Python's"], PLAIN, r"cannot be compiled into one graph"),
    "lstm": (lambda: net(lambda h, gru: gru(h[:, None])[0][:, 0], nn.GRU(6, 6)), PLAIN, r"one graph"),
    "a hook in second order": (tensor_hook, SECOND, r"registers a hook on a tensor.*second_order"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_compiled_names_the_eager_step(kind: str) -> None:
    make, config, says = REFUSED[kind]
    D, xr, xf = make(), samples(), samples()
    old = xr.clone(), xf.clone()
    with pytest.raises((RuntimeError, NotImplementedError), match=rf"(?s){says}.*compile=False"):
        fastdat.dat_step(D, xr, xf, config)
    torch.testing.assert_close((xr, xf), old, rtol=0, atol=0)
    assert_right(D, config, compile=False)


class Fails(Net):
    """Raises an error of its own."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("only square images")


@pytest.mark.parametrize("config", [PLAIN, SECOND], ids=["plain", "second"])
def test_errors_before_compilation_are_those_of_the_eager_step(config: DATConfig) -> None:
    xr, xf = samples(), samples()
    with pytest.raises(ValueError, match=r"^only square images$"):
        fastdat.dat_step(Fails(), xr, xf, config)
    with pytest.raises(ValueError, match=r"^D changes its input in place"):
        fastdat.dat_step(before(lambda x: x.mul_(0.5)), xr, xf, config)


def penalty(gradient: Tensor) -> Tensor:
    return gradient.square().sum(1).mean()


def by_autograd(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    """A gradient penalty as most people write it."""
    x = xr.detach().requires_grad_()
    return penalty(torch.autograd.grad(D(x).sum(), x, create_graph=True)[0])


def by_func(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    """The same penalty, with what torch.compile takes."""
    return penalty(torch.func.grad(lambda x: D(x).sum())(xr))


@pytest.mark.slow
def test_a_gradient_penalty_in_aux_loss() -> None:
    D, xr, xf = Net(), samples(), samples()
    fastdat.reference.dat_step(D, xr, xf, SECOND, aux_loss=by_func).backward()
    expected = gradients(D)
    for aux_loss, compile in ((by_autograd, False), (by_func, False), (by_func, True)):
        D.zero_grad()
        fastdat.dat_step(D, xr, xf, SECOND, aux_loss=aux_loss, compile=compile).backward()
        assert relative_error(gradients(D), expected) < 1e-5
    with pytest.raises(RuntimeError, match=r"(?s)Take the derivative with torch\.func\.grad.*compile=False"):
        fastdat.dat_step(D, xr, xf, SECOND, aux_loss=by_autograd)
