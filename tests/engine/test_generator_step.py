"""generator_step, G's loss on attacked fakes: against the reference in float64, and against numbers found by hand."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.config import Wiring
from fastdat.engine.functional import generator_grads
from fastdat.losses import LOSSES
from fastdat.regularizers import ASGAN, RobGAN
from tests.compare import relative_error
from tests.discriminators import KINDS, batch, make
from tests.engine.test_step import STRONG

WIRINGS = get_args(Wiring)
FIELDS: dict[str, dict[str, Any]] = {
    "default": {},
    "eq10-sample": {"seed": "eq10", "reduction": "sample"},
    "alg1": {"seed": "alg1"},
    "sample": {"reduction": "sample"},
    "no-attack-strength": {"eps": 0.0},
    "eps_batch-none": {"eps_batch": None, "eps": 2.0},
    "no-delta_clip": {"delta_clip": None},
    "no-bounds": {"bounds": None},
    "narrow-bounds": {"bounds": (-0.5, 0.25)},
    "three-steps": {"steps": 3, "eps": 8.0},
    "three-steps-sample": {"steps": 3, "eps": 8.0, "seed": "eq10", "reduction": "sample"},
    "half-clean": {"clean_weight": 0.5, "seed": "alg1"},
    "per_forward": {"power_iterations": "per_forward"},
    "per_forward-three-steps-datt": {"power_iterations": "per_forward", "steps": 3, "clean_weight": 1.0},
}


def both(
    D: nn.Module,
    xf: Tensor,
    xr: Tensor,
    config: DATConfig | None,
    loss: Any,
    compile: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """The gradients for ``xf`` of generator_step and of the reference, whose other results are found to be equal.

    The gradient is taken of a sum, as that of a G with weights would be, and D's own gradients must not exist.
    """
    ours, plain = copy.deepcopy(D), copy.deepcopy(D)
    mine, theirs = xf.clone().requires_grad_(), xf.clone().requires_grad_()
    requires = [p.requires_grad for p in ours.parameters()]
    modes = [module.training for module in ours.modules()]
    value = fastdat.generator_step(ours, 1.0 * mine, xr, config, loss, compile=compile, **options)
    value.backward()
    expected = fastdat.reference.generator_step(plain, 1.0 * theirs, xr, config, loss, **options)
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)
    for (name, buffer), other in zip(plain.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(
            other, buffer, rtol=1e-11, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )
    for net in (ours, plain):
        assert [p.requires_grad for p in net.parameters()] == requires
        assert [module.training for module in net.modules()] == modes
        assert all(p.grad is None for p in net.parameters())
    assert mine.grad is not None
    return mine.grad, torch.zeros_like(theirs) if theirs.grad is None else theirs.grad


def assert_matches(*arguments: Any, wiring: Wiring, **options: Any) -> None:
    mine, theirs = both(*arguments, wiring=wiring, **options)
    config = arguments[3] or DATConfig()
    if wiring == "cut" and config.clean_weight == 0:
        assert not theirs.any()
        assert not mine.any()
    else:
        assert theirs.norm() > 1e-3, "this batch tests nothing"
        assert relative_error(mine, theirs) <= 1e-11


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("kind", ["smooth", "spectral", "batchnorm", "conditional"])
def test_every_field_and_wiring(kind: str, fields: str) -> None:
    xr, xf, args = batch(kind)
    for wiring in WIRINGS:
        config = replace(STRONG, **FIELDS[fields])
        assert_matches(make(kind), xf, xr, config, "gan", wiring=wiring, **args)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_discriminator(kind: str) -> None:
    xr, xf, args = batch(kind)
    config = replace(STRONG, steps=2, seed="eq10", reduction="sample", clean_weight=0.5)
    for wiring in WIRINGS:
        assert_matches(make(kind), xf, xr, config, "gan", wiring=wiring, **args)
        assert_matches(make(kind).eval(), xf, xr, config, "gan", wiring=wiring, **args)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss: str) -> None:
    """Reals are compared with fakes by a pair loss: in another order they would give another loss."""
    for kind in ("batchnorm", "spectral"):
        xr, xf, _ = batch(kind)
        for wiring in WIRINGS:
            for fields in ({}, {"clean_weight": 0.5}, {"power_iterations": "per_forward"}):
                assert_matches(make(kind), xf, xr, replace(STRONG, **fields), loss, wiring=wiring)


def test_own_loss_without_a_side_of_g() -> None:
    class Exponential:
        """f-GAN's pair in Sec. II-A."""

        def g1(self, t: Tensor) -> Tensor:
            return -torch.exp(-t)

        def g2(self, t: Tensor) -> Tensor:
            return 1 - t

    xr, xf, _ = batch("spectral")
    assert_matches(
        make("spectral"), xf, xr, replace(STRONG, seed="eq10"), Exponential(), wiring="second_order"
    )


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("power_iterations", ["once", "per_forward"])
def test_aux_loss_sees_the_clean_fakes(power_iterations: str, wiring: Wiring) -> None:
    """Its gradient reaches them for every wiring, and it shares the weights of the last call."""

    def aux_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
        return 0.3 * D(xf.flip(3))[1].square().mean() + D.features(xr).mean()

    D, (xr, xf, _) = make("two-heads"), batch("two-heads")
    config = replace(STRONG, power_iterations=power_iterations)
    mine, theirs = both(D, xf, xr, config, "gan", wiring=wiring, aux_loss=aux_loss)
    assert theirs.norm() > 1e-3
    assert relative_error(mine, theirs) <= 1e-11


