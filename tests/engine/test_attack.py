"""The one loop of attack steps: it serves the whole batch and parts of it alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fastdat import DATConfig
from fastdat.engine.attack import AttackResult, run_attack
from fastdat.engine.discriminator import WholeBatchD
from fastdat.engine.microbatch import PartwiseD, attack_pass
from fastdat.engine.spectral.normalise import bypassed, spectral_weights
from fastdat.engine.structure import structure_of
from fastdat.engine.types import Batch, StepSpec
from fastdat.engine.weights import Weights
from fastdat.losses import get_loss
from tests.discriminators import batch, make

SAMPLES = 5
TWO_STEPS = DATConfig(seed="eq10", reduction="sample", eps=8.0, delta_clip=0.3, steps=2)
CONFIGS = {
    "two-steps": TWO_STEPS,
    "reals-only": replace(TWO_STEPS, fake=False),
    "per-forward": replace(TWO_STEPS, power_iterations="per_forward", clip_real=False),
    "fakes-per-forward": replace(TWO_STEPS, power_iterations="per_forward", real=False),
}


class Counted:
    """An evaluation of D that counts the linearisations whose gradient is wanted, and those of logits alone."""

    def __init__(self, inner: WholeBatchD | PartwiseD) -> None:
        self.inner = inner
        self.with_gradient = self.logits_alone = 0

    def logits(self, *args: object) -> object:
        return self.inner.logits(*args)  # type: ignore[arg-type]

    def linearise(
        self,
        weights: object,
        batch: object,
        sides: object,
        known: object = None,
        needs_gradient: bool = True,
        apart: bool = False,
    ) -> object:
        self.with_gradient += needs_gradient
        self.logits_alone += not needs_gradient
        return self.inner.linearise(weights, batch, sides, known, needs_gradient, apart)  # type: ignore[arg-type]


def attacked(
    D: nn.Module, x: Batch, config: DATConfig, size: int | None, signs_only: bool = False
) -> tuple[AttackResult, dict[str, torch.Tensor], Counted]:
    """The attack on the whole batch at once, or ``size`` samples a side at a time; and u, v after it."""
    structure = structure_of(D)
    weights = spectral_weights(structure.modules)
    spec = StepSpec(
        config, get_loss("gan"), independent=True, spectral=weights, batch=x.xr.shape[0], with_info=True
    )
    params = {name: p.detach() for name, p in structure.params.items()}
    evaluated = Counted(WholeBatchD(D, spec, {}) if size is None else PartwiseD(D, spec, size, attack_pass))
    of_calls = Weights(spec, params, structure.buffers)
    with torch.no_grad(), bypassed(structure.modules, weights):
        result = run_attack(spec, evaluated, of_calls, x, signs_only=signs_only)  # type: ignore[arg-type]
    return result, of_calls.buffers(), evaluated


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kind", ["spectral", "conditional"])
def test_parts_give_the_attack_of_the_whole_batch(kind: str, config: str) -> None:
    """Samples, signs, clean logits, measurements, and u, v: all but the order of summation is the same."""
    D, (xr, xf, args) = make(kind), batch(kind, m=SAMPLES)
    x = Batch(xr, xf, *args.values())
    whole, u_whole, _ = attacked(D, x, CONFIGS[config], None)
    parts, u_parts, _ = attacked(D, x, CONFIGS[config], 2)
    close = {"rtol": 1e-12, "atol": 1e-12, "equal_nan": True}
    torch.testing.assert_close((parts.batch.xr, parts.batch.xf), (whole.batch.xr, whole.batch.xf), **close)
    torch.testing.assert_close(tuple(parts.clean), tuple(whole.clean), **close)
    assert len(parts.signs) == len(whole.signs) == 2
    for of_parts, of_whole in zip(parts.signs, whole.signs, strict=True):
        torch.testing.assert_close(tuple(of_parts), tuple(of_whole), **close)
    assert parts.info is not None
    assert whole.info is not None
    torch.testing.assert_close(parts.info.real.grad_norm, whole.info.real.grad_norm, **close)
    torch.testing.assert_close(parts.info.fake.clipped, whole.info.fake.clipped, **close)
    torch.testing.assert_close(u_parts, u_whole, **close)
    assert (u_whole == {}) is (kind == "conditional" and not spectral_weights(dict(D.named_modules())))


@pytest.mark.parametrize("config", ["two-steps", "per-forward"])
def test_signs_alone_need_no_last_gradient(config: str) -> None:
    """Where only signs are wanted, the last step moves nothing, and nothing is measured."""
    D, (xr, xf, _) = make("spectral"), batch("spectral", m=SAMPLES)
    whole, _, of_whole = attacked(D, Batch(xr, xf), CONFIGS[config], 2)
    signs, _, of_signs = attacked(D, Batch(xr, xf), CONFIGS[config], 2, signs_only=True)
    assert (of_whole.with_gradient, of_whole.logits_alone) == (2, 0)
    assert (of_signs.with_gradient, of_signs.logits_alone) == (1, 1)
    assert signs.info is None
    for ours, theirs in zip(signs.signs, whole.signs, strict=True):
        assert torch.equal(ours.real, theirs.real)
        assert torch.equal(ours.fake, theirs.fake)
    assert not torch.equal(signs.batch.xf, whole.batch.xf)
