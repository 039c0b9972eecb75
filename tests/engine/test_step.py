"""dat_step in eager mode against the reference, in float64: every field, loss and kind of D."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches, gradients, relative_error
from tests.discriminators import KINDS, Conv, batch, make

EXACT = 1e-9

# Strong enough an attack that its limits and signs matter: eps 30 moves pixels by tenths.
STRONG = DATConfig(eps=30.0, delta_clip=0.3)
FIELDS = {
    "default": {},
    "eq10": {"seed": "eq10"},
    "alg1": {"seed": "alg1"},
    "sample": {"reduction": "sample"},
    "eq10-sample": {"seed": "eq10", "reduction": "sample"},
    "weak": {"eps": 0.5},
    "no-attack-strength": {"eps": 0.0},
    "eps_batch-none": {"eps_batch": None, "eps": 2.0},
    "eps_batch-1": {"eps_batch": 1, "eps": 0.4},
    "no-delta_clip": {"delta_clip": None},
    "no-bounds": {"bounds": None},
    "narrow-bounds": {"bounds": (-0.5, 0.25)},
    "clip_real": {"clip_real": False},
    "three-steps": {"steps": 3, "eps": 8.0},
    "real-only": {"fake": False},
    "fake-only": {"real": False},
    "no-attack": {"real": False, "fake": False},
    "datt": {"clean_weight": 1.0},
    "half-clean": {"clean_weight": 0.5, "seed": "alg1"},
    "per_forward": {"power_iterations": "per_forward"},
    "per_forward-two-steps-datt": {"power_iterations": "per_forward", "steps": 2, "clean_weight": 1.0},
    "per_forward-real-only": {"power_iterations": "per_forward", "fake": False},
    "per_forward-no-attack": {"power_iterations": "per_forward", "real": False, "fake": False},
}
PRESETS = {
    "preset-default": DATConfig(),
    "preset-official": DATConfig.official(),
    "preset-paper": DATConfig.paper(),
}


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("kind", ["mlp", "spectral", "batchnorm"])
def test_every_field(kind: str, fields: str, second_order: bool) -> None:
    config = replace(STRONG, second_order=second_order, **FIELDS[fields])
    xr, xf, args = batch(kind)
    assert_step_matches(make(kind), xr, xf, config, "gan", tolerance=EXACT, **args)


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_discriminator(kind: str, second_order: bool) -> None:
    config = replace(
        STRONG, second_order=second_order, steps=2, seed="eq10", reduction="sample", clean_weight=0.5
    )
    xr, xf, args = batch(kind)
    assert_step_matches(make(kind), xr, xf, config, "gan", tolerance=EXACT, **args)
    assert_step_matches(make(kind).eval(), xr, xf, config, "gan", tolerance=EXACT, **args)


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("seed", ["logits", "eq10", "alg1"])
@pytest.mark.parametrize("loss", ["hinge", "gan", "lsgan", "wgan"])
def test_every_loss(loss: str, seed: str, second_order: bool) -> None:
    xr, xf, args = batch("spectral")
    config = replace(STRONG, seed=seed, second_order=second_order)
    assert_step_matches(make("spectral"), xr, xf, config, loss, tolerance=EXACT, **args)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", ["spectral", "spectral-hook", "two-heads"])
def test_presets(preset: str, kind: str) -> None:
    xr, xf, args = batch(kind)
    assert_step_matches(make(kind), xr, xf, PRESETS[preset], "hinge", tolerance=EXACT, **args)


def test_own_loss() -> None:
    class Exponential:
        """f-GAN's pair in Sec. II-A."""

        def g1(self, t: torch.Tensor) -> torch.Tensor:
            return -torch.exp(-t)

        def g2(self, t: torch.Tensor) -> torch.Tensor:
            return 1 - t

    xr, xf, _ = batch("spectral")
    config = replace(STRONG, seed="eq10", second_order=True)
    assert_step_matches(make("spectral"), xr, xf, config, Exponential(), tolerance=EXACT)