def test_sides_and_order_of_the_d_step_do_not_count() -> None:
    """``real``, ``fake`` and ``second_order`` belong to D's step, and reals are never moved."""
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    for wiring in WIRINGS:
        values = []
        for fields in (
            {},
            {"real": False},
            {"fake": False},
            {"real": False, "fake": False},
            {"second_order": True},
        ):
            x = xf.clone().requires_grad_()
            loss = fastdat.generator_step(
                D, x, xr, replace(STRONG, **fields), "gan", wiring=wiring, compile=False
            )
            loss.backward()
            values.append((loss.item(), x.grad))
        assert all(value[0] == values[0][0] and torch.equal(value[1], values[0][1]) for value in values)


# --- numbers found by hand ------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """``w.x + x' A x / 2`` for points, A symmetric: dD/dx = w + A x."""

    def __init__(self, w: Tensor, A: Tensor) -> None:
        super().__init__()
        self.w, self.A = nn.Parameter(w), nn.Parameter(A)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + 0.5 * (x @ self.A * x).sum(1)


def test_linear_discriminator_by_hand() -> None:
    """Reals are higher, so fakes move up by eps/eps_batch w = (.2, -.4, .1). G minimises -mean D, whose gradient is
    -w/m, and 0 where x_hat is clipped."""
    D = nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        D.weight.copy_(torch.tensor([[0.5, -1.0, 0.25]]))
    xr = torch.tensor([[0.9, -0.8, 0.7], [0.2, -0.5, 0.1]], dtype=torch.float64)
    xf = torch.tensor([[0.9, 0.1, -0.3], [-0.6, -0.7, 0.2]], dtype=torch.float64)
    config = DATConfig(eps=0.8, eps_batch=2)
    inside = torch.tensor(
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]], dtype=torch.float64
    )  # .9 + .2 > 1, -.7 - .4 < -1
    x_hat = torch.tensor([[1.0, -0.3, -0.2], [-0.4, -1.0, 0.3]], dtype=torch.float64)
    expected_loss = -D(x_hat).mean()
    for step in (fastdat.reference.generator_step, _eager):
        for wiring in WIRINGS:
            x = xf.clone().requires_grad_()
            loss = step(D, x, xr, config, "hinge", wiring=wiring)
            loss.backward()
            torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
            if wiring != "cut":
                torch.testing.assert_close(x.grad, -D.weight / 2 * inside, rtol=1e-12, atol=0)


