"""SNGAN: pinned sizes, shapes, errors, and everything that dat_step needs of the discriminator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, vjp

from fastdat.nets import SNGANDiscriminator, SNGANGenerator


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("resolution", "generator", "discriminator"),
    [
        (32, 4_276_739, 1_053_825),
        (48, 4_878_083, 10_141_441),
        (64, 12_220_675, 10_141_441),
        (128, 32_150_787, 29_017_857),
    ],
)
def test_parameter_counts_equal_the_baselines(resolution: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):  # sizes without the memory
        G = SNGANGenerator(resolution)
    assert count(G) == generator
    assert count(SNGANDiscriminator(resolution)) == discriminator


@pytest.mark.parametrize("resolution", [48, 64, 128])
def test_larger_resolutions(resolution: int) -> None:
    net = SNGANDiscriminator(resolution, ndf=16)
    images = SNGANGenerator(resolution, ngf=16, nz=5)(torch.randn(2, 5))
    assert images.shape == (2, 3, resolution, resolution)
    assert net(images).shape == (2, 1)
    smallest = net.blocks(images)
    assert smallest.shape[2:] == (resolution // 16,) * 2 if resolution < 128 else (4, 4)


@settings(max_examples=5, deadline=None)
@given(n=st.integers(2, 4), ngf=st.integers(1, 9), ndf=st.integers(1, 9), nz=st.integers(1, 7))
def test_shapes_for_any_width(n: int, ngf: int, ndf: int, nz: int) -> None:
    images = SNGANGenerator(32, ngf=ngf, nz=nz)(torch.randn(n, nz))
    assert images.shape == (n, 3, 32, 32)
    assert images.abs().max() <= 1
    net = SNGANDiscriminator(32, ndf=ndf)
    assert net(images).shape == (n, 1)
    assert net.features(images).shape == (n, ndf)


@pytest.mark.parametrize("net", [SNGANGenerator, SNGANDiscriminator])
def test_an_unknown_resolution_lists_the_known_ones(net: type[torch.nn.Module]) -> None:
    with pytest.raises(
        ValueError, match=rf"{net.__name__} exists at resolution 32, 48, 64, 128; got resolution=33"
    ):
        net(33)


def test_bad_widths() -> None:
    with pytest.raises(ValueError, match="ngf must be a positive multiple of 1; got ngf=0"):
        SNGANGenerator(32, ngf=0)
    with pytest.raises(ValueError, match="ndf must be a positive multiple of 1; got ndf=-8"):
        SNGANDiscriminator(32, ndf=-8)
    with pytest.raises(ValueError, match="nz"):
        SNGANGenerator(32, nz=0)


def test_spectral_norm_is_in_every_layer_of_d_and_none_of_g() -> None:
    names = [name for name, _ in SNGANDiscriminator(32, ndf=4).named_parameters() if "weight" in name]
    assert len(names) == 3 + 3 + 2 + 2 + 1
    assert all(name.endswith("parametrizations.weight.original") for name in names)
    assert not any("parametrizations" in name for name, _ in SNGANGenerator(32, ngf=4).named_parameters())


def test_one_power_iteration_per_forward_in_training_and_none_in_evaluation() -> None:
    net = SNGANDiscriminator(32, ndf=4)
    x = torch.rand(2, 3, 32, 32)
    u = net.linear.parametrizations.weight[0]._u
    v = net.blocks[1].conv1.parametrizations.weight[0]._v
    before = v.clone()
    net.eval()(x)
    assert torch.equal(v, before)
    net.train()(x)
    assert not torch.equal(v, before)
    assert u.norm().item() == pytest.approx(1)


def test_discriminator_under_torch_func_both_orders() -> None:
    torch.manual_seed(0)
    net = SNGANDiscriminator(32, ndf=4).double().eval()
    params = {name: p.detach() for name, p in net.named_parameters()}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def penalty(params: dict[str, torch.Tensor]) -> torch.Tensor:
        logits, pull = vjp(lambda images: functional_call(net, params, (images,)), x)
        (gradient,) = pull(torch.ones_like(logits))
        return gradient.square().sum()

    gradient = torch.func.grad(penalty)(params)

    # The same by plain double backward.
    x.requires_grad_()
    (inner,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    names = list(params)
    outer = torch.autograd.grad(
        inner.square().sum(), [net.get_parameter(n) for n in names], allow_unused=True
    )
    for name, expected in zip(names, outer, strict=True):
        expected = torch.zeros_like(params[name]) if expected is None else expected
        torch.testing.assert_close(gradient[name], expected)


def test_memory_format_and_dtype_pass_through() -> None:
    net = SNGANDiscriminator(32, ndf=4).to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype == torch.bfloat16
    generator = SNGANGenerator(32, ngf=4).double()
    assert generator(torch.randn(2, 128, dtype=torch.float64)).dtype == torch.float64
