"""A batch in parts gives the gradient, loss, buffers and info of the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches, relative_error
from tests.discriminators import batch, make

STRONG = DATConfig(eps=30.0, delta_clip=0.3, eps_batch=None)
FIELDS = {
    "default": {},
    "eq10-sample": {"seed": "eq10", "reduction": "sample"},
    "three-steps": {"steps": 3, "eps": 8.0},
    "datt": {"clean_weight": 1.0, "steps": 2},
    "real-only": {"fake": False, "steps": 2},
    "no-attack": {"real": False, "fake": False},
    "per_forward": {"power_iterations": "per_forward", "steps": 2},
    "per_forward-datt": {"power_iterations": "per_forward", "clean_weight": 0.5},
    "per_forward-fake-only": {"power_iterations": "per_forward", "real": False, "steps": 2},
}


@pytest.mark.parametrize("size", [1, 3, 4, 100])
@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_parts_equal_the_whole(fields: str, second_order: bool, size: int) -> None:
    config = replace(STRONG, second_order=second_order, **FIELDS[fields])
    xr, xf, _ = batch("spectral")
    assert_step_matches(make("spectral"), xr, xf, config, "gan", tolerance=1e-9, microbatch=size)


@pytest.mark.parametrize("kind", ["mlp", "smooth", "spectral-hook", "conditional", "two-heads"])
def test_kinds(kind: str) -> None:
    xr, xf, args = batch(kind)
    config = replace(STRONG, second_order=True)
    assert_step_matches(make(kind), xr, xf, config, "gan", tolerance=1e-9, microbatch=4, **args)


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
def test_gradients_reach_the_samples(second_order: bool) -> None:
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    config = replace(STRONG, second_order=second_order)
    found = []
    for size in (None, 4):
        f = xf.clone().requires_grad_()
        fastdat.dat_step(D, xr, f, config, "gan", compile=False, microbatch=size).backward()
        found.append(f.grad)
    assert relative_error(found[1], found[0]) <= 1e-9


def test_no_grad() -> None:
    D, (xr, xf, _) = make("mlp"), batch("mlp")
    with torch.no_grad():
        losses = [fastdat.dat_step(D, xr, xf, STRONG, compile=False, microbatch=k) for k in (None, 2)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("kind", "says"), [("batchnorm", "'norm' normalise"), ("minibatch-statistics", "depends on others")]
)
def test_a_discriminator_that_couples_samples_is_an_error(kind: str, says: str) -> None:
    D, (xr, xf, _) = make(kind), batch(kind)
    with pytest.raises(ValueError, match=f"independently.*{says}"):
        fastdat.dat_step(D, xr, xf, compile=False, microbatch=2)
    if kind == "batchnorm":
        fastdat.dat_step(D.eval(), xr, xf, compile=False, microbatch=2)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_bad_sizes(size: object, error: type[Exception]) -> None:
    D, (xr, xf, _) = make("mlp"), batch("mlp")
    with pytest.raises(error, match=r"microbatch must be an integer >= 1"):
        fastdat.dat_step(D, xr, xf, compile=False, microbatch=size)


def test_aux_loss_cannot_be_split() -> None:
    D, (xr, xf, _) = make("mlp"), batch("mlp")
    with pytest.raises(ValueError, match="aux_loss"):
        fastdat.dat_step(D, xr, xf, compile=False, microbatch=2, aux_loss=lambda D, xr, xf: D(xr).mean())