class Steep:
    """As wgan where ``|D| < 0.9``, and infinite from 1 on."""

    def g1(self, t: torch.Tensor) -> torch.Tensor:
        return t - torch.exp(1e4 * (t - 0.9))

    def g2(self, t: torch.Tensor) -> torch.Tensor:
        return self.g1(-t)

    def generator(self, t: torch.Tensor) -> torch.Tensor:
        return -t + torch.exp(-1e4 * (t + 0.9))


def identity() -> nn.Module:
    D = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(D.weight)
    return D


# D is x, and the attack moves reals and fakes by 0.5 towards 0.
STEEP = DATConfig(eps=0.5, eps_batch=1, delta_clip=None, bounds=None)
STEEP_REAL, STEEP_FAKE = torch.tensor([[[1.0], [1.3]], [[-1.1], [-1.3]]], dtype=torch.float64)


@pytest.mark.parametrize("microbatch", [None, 1])
def test_clean_samples_have_no_part_in_a_loss_without_them(microbatch: int | None) -> None:
    """Not even with a factor of 0, which would make a NaN of their infinite loss."""
    D = identity()
    loss = fastdat.dat_step(D, STEEP_REAL, STEEP_FAKE, STEEP, Steep(), compile=False, microbatch=microbatch)
    loss.backward()
    assert loss.item() == pytest.approx(-0.65 - 0.7)
    assert D.weight.grad.item() == pytest.approx(-0.65 - 0.7)
    with_them = fastdat.dat_step(
        D,
        STEEP_REAL,
        STEEP_FAKE,
        replace(STEEP, clean_weight=1e-3),
        Steep(),
        compile=False,
        microbatch=microbatch,
    )
    assert with_them == torch.inf


@pytest.mark.parametrize("power_iterations", ["once", "per_forward"])
@pytest.mark.parametrize("kind", ["two-heads", "batchnorm"])
def test_aux_loss(kind: str, power_iterations: str) -> None:
    def aux_loss(D: nn.Module, xr: torch.Tensor, xf: torch.Tensor) -> torch.Tensor:
        out = D(xr.flip(3))
        return (out[1] if isinstance(out, tuple) else out).square().mean() + D.features(xf).mean()

    xr, xf, args = batch(kind)
    config = replace(STRONG, second_order=True, power_iterations=power_iterations)
    assert_step_matches(make(kind), xr, xf, config, "gan", tolerance=EXACT, aux_loss=aux_loss, **args)


@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
def test_gradients_reach_the_samples(second_order: bool) -> None:
    """Position (iii) of Table IV: x_f comes from G, and G wants its gradient."""
    config = replace(STRONG, second_order=second_order, steps=2, clean_weight=0.5)
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    found = []
    for step in (fastdat.reference.dat_step, lambda *a: fastdat.dat_step(*a, compile=False)):
        r, f = xr.clone().requires_grad_(), xf.clone().requires_grad_()
        step(D, r, f, config, "gan").backward()
        found.append((r.grad, f.grad))
    for mine, expected in zip(found[1], found[0], strict=True):
        assert expected.norm() > 0
        assert relative_error(mine, expected) <= EXACT


@pytest.mark.parametrize(
    "config", [DATConfig(), DATConfig(seed="eq10", reduction="sample", steps=2)], ids=["logits", "eq10"]
)
def test_gradcheck(config: DATConfig) -> None:
    """Finite differences of the loss give the second-order gradient: signs and targets are locally constant."""
    config = replace(config, eps=20.0, bounds=None, second_order=True)
    D, (xr, xf, _) = make("smooth"), batch("smooth", m=4)

    def loss(*_: torch.Tensor) -> torch.Tensor:  # gradcheck moves D's parameters in place
        return fastdat.dat_step(D, xr, xf, config, "gan", compile=False)

    assert torch.autograd.gradcheck(loss, tuple(D.parameters()))


