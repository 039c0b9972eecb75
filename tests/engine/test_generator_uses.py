"""generator_step as a loss in a loop, compiled, as a pure function, and with bad input."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fastdat
from fastdat import DATConfig
from fastdat.config import Wiring
from fastdat.engine.functional import generator_grads
from fastdat.regularizers import ASGAN, RobGAN
from tests.compare import relative_error
from tests.discriminators import batch, make
from tests.engine.test_distributed import run
from tests.engine.test_generator_step import WIRINGS, assert_matches
from tests.engine.test_step import STRONG


def _eager(*arguments: Any, **options: Any) -> Tensor:
    return fastdat.generator_step(*arguments, compile=False, **options)


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
    with context():
        assert not _eager(D, xf, xr, STRONG).requires_grad  # nothing gets a gradient: no mistake of the order


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
    for wiring, loss in zip(WIRINGS, ("rpgan", "hinge", "hinge"), strict=True):
        assert_matches(D, xf, xr, STRONG, loss, wiring=wiring, compile=True)
    x = xf.clone().requires_grad_()
    fastdat.dat_step(D, xr, x, STRONG).backward()
    assert all(p.grad is not None for p in D.parameters()), "D's step took the engine of G's"


# --- several processes ----------------------------------------------------------------------------------------------

SAMPLES = 8


def _parts(rank: int, ranks: int) -> None:
    """Means, signs and divisors are those of all ranks, and G's gradient is the mean of theirs."""
    torch.manual_seed(0)
    D, (xr, xf, _) = make("spectral"), batch("spectral", m=SAMPLES)
    order = D.eval()(xr).flatten().argsort()  # shards of unlike logits
    xr, D = xr[order], D.train()
    part = slice(rank * SAMPLES // ranks, (rank + 1) * SAMPLES // ranks)
    cases: list[tuple[Wiring, dict[str, Any]]] = [
        ("pass", {}),
        ("pass", {"reduction": "sample", "seed": "eq10"}),
        ("second_order", {"eps_batch": None, "eps": 2.0, "steps": 2}),
    ]
    for wiring, fields in cases:
        config, whole, mine = replace(STRONG, **fields), xf.clone().requires_grad_(), xf[part].clone()
        alone, shared = copy.deepcopy(D), DistributedDataParallel(copy.deepcopy(D))
        expected = fastdat.reference.generator_step(alone, whole, xr, config, "gan", wiring=wiring)
        expected.backward()
        loss = _eager(shared, mine.requires_grad_(), xr[part], config, "gan", wiring=wiring)
        loss.backward()
        assert relative_error(mine.grad / ranks, whole.grad[part]) <= 1e-9
        total = loss.detach().clone()
        dist.all_reduce(total)
        torch.testing.assert_close(total / ranks, expected.detach())
        torch.testing.assert_close(dict(shared.module.named_buffers()), dict(alone.named_buffers()))
        # DDP has waited for no gradient of G's step, and takes those of D's.
        fastdat.dat_step(shared, xr[part], xf[part], config, compile=False).backward()


@pytest.mark.slow
def test_two_ranks_with_four_samples_equal_one_with_eight(tmp_path: Path) -> None:
    run(2, tmp_path, _parts)


# --- as a pure function ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wiring", "traced"), [("pass", False), ("second_order", False), ("cut", False), ("second_order", True)]
)
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
        (
            {"xf": torch.zeros(6, 2), "xr": torch.ones(6, 2, requires_grad=True)},
            ValueError,
            r"are the two swapped\? .*generator_step\(D, G\(z\), xr\)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    D, (xr, xf, _) = make("mlp", torch.float32), batch("mlp", dtype=torch.float32)
    arguments = {"D": D, "xf": xf.requires_grad_(), "xr": xr, "compile": False} | changes
    with pytest.raises(error, match=message):
        fastdat.generator_step(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"wiring": "foo"}, ValueError, "wiring must be one of 'pass', 'second_order', 'cut', got 'foo'"),
        ({"config": RobGAN()}, TypeError, "got RobGAN, which attacks in D's step only"),
    ],
)
def test_mistakes_of_the_reference(options: dict[str, Any], error: type[Exception], message: str) -> None:
    D, (xr, xf, _) = make("mlp"), batch("mlp")
    with pytest.raises(error, match=message):
        fastdat.reference.generator_step(D, xf, xr, **options)


def test_reals_with_a_gradient_are_no_mistake_beside_fakes_with_one() -> None:
    D, (xr, xf, _) = make("mlp"), batch("mlp")
    x, y = xf.requires_grad_(), xr.requires_grad_()
    _eager(D, x, y).backward()
    assert x.grad is not None
    assert y.grad is None


def test_the_same_tensor_for_both_sides() -> None:
    D, (xr, _, _) = make("mlp"), batch("mlp")
    with pytest.raises(ValueError, match=r"the same tensor.*generator_step\(D, G\(z\), xr\)"):
        _eager(D, xr, xr)
