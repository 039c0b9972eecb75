"""dat_grads: the step as a pure function."""

from __future__ import annotations

import pytest
import torch

import fastdat
from fastdat import DATConfig
from fastdat.engine.functional import dat_grads
from tests.discriminators import batch, make

CONFIGS = [DATConfig(eps=20.0), DATConfig(eps=20.0, second_order=True), DATConfig(real=False, fake=False)]


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("config", CONFIGS, ids=["first", "second", "no-attack"])
def test_stacked_discriminators(config: DATConfig, traced: bool) -> None:
    """vmap over stacked parameters does what dat_step does to each alone, also as one graph of torch.compile."""
    Ds = [make("mlp") for _ in range(3)]
    xr, xf = (torch.rand(2, 3, 5, 2, dtype=torch.float64)).unbind()
    stacked = {
        name: torch.stack([dict(D.named_parameters())[name] for D in Ds]).detach()
        for name, _ in Ds[0].named_parameters()
    }

    def one(params: dict[str, torch.Tensor], xr: torch.Tensor, xf: torch.Tensor) -> object:
        return dat_grads(Ds[0], params, xr, xf, config=config, loss="gan")

    mapped = torch.vmap(one)
    if traced:
        mapped = torch.compile(mapped, fullgraph=True, backend="eager")
    grads, losses = mapped(stacked, xr, xf)
    assert not losses.requires_grad
    for i, D in enumerate(Ds):
        loss = fastdat.dat_step(D, xr[i], xf[i], config, "gan", compile=False)
        loss.backward()
        torch.testing.assert_close(losses[i], loss.detach())
        for name, p in D.named_parameters():
            torch.testing.assert_close(grads[name][i], p.grad)


def test_state_is_refused() -> None:
    D, (xr, xf, _) = make("spectral"), batch("spectral")
    with pytest.raises(ValueError, match=r"spectral norm: use fastdat.dat_step"):
        dat_grads(D, dict(D.named_parameters()), xr, xf)
