"""What holds for any step: random shapes, dtypes and settings."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fastdat
from fastdat import DATConfig
from tests.compare import assert_step_matches

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
small = st.integers(1, 5)
shapes = st.one_of(
    st.tuples(small),
    st.tuples(small, small),
    st.tuples(small, small, small),
    st.tuples(small, small, small, small),
)
configs = st.builds(
    DATConfig,
    seed=st.sampled_from(["logits", "eq10", "alg1"]),
    reduction=st.sampled_from(["batch", "sample"]),
    eps=st.floats(0, 50),
    eps_batch=st.none() | st.integers(1, 64),
    delta_clip=st.none() | st.floats(0.01, 2),
    bounds=st.sampled_from([None, (-1.0, 1.0), (0.0, 1.0)]),
    clip_real=st.booleans(),
    steps=st.integers(1, 3),
    second_order=st.booleans(),
    real=st.booleans(),
    fake=st.booleans(),
    clean_weight=st.sampled_from([0.0, 0.5, 1.0]),
    power_iterations=st.sampled_from(["once", "per_forward"]),
)


def discriminator(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    n = int(torch.tensor(shape).prod())
    layers = [nn.Flatten(), spectral_norm(nn.Linear(n, 6)), nn.Softplus(), spectral_norm(nn.Linear(6, 1))]
    return nn.Sequential(*layers).to(dtype)


def samples(shape: tuple[int, ...], m: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    xr, xf = (torch.rand(2, m, *shape) * 2 - 1).to(dtype).unbind()
    return xr, xf


@quick
@given(
    shape=shapes,
    m=st.integers(2, 9),
    config=configs,
    loss=st.sampled_from(["gan", "lsgan"]),
    seed=st.integers(0, 99),
)
def test_equals_the_reference(
    shape: tuple[int, ...], m: int, config: DATConfig, loss: str, seed: int
) -> None:
    torch.manual_seed(seed)
    D, (xr, xf) = discriminator(shape, torch.float64), samples(shape, m, torch.float64)
    assert_step_matches(D, xr, xf, config, loss, tolerance=1e-9)
    if m > 2:
        assert_step_matches(D, xr, xf, config, loss, tolerance=1e-9, microbatch=2)


@quick
@given(
    shape=shapes,
    m=st.integers(2, 9),
    config=configs,
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_delta_stays_within_its_limits(
    shape: tuple[int, ...], m: int, config: DATConfig, dtype: torch.dtype
) -> None:
    D, (xr, xf) = discriminator(shape, dtype), samples(shape, m, dtype)
    loss, info = fastdat.dat_step(D, xr, xf, config, "gan", compile=False, with_info=True)
    loss.backward()
    assert all(
        p.grad is not None and p.grad.dtype == dtype and p.grad.isfinite().all() for p in D.parameters()
    )
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for side, x, x_hat in (("real", xr, info.xr_adv), ("fake", xf, info.xf_adv)):
        assert (x_hat.shape, x_hat.dtype) == (x.shape, x.dtype)
        attacked, bounds = getattr(config, side), config.bounds_of(side)
        if not attacked:
            assert torch.equal(x_hat, x)
        elif bounds is not None:
            assert x_hat.min() >= bounds[0]
            assert x_hat.max() <= bounds[1]
        elif config.delta_clip is not None:
            rounding = 2 * torch.finfo(dtype).eps * (1 + config.delta_clip) * config.steps
            assert (x_hat - x).abs().max() <= config.delta_clip * config.steps + rounding


@quick
@given(m=st.integers(2, 6), times=st.integers(2, 3), config=configs, seed=st.integers(0, 99))
def test_a_batch_repeated_gives_the_same_step(m: int, times: int, config: DATConfig, seed: int) -> None:
    """With a fixed eps_batch neither delta nor the gradient knows the batch size."""
    torch.manual_seed(seed)
    config = replace(config, eps_batch=16)
    D, (xr, xf) = discriminator((3,), torch.float64), samples((3,), m, torch.float64)
    D.eval()
    grads = []
    for x in ((xr, xf), (xr.repeat(times, 1), xf.repeat(times, 1))):
        loss = fastdat.dat_step(D, *x, config, "gan", compile=False)
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(D.parameters()))]))
    torch.testing.assert_close(grads[1], grads[0])