def _eager(*arguments: Any, **options: Any) -> Tensor:
    return fastdat.generator_step(*arguments, compile=False, **options)


@pytest.mark.parametrize("step", [fastdat.reference.generator_step, _eager], ids=["reference", "fastdat"])
def test_quadratic_discriminator_by_hand(step: Any) -> None:
    """d = c g with g = w + A x and c = eps/eps_batch here. ``pass`` gives -(w + A x_hat)/m, and ``second_order``
    multiplies it by dx_hat/dx = 1 + c A."""
    w = torch.tensor([0.3, -0.7], dtype=torch.float64)
    A = torch.tensor([[0.4, -0.2], [-0.2, 0.1]], dtype=torch.float64)
    xr = torch.tensor([[2.0, -1.5], [1.0, -2.5], [0.5, -3.0]], dtype=torch.float64)
    xf = torch.tensor([[0.1, 0.5], [-0.3, 0.2], [0.4, 0.9]], dtype=torch.float64)
    D, c = Quadratic(w, A), 0.5
    assert D(xr).mean() > D(xf).mean()
    config = DATConfig(eps=c, eps_batch=1, bounds=None, delta_clip=None)
    at_x_hat = -(w + (xf + c * (w + xf @ A)) @ A) / 3
    for wiring, expected in (("pass", at_x_hat), ("second_order", at_x_hat + c * at_x_hat @ A)):
        x = xf.clone().requires_grad_()
        step(D, x, xr, config, "wgan", wiring=wiring).backward()
        torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("wiring", ["pass", "second_order"])
def test_strength_zero_is_the_usual_step_of_g(wiring: Wiring) -> None:
    D, (xr, xf, _) = make("conv"), batch("conv")
    x, y = xf.clone().requires_grad_(), xf.clone().requires_grad_()
    fastdat.generator_step(D, x, xr, DATConfig(eps=0.0), "gan", wiring=wiring, compile=False).backward()
    torch.nn.functional.softplus(-D(y)).mean().backward()
    assert relative_error(x.grad, y.grad) <= 1e-12


def test_running_statistics_move_as_in_the_usual_step() -> None:
    """Once, by the fakes; a second call on them would move them further."""
    D, (xr, xf, _) = make("batchnorm"), batch("batchnorm")
    plain = copy.deepcopy(D)
    plain(xf)
    fastdat.generator_step(D, xf, xr, DATConfig(eps=0.0), compile=False)
    torch.testing.assert_close(dict(D.named_buffers()), dict(plain.named_buffers()), rtol=1e-12, atol=1e-14)


# --- where a loss works ---------------------------------------------------------------------------------------------


def test_it_trains_a_generator() -> None:
    """The gradient goes through G's graph, scaled by what backward gives, and adds up."""
    G, D, (xr, _, _) = nn.Linear(3, 2, dtype=torch.float64), make("smooth"), batch("smooth")
    z = torch.randn(6, 3, dtype=torch.float64)
    found = []
    for step in (fastdat.reference.generator_step, _eager):
        G.zero_grad()
        (2 * step(D, G(z).tanh(), xr, STRONG, "gan") + G.bias.sum()).backward()
        found.append(torch.cat([G.weight.grad.flatten(), G.bias.grad]))
    assert relative_error(found[1], found[0]) <= 1e-11
    assert not any(p.grad is not None for p in D.parameters())


def test_gradients_of_d_that_there_are_stay() -> None:
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    fastdat.dat_step(D, xr, xf, STRONG, compile=False).backward()
    before = [p.grad.clone() for p in D.parameters()]
    fastdat.generator_step(D, xf.requires_grad_(), xr, STRONG, compile=False).backward()
    assert all(map(torch.equal, before, [p.grad for p in D.parameters()]))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_the_loss_alone(context: Any) -> None:
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    other = copy.deepcopy(D)
    expected = _eager(D, xf.clone().requires_grad_(), xr, STRONG)
    with context():
        loss = _eager(other, xf.clone().requires_grad_(), xr, STRONG)
    assert not loss.requires_grad
    torch.testing.assert_close(loss.clone(), expected.detach(), rtol=0, atol=0)
    torch.testing.assert_close(dict(D.named_buffers()), dict(other.named_buffers()), rtol=0, atol=0)
    assert not _eager(D, xf, xr, STRONG).requires_grad  # xf has no graph
    xr.requires_grad_()
    assert not _eager(D, xf, xr, STRONG).requires_grad  # reals get no gradient


