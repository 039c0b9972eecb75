"""dat_step and fused spectral norm with every operation on its kernel, against the plain reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches, gradients, relative_error, rounding_bound
from tests.discriminators import batch, make
from tests.engine.test_step import STRONG
from tests.kernels.noted_operators import NotedOperators

CONFIGS = {
    "default": STRONG,
    "second-order": replace(STRONG, second_order=True),
    "eq10-sample": replace(STRONG, seed="eq10", reduction="sample", second_order=True),
    "steps-unclipped-reals": replace(STRONG, steps=2, eps=8.0, clip_real=False, seed="alg1"),
    "official": replace(DATConfig.official(), eps=2.0),
    "datt-real-only": replace(STRONG, clean_weight=1.0, fake=False),
}


@pytest.fixture
def kernels_used(device: str) -> Iterator[set[str]]:
    """Names of the operators that ran so far, all but derivatives."""
    with NotedOperators() as noted:
        yield noted.names


def forward_only(names: set[str]) -> set[str]:
    return {name for name in names if not name.endswith("_backward")}


# Every config and every kind, and double backward through every form of spectral norm.
CELLS = [
    *(("spectral", "second-order"), ("spectral-hook", "eq10-sample"), ("conditional", "second-order")),
    *(("batchnorm", config) for config in CONFIGS if config != "second-order"),
    ("spectral", "steps-unclipped-reals"),
]


@pytest.mark.parametrize(("kind", "config"), CELLS)
def test_eager(kind: str, config: str, device: str, kernels_used: set[str]) -> None:
    D, (xr, xf, args) = make(kind).to(device), batch(kind, m=4)
    args = {name: tuple(a.to(device) for a in of_side) for name, of_side in args.items()}
    xr, xf = xr.to(device), xf.to(device)
    assert_step_matches(D, xr, xf, CONFIGS[config], "gan", tolerance=1e-9, **args)
    wanted = {"perturb_clip_stats", "attack_coefficients"} | (
        {"perturb_clip"} if CONFIGS[config].steps > 1 else set()
    )
    assert forward_only(kernels_used) == wanted | (set() if kind == "batchnorm" else {"spectral_norm"})


@pytest.mark.slow
@pytest.mark.parametrize(("second_order", "microbatch"), [(False, 2), (True, None)], ids=["first", "second"])
def test_compiled(second_order: bool, microbatch: int | None, device: str) -> None:
    """In fp32, as one graph with the operators in it."""
    D, (xr, xf, _) = make("spectral", torch.float32), batch("spectral", m=4, dtype=torch.float32)
    config = replace(STRONG, seed="eq10", second_order=second_order)
    ours, plain = copy.deepcopy(D).to(device), copy.deepcopy(D).double()
    fastdat.reference.dat_step(plain, xr.double(), xf.double(), config, "gan").backward()
    given = (xr.to(device), xf.to(device), config, "gan")
    bound = rounding_bound(ours, *given, gradients(plain))
    loss, info = fastdat.dat_step(ours, *given, microbatch=microbatch, with_info=True)
    loss.backward()
    assert relative_error(gradients(ours).cpu(), gradients(plain)) <= bound
    assert 0 <= float(info.clipped_real) <= 1


def test_bf16_autocast_uses_weights_in_bf16(device: str) -> None:
    D, (xr, xf, _) = make("spectral", torch.float32), batch("spectral", m=8, dtype=torch.float32)
    exact = copy.deepcopy(D).double()
    fastdat.reference.dat_step(exact, xr.double(), xf.double(), STRONG, "gan").backward()
    errors = {}
    for name, step in (("plain", fastdat.reference.dat_step), ("ours", fastdat.dat_step)):
        net = copy.deepcopy(D).to(device)
        more = {} if name == "plain" else {"compile": False}
        with torch.autocast(device, torch.bfloat16):
            step(net, xr.to(device), xf.to(device), STRONG, "gan", **more).backward()
        errors[name] = relative_error(gradients(net).cpu(), gradients(exact))
    assert errors["ours"] <= 2 * errors["plain"]


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook", "conditional"])
def test_fused_spectral_norm(kind: str, device: str, kernels_used: set[str]) -> None:
    D, (x, _, args) = make(kind).to(device), batch(kind)
    arguments = [x.to(device), *(a.to(device) for a in args.get("args_real", ()))]
    fused = fastdat.fuse_spectral_norm(copy.deepcopy(D))
    for net in (D, fused):
        (net(*arguments) - net(*arguments).square()).sum().backward()
    torch.testing.assert_close(gradients(fused), gradients(D), rtol=1e-10, atol=1e-12)
    for name, value in D.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    assert forward_only(kernels_used) == {"spectral_norm"}


def test_stacked_discriminators(device: str) -> None:
    """torch.vmap over the step, as the ensemble of Fig. 3 does it."""
    nets = [make("mlp").to(device) for _ in range(3)]
    params = {
        name: torch.stack([dict(net.named_parameters())[name].detach() for net in nets])
        for name, _ in nets[0].named_parameters()
    }
    xr, xf = (torch.rand(2, 3, 8, 2, dtype=torch.float64, device=device) * 2 - 1).unbind()
    config = replace(STRONG, second_order=True, seed="eq10")

    def step(params: dict[str, torch.Tensor], xr: torch.Tensor, xf: torch.Tensor) -> dict[str, torch.Tensor]:
        return fastdat.functional.dat_grads(nets[0], params, xr, xf, config=config, loss="gan")[0]

    found = torch.vmap(step)(params, xr, xf)
    for i, net in enumerate(nets):
        fastdat.reference.dat_step(net, xr[i], xf[i], config, "gan").backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(found[name][i], p.grad, rtol=1e-8, atol=1e-10)
