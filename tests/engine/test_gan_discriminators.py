"""dat_step on discriminators like those of StyleGAN2, R3GAN and SAGAN: exact, attention in second order included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

import fastdat
from fastdat import DATConfig
from fastdat.engine.functional import dat_grads
from tests.compare import assert_step_matches, relative_error
from tests.discriminators import batch
from tests.gan_discriminators import OTHERS, SelfAttention
from tests.noted_operations import NotedOperations

EXACT = 1e-9
FP32 = 1e-5
STRONG = DATConfig(eps=30.0, delta_clip=0.3)
FIELDS = {
    "first": {},
    "second": {"second_order": True},
    "second-steps-datt": {"second_order": True, "steps": 2, "clean_weight": 0.5, "seed": "eq10"},
}


def reference_of(kind: str, D: nn.Module) -> nn.Module:
    """D in operations that have a second derivative wherever it runs."""
    if kind != "fused-attention":
        return D
    plain = SelfAttention().to(next(D.parameters()).dtype)
    plain.load_state_dict(D.state_dict())
    return plain


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("kind", OTHERS)
def test_eager(kind: str, fields: str) -> None:
    D, (xr, xf, _) = OTHERS[kind]().double(), batch("conv")
    config = replace(STRONG, **FIELDS[fields])
    arguments = {"tolerance": EXACT, "reference_D": reference_of(kind, D)}
    assert_step_matches(D, xr, xf, config, "gan", **arguments)
    if kind != "stylegan2":
        assert_step_matches(D, xr, xf, config, "gan", microbatch=4, **arguments)


# torch 2.11 writes outside its memory in the plain `torch.compile(torch.func.grad(...))` of such a net on a CPU.
BREAKS_THE_PROCESS = pytest.mark.skipif(
    TorchVersion(torch.__version__) < (2, 13),
    reason="torch 2.11 cannot compile bilinear downsampling on a CPU",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["stylegan2", pytest.param("r3gan", marks=BREAKS_THE_PROCESS), "fused-attention"]
)
def test_compiled(kind: str) -> None:
    D, (xr, xf, _) = OTHERS[kind](), batch("conv", dtype=torch.float32)
    config = replace(STRONG, second_order=True)
    plain = reference_of(kind, D)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=FP32, compile=True, reference_D=plain)


def test_attention_in_an_aux_loss() -> None:
    """The loss takes attention from D and adds one of its own."""
    D, (xr, xf, _) = OTHERS["fused-attention"]().double(), batch("conv")

    def aux_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
        return D(xr.flip(3)).square().mean()

    config = replace(STRONG, second_order=True)
    plain = reference_of("fused-attention", D)
    assert_step_matches(D, xr, xf, config, "gan", tolerance=EXACT, reference_D=plain, aux_loss=aux_loss)


def test_only_second_order_gives_up_the_fast_kernels() -> None:
    D, (xr, xf, _) = OTHERS["fused-attention"](), batch("conv", dtype=torch.float32)
    for second_order in (False, True):
        config = replace(STRONG, second_order=second_order)
        fastdat.dat_step(D, xr, xf, config, compile=False)  # inspects D
        with NotedOperations() as noted:
            fastdat.dat_step(D, xr, xf, config, compile=False)
        fast = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
        assert (fast in map(str, noted.found)) is not second_order
    assert torch.backends.cuda.flash_sdp_enabled()


def test_attention_as_a_pure_function() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.head = nn.Linear(8, 9), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x.flatten(1, 2))[:, None].chunk(3, -1)
            return self.head(nn.functional.scaled_dot_product_attention(q, k, v).tanh().sum((1, 2)))

    D, (xr, xf, _) = Attention().double(), batch("conv")
    config = replace(STRONG, second_order=True)
    grads, _ = dat_grads(D, dict(D.named_parameters()), xr, xf, config=config, loss="gan")
    fastdat.dat_step(D, xr, xf, config, "gan", compile=False).backward()
    for name, p in D.named_parameters():
        assert relative_error(grads[name], p.grad) <= EXACT