def test_frozen_discriminator() -> None:
    """As many loops freeze D in G's step, and D's next step needs its gradients again."""
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    for _ in range(2):
        D.requires_grad_(False)
        _eager(D, xf.clone().requires_grad_(), xr, STRONG).backward()
        D.requires_grad_(True)
        fastdat.dat_step(D, xr, xf, STRONG, compile=False).backward()
        assert all(p.grad is not None for p in D.parameters())
        D.zero_grad()


def test_autocast() -> None:
    """In bf16 the loss is in fp32, and the gradient is that of the samples' dtype."""
    D, (xr, xf, _) = make("conv", torch.float32), batch("conv", dtype=torch.float32)
    grads, losses = [], []
    for enabled in (False, True):
        x = xf.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = _eager(D, x, xr, replace(STRONG, eps=2.0), "gan")
        loss.backward()
        grads.append(x.grad)
        losses.append(loss.detach())
    assert losses[1].dtype == grads[1].dtype == torch.float32
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2, atol=1e-2)
    assert relative_error(grads[1], grads[0]) < 0.1


def test_a_second_derivative_is_an_error() -> None:
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    x = xf.requires_grad_()
    (gradient,) = torch.autograd.grad(_eager(D, x, xr, STRONG), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


# --- compiled -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "wiring", "fields", "loss"),
    [
        ("spectral", "pass", {"clean_weight": 0.5}, "rpgan"),
        ("batchnorm", "second_order", {"steps": 2, "eps": 8.0}, "gan"),
        ("conditional", "cut", {"power_iterations": "per_forward"}, "hinge"),
    ],
)
def test_compiled_is_one_graph(
    kind: str, wiring: Wiring, fields: Any, loss: str, compile_counters: dict[str, Counter[str]]
) -> None:
    D, (xr, xf, args) = make(kind), batch(kind)
    config = replace(STRONG, **fields)
    plain = copy.deepcopy(D)
    for i in range(10):
        x, y = (xf.roll(i, 0).clone().requires_grad_() for _ in range(2))
        loss_of = {"config": config, "loss": loss, "wiring": wiring, **args}
        value = fastdat.generator_step(D, x, xr, **loss_of)
        value.backward()
        expected = fastdat.reference.generator_step(plain, y, xr, **loss_of)
        expected.backward()
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(
            x.grad, torch.zeros_like(y) if y.grad is None else y.grad, rtol=1e-9, atol=1e-11
        )
        torch.testing.assert_close(
            dict(D.named_buffers()), dict(plain.named_buffers()), rtol=1e-9, atol=1e-11
        )
    assert compile_counters["stats"]["unique_graphs"] == 1
    assert not compile_counters["graph_break"]


@pytest.mark.usefixtures("only_traced")
def test_every_wiring_is_traced() -> None:
    """Each has an engine of its own, beside that of D's step."""
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    for wiring in WIRINGS:
        for loss in ("hinge", "rpgan"):
            assert_matches(D, xf, xr, STRONG, loss, wiring=wiring, compile=True)
        x = xf.clone().requires_grad_()
        fastdat.dat_step(D, xr, x, STRONG).backward()
        assert x.grad.any(), "D's step took the engine of G's"


