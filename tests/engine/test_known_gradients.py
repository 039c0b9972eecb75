"""A dat_step loss can be differentiated once, and a second derivative is an error instead of wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fastdat
from fastdat import DATConfig
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make

CONFIG = DATConfig(eps=20.0)
MESSAGE = r"cannot be differentiated again.*create_graph=True.*aux_loss.*fastdat.reference.dat_step"


def losses() -> tuple[torch.nn.Module, Tensor, Tensor]:
    """D, its dat_step loss, and another loss."""
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    return D, fastdat.dat_step(D, xr, xf, CONFIG, "gan", compile=False), D(xr).square().mean()


def test_a_penalty_on_the_gradient_of_a_sum_of_losses() -> None:
    D, loss, other = losses()
    grads = torch.autograd.grad(loss + other, list(D.parameters()), create_graph=True)
    penalty = sum(g.square().sum() for g in grads)
    with pytest.raises(RuntimeError, match=MESSAGE):
        penalty.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=MESSAGE):
        torch.autograd.grad(penalty, D.a.weight)


def test_the_factor_of_a_loss_and_the_samples_count_too() -> None:
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    scale = torch.ones((), dtype=xr.dtype, requires_grad=True)
    (grad,) = torch.autograd.grad(
        scale * fastdat.dat_step(D, xr, xf, compile=False), [D.a.weight], create_graph=True
    )
    with pytest.raises(RuntimeError, match=MESSAGE):
        torch.autograd.grad(grad.sum(), scale)
    z = xf.clone().requires_grad_()
    (grad,) = torch.autograd.grad(
        fastdat.dat_step(D, xr, 2 * z, compile=False), [D.a.weight], create_graph=True
    )
    with pytest.raises(RuntimeError, match=MESSAGE):
        torch.autograd.grad(grad.sum(), z)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
def test_create_graph_alone_changes_nothing() -> None:
    D, loss, _ = losses()
    loss.backward(retain_graph=True)
    expected = gradients(D)
    D.zero_grad()
    loss.backward(create_graph=True)
    assert torch.equal(gradients(D), expected)
    D.zero_grad()


def test_another_loss_may_be_differentiated_twice_beside_it() -> None:
    D, loss, other = losses()
    grads = torch.autograd.grad(other, list(D.parameters()), create_graph=True, retain_graph=True)
    (loss + sum(g.square().sum() for g in grads)).backward()
    assert gradients(D).isfinite().all()


def test_a_parameter_may_change_in_place_before_the_backward_pass() -> None:
    D, loss, _ = losses()
    with torch.no_grad():
        D.a.weight.mul_(2)
    loss.backward()
    assert D.a.weight.grad is not None


def test_the_reference_can_be_differentiated_again() -> None:
    """What the message recommends; the other way is in test_odd_but_right.py (R1 in aux_loss)."""
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    loss = fastdat.reference.dat_step(D, xr, xf, CONFIG, "gan")
    grads = torch.autograd.grad(loss, list(D.parameters()), create_graph=True)
    sum(g.square().sum() for g in grads).backward()
    assert gradients(D).norm() > 0


def test_the_functional_form_refuses_it_too() -> None:
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    params = {name: p.detach() for name, p in D.named_parameters()}

    def norm(params: dict[str, Tensor]) -> Tensor:
        grads, _ = fastdat.functional.dat_grads(D, params, xr, xf, config=CONFIG)
        return torch.stack([g.square().sum() for g in grads.values()]).sum()

    with pytest.raises(RuntimeError, match=r"cannot be differentiated again.*fastdat.reference"):
        torch.func.grad(norm)(params)
    two = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    with pytest.raises(RuntimeError, match=r"cannot be differentiated again"):
        torch.func.grad(lambda two: torch.vmap(norm)(two).sum())(two)
    norms = torch.vmap(norm)(two)
    assert relative_error(norms[0], norm(params)) < 1e-12
