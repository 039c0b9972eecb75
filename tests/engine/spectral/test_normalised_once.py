"""``normalised_once``: one set of normalised weights for all calls, whatever of D is frozen, and none for copies."""

from __future__ import annotations

import copy

import pytest
import torch

import fastdat
from tests.discriminators import batch, make


def fused(kind: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return fastdat.fuse_spectral_norm(make(kind)), batch(kind, m=3)[0]


def buffers(D: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in D.named_buffers()}


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
def test_gradients_that_are_wanted_later_are_those_of_the_same_weights(kind: str) -> None:
    D, x = fused(kind)
    with fastdat.normalised_once(D):
        with torch.no_grad():
            first = D(x)
        moved = buffers(D)
        second = D(x)
        second.sum().backward()
    torch.testing.assert_close(second, first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(buffers(D), moved, rtol=0, atol=0)
    assert all(p.grad is not None for p in D.parameters())


def test_a_first_layer_that_is_frozen() -> None:
    """As in FreezeD."""
    D, x = fused("spectral")
    D.conv1.eval().requires_grad_(False)
    with fastdat.normalised_once(D):
        D(x)
        moved = buffers(D)
        second, third = D(x), D(x)
        (second.sum() + third.sum()).backward()
    torch.testing.assert_close(buffers(D), moved, rtol=0, atol=0)
    assert torch.equal(second, third)


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
def test_a_copy_normalises_for_itself(kind: str) -> None:
    D, x = fused(kind)
    with torch.no_grad(), fastdat.normalised_once(D):
        D(x)
        twin = copy.deepcopy(D)
    before = twin(x)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(0.1 * torch.randn_like(p))
    plain = make(kind)
    plain.load_state_dict(twin.state_dict())
    after = twin(x)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, plain(x))
    for _ in range(2):
        twin(x).sum().backward()