# --- as a pure function ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_stacked_discriminators(wiring: Wiring, traced: bool) -> None:
    """vmap over stacked parameters does what generator_step does to each alone."""
    Ds = [make("smooth") for _ in range(3)]
    xr, xf = torch.rand(2, 3, 5, 2, dtype=torch.float64).unbind()
    config = DATConfig(eps=20.0, bounds=None, steps=2, real=False, fake=False)
    stacked = {
        name: torch.stack([dict(D.named_parameters())[name] for D in Ds]).detach()
        for name, _ in Ds[0].named_parameters()
    }

    def one(params: dict[str, Tensor], xf: Tensor, xr: Tensor) -> object:
        return generator_grads(Ds[0], params, xf, xr, config=config, loss="gan", wiring=wiring)

    mapped = torch.vmap(one)
    if traced:
        mapped = torch.compile(mapped, fullgraph=True, backend="eager")
    grads, losses = mapped(stacked, xf, xr)
    assert not losses.requires_grad
    for i, D in enumerate(Ds):
        x = xf[i].clone().requires_grad_()
        loss = _eager(D, x, xr[i], config, "gan", wiring=wiring)
        loss.backward()
        torch.testing.assert_close(losses[i], loss.detach(), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(grads[i], x.grad, rtol=1e-11, atol=1e-13)
        assert bool(x.grad.any()) == (wiring != "cut")


def test_pure_function_refuses() -> None:
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    with pytest.raises(ValueError, match=r"generator_grads keeps no state.*use fastdat.generator_step"):
        generator_grads(D, dict(D.named_parameters()), xf, xr)
    D, (xr, xf, _) = make("smooth"), batch("smooth")
    params = dict(D.named_parameters())
    with pytest.raises(ValueError, match="wiring must be one of"):
        generator_grads(D, params, xf, xr, wiring="none")
    with pytest.raises(TypeError, match="got ASGAN"):
        generator_grads(D, params, xf, xr, config=ASGAN())
    with pytest.raises(ValueError, match='compares pairs and has no g1 and g2, which seed="eq10" attacks'):
        generator_grads(
            D, params, xf, xr, config=DATConfig(seed="eq10", fake=False, real=False), loss="rpgan"
        )
    with pytest.raises(RuntimeError, match="the gradients of generator_grads cannot be differentiated again"):
        torch.func.grad(lambda x: generator_grads(D, params, x, xr)[0].sum())(xf)


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"wiring": "none"}, ValueError, "wiring must be one of 'pass', 'second_order', 'cut', got 'none'"),
        ({"config": RobGAN()}, TypeError, "got RobGAN, which attacks in D's step only: train G with"),
        ({"config": {"eps": 1.0}}, TypeError, r"write DATConfig\(\*\*config\)"),
        ({"xf": torch.zeros(5, 2)}, ValueError, r"one shape: got \(6, 2\) and \(5, 2\)"),
        ({"xf": torch.zeros(6, 2, dtype=torch.float64)}, ValueError, "one dtype"),
        ({"D": torch.zeros(6, 2), "xf": nn.Linear(2, 1)}, TypeError, r"call generator_step\(D, xf, xr\)"),
        ({"D": nn.Linear}, TypeError, "the class Linear itself"),
        ({"loss": "hing"}, ValueError, "did you mean 'hinge'"),
        (
            {"loss": "rpgan", "config": DATConfig(seed="alg1", fake=False, real=False)},
            ValueError,
            "compares pairs",
        ),
        ({"args_fake": (1,)}, ValueError, "args_real and args_fake must be as many"),
        ({"compile": "fast"}, ValueError, "compile must be True, False or one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    D, (xr, xf, _) = make("mlp", torch.float32), batch("mlp", dtype=torch.float32)
    arguments = {"D": D, "xf": xf.requires_grad_(), "xr": xr, "compile": False} | changes
    with pytest.raises(error, match=message):
        fastdat.generator_step(**arguments)


def test_the_same_tensor_for_both_sides() -> None:
    D, (xr, _, _) = make("mlp"), batch("mlp")
    with pytest.raises(ValueError, match=r"the same tensor.*generator_step\(D, G\(z\), xr\)"):
        _eager(D, xr, xr)