class TestWhereALossWorks:
    def test_accumulation_and_scaling(self) -> None:
        D, (xr, xf, _) = make("spectral-hook").eval(), batch("spectral-hook")
        fastdat.dat_step(D, xr, xf, STRONG, compile=False).backward()
        once = gradients(D)
        a = fastdat.dat_step(D, xr, xf, STRONG, compile=False)
        b = fastdat.dat_step(D, xr, xf, STRONG, compile=False)
        (0.5 * a + 3 * b).backward()
        torch.testing.assert_close(gradients(D), 4.5 * once)

    def test_backward_twice_needs_retain_graph(self) -> None:
        D, (xr, xf, _) = make("mlp"), batch("mlp")
        loss = fastdat.dat_step(D, xr, xf, STRONG, compile=False)
        loss.backward(retain_graph=True)
        once = gradients(D)
        loss.backward()
        torch.testing.assert_close(gradients(D), 2 * once)
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()

    def test_autograd_grad_and_clipping(self) -> None:
        D, (xr, xf, _) = make("mlp"), batch("mlp")
        grads = torch.autograd.grad(fastdat.dat_step(D, xr, xf, STRONG, compile=False), list(D.parameters()))
        fastdat.dat_step(D, xr, xf, STRONG, compile=False).backward()
        torch.testing.assert_close(torch.cat([g.flatten() for g in grads]), gradients(D))
        norm = torch.nn.utils.clip_grad_norm_(D.parameters(), 1e-3)
        assert norm > 1e-3
        assert gradients(D).norm() <= 1.001e-3

    def test_no_grad_gives_the_loss_only(self) -> None:
        D, (xr, xf, _) = make("spectral"), batch("spectral")
        other = copy.deepcopy(D)
        expected = fastdat.dat_step(other, xr, xf, STRONG, compile=False)
        with torch.no_grad():
            loss = fastdat.dat_step(D, xr, xf, STRONG, compile=False)
        assert not loss.requires_grad
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(dict(D.named_buffers()), dict(other.named_buffers()))

    def test_frozen_weights(self) -> None:
        D, (xr, xf, _) = make("spectral"), batch("spectral")
        D.conv1.requires_grad_(False)
        assert_step_matches(D, xr, xf, replace(STRONG, second_order=True), tolerance=EXACT)
        fastdat.dat_step(D, xr, xf, STRONG, compile=False).backward()
        assert D.conv1.bias.grad is None

    def test_all_frozen(self) -> None:
        D, (xr, xf, _) = make("spectral").requires_grad_(False), batch("spectral")
        assert not fastdat.dat_step(D, xr, xf, STRONG, compile=False).requires_grad

    @pytest.mark.parametrize("how", ["module", "parameter", "spectral"])
    def test_shared_weights(self, how: str) -> None:
        from torch.nn.utils.parametrizations import spectral_norm

        class Shared(Conv):
            def __init__(self) -> None:
                super().__init__(spectral_norm if how == "spectral" else lambda m: m)
                self.again = self.conv2 if how != "parameter" else nn.Conv2d(8, 8, 3, 1, 1)
                if how == "parameter":
                    self.again.weight = self.conv2.weight

            def features(self, x: torch.Tensor) -> torch.Tensor:
                h = torch.relu(self.again(torch.relu(self.conv1(x))))
                return torch.relu(self.conv2(h)).sum((2, 3))

        D, (xr, xf, _) = Shared().double(), batch("conv")
        if how == "spectral":  # in training torch advances a shared layer's u at each use, a step only once
            D.eval()
        assert_step_matches(D, xr, xf, replace(STRONG, second_order=True), tolerance=EXACT)
        fastdat.dat_step(D, xr, xf, compile=False).backward()
        assert all(isinstance(p, nn.Parameter) and p.grad is not None for p in D.parameters())
        if how == "parameter":
            assert D.again.weight is D.conv2.weight

    def test_channels_last(self) -> None:
        D, (xr, xf, _) = make("spectral"), batch("spectral")
        expected = copy.deepcopy(D)
        fastdat.dat_step(expected, xr, xf, STRONG, compile=False).backward()
        D = D.to(memory_format=torch.channels_last)
        xr, xf = (x.to(memory_format=torch.channels_last) for x in (xr, xf))
        loss, info = fastdat.dat_step(D, xr, xf, STRONG, compile=False, with_info=True)
        loss.backward()
        assert relative_error(gradients(D), gradients(expected)) <= EXACT
        assert info.xr_adv.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
    def test_bf16_autocast(self, second_order: bool) -> None:
        """As close to fp64 as the reference under the same autocast is, within a factor."""
        D, (xr, xf, _) = make("conv"), batch("conv", m=16)
        config = replace(STRONG, second_order=second_order, delta_clip=None, bounds=None)
        exact = copy.deepcopy(D)
        fastdat.reference.dat_step(exact, xr, xf, config, "gan").backward()
        errors = []
        for step in (fastdat.reference.dat_step, lambda *a: fastdat.dat_step(*a, compile=False)):
            low = copy.deepcopy(D).float()
            with torch.autocast("cpu", torch.bfloat16):
                loss = step(low, xr.float(), xf.float(), config, "gan")
            loss.backward()
            errors.append(relative_error(gradients(low), gradients(exact)))
        assert errors[1] <= 2 * errors[0] < 0.2

    def test_bf16_autocast_of_spectral_norm_keeps_sigma_in_fp32(self) -> None:
        D, (xr, xf, _) = make("spectral", torch.float32), batch("spectral", dtype=torch.float32)
        other = copy.deepcopy(D)
        with torch.autocast("cpu", torch.bfloat16):
            fastdat.dat_step(D, xr, xf, compile=False)
        fastdat.dat_step(other, xr, xf, compile=False)
        torch.testing.assert_close(dict(D.named_buffers()), dict(other.named_buffers()), rtol=0, atol=0)

    def test_wrapped_by_torch_compile(self) -> None:
        D, (xr, xf, _) = make("spectral"), batch("spectral")
        plain = copy.deepcopy(D)
        fastdat.dat_step(torch.compile(D), xr, xf, STRONG, compile=False).backward()
        fastdat.dat_step(plain, xr, xf, STRONG, compile=False).backward()
        torch.testing.assert_close(gradients(D), gradients(plain))

    def test_deepcopy_pickle_and_state_dict_after_a_step(self) -> None:
        import pickle

        D, (xr, xf, _) = make("spectral-hook"), batch("spectral-hook")
        keys = list(D.state_dict())
        fastdat.dat_step(D, xr, xf, compile=False).backward()
        assert list(D.state_dict()) == keys
        clones = [copy.deepcopy(D), pickle.loads(pickle.dumps(D))]
        for clone in clones:
            torch.testing.assert_close(clone.eval()(xr), D.eval()(xr))


def test_a_parameter_may_be_called_like_an_input() -> None:
    """A frozen parameter named ``xr`` stays what it is where the gradient for ``xr`` is wanted."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.xr = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), requires_grad=False)
            self.head = nn.Linear(3, 1, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x * self.xr)

    D = Named()
    xr, xf = torch.rand(2, 4, 3, dtype=torch.float64).unbind()
    found, expected = [], []
    for step, results in ((fastdat.dat_step, found), (fastdat.reference.dat_step, expected)):
        x = xr.clone().requires_grad_()
        more = {"compile": False} if step is fastdat.dat_step else {}
        loss = step(D, x, xf, STRONG, "gan", **more)
        results += [loss.detach(), *torch.autograd.grad(loss, (x, D.head.weight))]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
