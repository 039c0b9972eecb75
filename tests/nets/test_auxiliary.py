"""SSGAN and InfoMaxGAN: pinned sizes, the definitions of their auxiliary losses, and the step with them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import fastdat
import fastdat.reference
from fastdat.nets import (
    HasAuxiliaryLoss,
    InfoMaxGANDiscriminator,
    InfoMaxGANGenerator,
    SNGANDiscriminator,
    SSGANDiscriminator,
    SSGANGenerator,
)
from fastdat.nets.infomaxgan import info_nce
from fastdat.nets.shared_batch import Shared
from fastdat.nets.ssgan import rotate_quarters

KINDS = [SSGANDiscriminator, InfoMaxGANDiscriminator]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("kind", "resolution", "size"),
    [
        (SSGANDiscriminator, 32, 1_054_341),
        (SSGANDiscriminator, 48, 10_145_541),
        (SSGANDiscriminator, 64, 10_145_541),
        (InfoMaxGANDiscriminator, 32, 1_615_233),
        (InfoMaxGANDiscriminator, 48, 14_603_521),
        (InfoMaxGANDiscriminator, 64, 14_603_521),
    ],
)
def test_parameter_counts_equal_the_baselines(
    kind: type[SNGANDiscriminator], resolution: int, size: int
) -> None:
    assert count(kind(resolution)) == size


def test_generators_are_those_of_sngan() -> None:
    for kind in (SSGANGenerator, InfoMaxGANGenerator):
        with torch.device("meta"):
            assert count(kind(32)) == 4_276_739


def test_weights_of_the_auxiliary_losses() -> None:
    ssgan, infomax = SSGANDiscriminator(32, ndf=4), InfoMaxGANDiscriminator(32, ndf=4)
    assert (ssgan.auxiliary_weight_d, ssgan.auxiliary_weight_g) == (1.0, 0.2)
    assert (infomax.auxiliary_weight_d, infomax.auxiliary_weight_g) == (0.2, 0.2)
    assert isinstance(ssgan, HasAuxiliaryLoss)
    assert not isinstance(SNGANDiscriminator(32, ndf=4), HasAuxiliaryLoss)


@pytest.mark.parametrize("n", [1, 3, 4, 6, 8])
def test_quarters_are_rotated(n: int) -> None:
    x = torch.randn(n, 3, 5, 5)
    rotated, labels = rotate_quarters(x)
    assert labels.tolist() == [i * 4 // n for i in range(n)]
    for i in range(n):
        assert torch.equal(rotated[i], torch.rot90(x[i], i * 4 // n, (1, 2)))


def test_rotation_loss_is_cross_entropy() -> None:
    D = SSGANDiscriminator(32, ndf=4).eval()
    x = torch.rand(8, 3, 32, 32) * 2 - 1
    turned = torch.stack([torch.rot90(image, i // 2, (1, 2)) for i, image in enumerate(x)])
    expected = F.cross_entropy(D.rotation_logits(turned), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    torch.testing.assert_close(D.auxiliary_loss(x), expected)


def test_info_nce_equals_its_definition() -> None:
    local, whole = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    losses = []
    for i in range(3):
        others = [torch.dot(local[j, :, q], whole[i]).exp() for j in range(3) if j != i for q in range(2)]
        for p in range(2):
            own = torch.dot(local[i, :, p], whole[i]).exp()
            losses.append(-torch.log(own / (own + sum(others))))
    torch.testing.assert_close(info_nce(local, whole), torch.stack(losses).mean())


def test_info_nce_of_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on three ranks with two images each: the mean of their losses is that of the whole batch."""
    local, whole = torch.randn(6, 5, 2, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    expected = info_nce(local, whole)
    monkeypatch.setattr("fastdat.nets.infomaxgan.all_rows", lambda x, shared: local)
    parts = [slice(2 * rank, 2 * rank + 2) for rank in range(3)]
    losses = [info_nce(local[rows], whole[rows], Shared("", rank, 3)) for rank, rows in enumerate(parts)]
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


def test_all_is_made_on_the_device_of_the_images() -> None:
    """As on a GPU: an operation on tensors of two devices is an error."""
    assert info_nce(torch.empty(3, 5, 2, device="meta"), torch.empty(3, 5, device="meta")).is_meta
    assert all(made.is_meta for made in rotate_quarters(torch.empty(6, 3, 4, 4, device="meta")))


def test_info_nce_of_uninformative_features() -> None:
    # All scores are equal: the softmax is over one positive and 3 * 16 negatives.
    loss = info_nce(torch.zeros(4, 7, 16), torch.zeros(4, 7))
    assert loss.item() == pytest.approx(math.log(1 + 3 * 16))


def test_info_nce_of_large_scores_is_finite() -> None:
    local = torch.full((2, 4, 3), 100.0, requires_grad=True)
    info_nce(local, torch.full((2, 4), 100.0)).backward()
    assert local.grad is not None
    assert local.grad.isfinite().all()


def test_info_nce_does_not_use_diagonal() -> None:
    """Inductor of torch 2.11 warns about ``Tensor.diagonal``."""
    graph = make_fx(lambda *features: info_nce(*features))(torch.randn(3, 5, 2), torch.randn(3, 5)).graph
    operators = {node.target for node in graph.nodes if node.op == "call_function"}
    assert torch.ops.aten.logsumexp.default in operators
    assert not operators & {torch.ops.aten.diagonal.default, torch.ops.aten.diagonal_copy.default}


def test_local_features_are_rectified() -> None:
    D = InfoMaxGANDiscriminator(32, ndf=4).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    local, whole = D.local_and_global(x)
    assert local.shape == (2, 4, 8, 8)
    assert local.min() >= 0
    torch.testing.assert_close(whole, D.features(x))


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_step_with_the_auxiliary_loss_equals_the_reference(
    kind: type[SNGANDiscriminator], second_order: bool
) -> None:
    """Also for heads that only the auxiliary loss calls: their u advances like that of every layer."""

    def of_reals(D: Any, xr: Tensor, xf: Tensor) -> Tensor:
        loss: Tensor = D.auxiliary_weight_d * D.auxiliary_loss(xr)
        return loss

    D = kind(32, ndf=4).double()
    other = copy.deepcopy(D)
    xr, xf = (torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1 for _ in range(2))
    config = fastdat.DATConfig(second_order=second_order)
    for _ in range(2):
        loss = fastdat.dat_step(D, xr, xf, config=config, aux_loss=of_reals, compile=False)
        expected = fastdat.reference.dat_step(other, xr, xf, config=config, aux_loss=of_reals)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        for net, value in ((D, loss), (other, expected)):
            net.zero_grad()
            value.backward()
    for (name, a), b in zip(D.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            a.grad, b.grad, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )
    for a, b in zip(D.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)
