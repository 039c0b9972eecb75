"""ASGAN and RobGAN: their settings, and their step against the reference; test_hand_computed.py has their numbers."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import Any

import pytest
import torch

import fastdat
from fastdat.regularizers import ASGAN, RobGAN
from tests.compare import assert_step_matches
from tests.discriminators import batch, make

# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_attack", "message"),
    [
        (lambda: ASGAN(eps=0.0), "ASGAN.eps"),
        (lambda: ASGAN(eps=-0.1), "ASGAN.eps"),
        (lambda: ASGAN(bounds=None), r"ASGAN.eps must be set where bounds is None"),
        (lambda: ASGAN(bounds=(1.0, -1.0)), "ASGAN.bounds"),
        (lambda: ASGAN(clean_weight=-1.0), "ASGAN.clean_weight"),
        (lambda: RobGAN(eps=0.0), "RobGAN.eps"),
        (lambda: RobGAN(step=-0.5), "RobGAN.step"),
        (lambda: RobGAN(steps=0), "RobGAN.steps"),
        (lambda: RobGAN(bounds=(0.5, 0.5)), "RobGAN.bounds"),
        (lambda: RobGAN(clean_weight=float("nan")), "RobGAN.clean_weight"),
    ],
)
def test_a_bad_value_is_refused(make_attack: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_attack()


@pytest.mark.parametrize(
    ("make_attack", "message"),
    [
        (lambda: ASGAN(eps="0.1"), "ASGAN.eps"),  # type: ignore[arg-type]
        (lambda: RobGAN(eps=None), "RobGAN.eps"),  # type: ignore[arg-type]
        (lambda: RobGAN(steps=2.5), "RobGAN.steps"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_type_is_refused(make_attack: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_attack()


def test_lengths() -> None:
    """ASGAN moves by one grey level unless told otherwise; RobGAN's steps end at its radius."""
    assert ASGAN().radius == ASGAN().step_size == 2 / 255
    assert ASGAN(bounds=(0.0, 3.0)).radius == 3 / 255
    assert ASGAN(eps=0.3, bounds=None).radius == 0.3
    assert (RobGAN().radius, RobGAN().step_size, RobGAN().steps) == (0.0625, 1 / 128, 5)


@pytest.mark.parametrize("attack", [ASGAN(eps=0.1), RobGAN(steps=2)])
def test_settings_are_values(attack: Any) -> None:
    """Engines are kept by them."""
    assert attack == copy.copy(attack)
    assert hash(attack) == hash(copy.copy(attack))
    assert attack != dataclasses.replace(attack, clean_weight=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.eps = 0.2


# --- the step -------------------------------------------------------------------------------------------------------

ATTACKS = {
    "asgan": ASGAN(eps=0.06),
    "asgan-clean": ASGAN(eps=0.06, bounds=(-0.9, 0.8), clean_weight=0.5),
    "asgan-unbounded": ASGAN(eps=0.3, bounds=None),
    "robgan": RobGAN(eps=0.05, step=0.02, steps=3),
    "robgan-clean": RobGAN(eps=0.05, step=0.02, bounds=(-0.9, 0.8), clean_weight=0.5),
    "robgan-unbounded": RobGAN(eps=0.05, step=0.08, steps=2, bounds=None),
}
KINDS = ["mlp", "conv", "spectral", "spectral-hook", "batchnorm", "conditional", "two-heads"]


def trained(kind: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """D whose running statistics are not those of the batch, and a batch."""
    D, (xr, xf, args) = make(kind), batch(kind)
    for name, buffer in D.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.3
        elif name.endswith("running_var"):
            buffer *= 0.7
    return D, xr, xf, args


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["hinge", "gan", "wgan", "rpgan"])
def test_the_step_is_the_reference(attack: str, kind: str, loss: str) -> None:
    D, xr, xf, args = trained(kind)
    assert_step_matches(D, xr, xf, ATTACKS[attack], loss, tolerance=1e-12, **args)


@pytest.mark.parametrize("attack", ["asgan-clean", "robgan-clean"])
@pytest.mark.parametrize("kind", ["conv", "spectral", "conditional"])
def test_in_parts(attack: str, kind: str) -> None:
    D, xr, xf, args = trained(kind)
    assert_step_matches(D, xr, xf, ATTACKS[attack], "gan", tolerance=1e-12, microbatch=4, **args)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "kind"),
    [("asgan-clean", "spectral"), ("robgan", "batchnorm")],
)
def test_compiled(attack: str, kind: str) -> None:
    D, xr, xf, args = trained(kind)
    assert_step_matches(D, xr, xf, ATTACKS[attack], "gan", tolerance=1e-12, compile=True, **args)


@pytest.mark.parametrize(
    "step",
    [fastdat.reference.dat_step, partial(fastdat.dat_step, compile=False)],
    ids=["reference", "eager"],
)
def test_robgan_attacks_d_in_evaluation_mode(step: Any) -> None:
    """The reals move as those of ``D.eval()`` do, while the loss and the running statistics are those of training."""
    D, xr, xf, _ = trained("batchnorm")
    plain, evaluated = copy.deepcopy(D), copy.deepcopy(D).eval()
    x = xr.clone().requires_grad_()
    signs = torch.autograd.grad(evaluated(x).sum(), x)[0].sign()
    assert not torch.equal(signs, torch.autograd.grad(copy.deepcopy(D)(x).sum(), x)[0].sign())
    loss, info = step(D, xr, xf, RobGAN(eps=0.05, step=0.05, steps=1, bounds=None), "wgan", with_info=True)
    torch.testing.assert_close(info.xr_adv, xr - 0.05 * signs, rtol=0, atol=1e-15)
    torch.testing.assert_close(loss, -plain(xr - 0.05 * signs).mean() + plain(xf).mean())
    torch.testing.assert_close(dict(D.named_buffers()), dict(plain.named_buffers()))
    assert all(module.training for module in D.modules())


@pytest.mark.parametrize(
    "step",
    [fastdat.reference.dat_step, partial(fastdat.dat_step, compile=False)],
    ids=["reference", "eager"],
)
def test_robgan_moves_running_statistics_after_the_attack(step: Any) -> None:
    """With a clean term in the loss, too, the attack sees the statistics from before the step."""
    D, xr, xf, _ = trained("batchnorm")
    attack = RobGAN(eps=0.05, step=0.05, steps=1, bounds=None)
    alone = step(copy.deepcopy(D), xr, xf, attack, with_info=True)[1]
    beside = step(copy.deepcopy(D), xr, xf, dataclasses.replace(attack, clean_weight=1.0), with_info=True)[1]
    assert torch.equal(alone.xr_adv, beside.xr_adv)
