"""The DAT step as the plainest eager PyTorch: read this first, next to Algorithm 1 of the paper.

Every field of ``DATConfig`` is here and no trick. ``fastdat.dat_step`` computes the same numbers, and the tests and
benchmarks compare it with this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as _SpectralNormHook

from fastdat.config import DATConfig
from fastdat.info import DATInfo
from fastdat.losses import Loss, get_loss


def dat_step(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    config: DATConfig | None = None,
    loss: str | Loss = "hinge",
    *,
    args_real: tuple[Any, ...] = (),
    args_fake: tuple[Any, ...] = (),
    aux_loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    with_info: bool = False,
) -> Tensor | tuple[Tensor, DATInfo]:
    """D's loss on perturbed samples (Eq. 8), one process, whole batch; arguments as in ``fastdat.dat_step``.

    Returns:
        loss, a scalar with an ordinary autograd graph; (loss, DATInfo) with ``with_info``.
    """
    config = config or DATConfig()
    loss = get_loss(loss)
    m = xr.shape[0]
    once = config.power_iterations == "once"
    a_real, a_fake = _attacked(config, loss)

    def logits_of(x: Tensor, args: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        with every_layer_advances(D):
            out = D(x, *args)
        logits, extras = (out[0], tuple(out[1:])) if isinstance(out, (tuple, list)) else (out, ())
        return logits.flatten(), extras

    # 1. Clean logits. 2. Targets, constants: the other side's mean. The pass moves running statistics only if the
    # loss contains it. Spectral norm advances in D's first call, and stays where it is after that if "once".
    clean_r = clean_f = None
    advanced = False
    if config.attacks:
        with running_statistics(D, move=config.clean_weight > 0):
            clean_r, _ = logits_of(xr, args_real)
            with power_iteration(D, on=not once):
                clean_f, _ = logits_of(xf, args_fake)
        target_r = a_real(clean_f).mean().detach()
        target_f = a_fake(clean_r).mean().detach()
        advanced = True

    def attack(x: Tensor, args: tuple[Any, ...], a: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
        # 3. The objective A and its gradient for the input.
        x = x if x.requires_grad else x.detach().requires_grad_()
        with running_statistics(D, move=False), power_iteration(D, on=not once):
            value = a(logits_of(x, args)[0])
        batch = config.reduction == "batch"
        A = m * (value.mean() - target).abs() if batch else (value - target).abs().sum()
        (gradient,) = torch.autograd.grad(A, x, create_graph=config.second_order)
        return gradient

    def perturb(x: Tensor, gradient: Tensor, bounds: tuple[float, float] | None) -> Tensor:
        # 4. The gradient itself, never its sign. 5. Clip.
        delta = -(config.eps / (config.eps_batch or m)) * gradient
        if config.delta_clip is not None:
            delta = delta.clamp(-config.delta_clip, config.delta_clip)
        return x + delta if bounds is None else (x + delta).clamp(*bounds)

    def clipped(x: Tensor, gradient: Tensor | None, bounds: tuple[float, float] | None) -> Tensor:
        # Share of the elements that a limit changes, for DATInfo.
        if gradient is None:
            return x.new_full((), torch.nan)
        x, delta = x.detach(), -(config.eps / (config.eps_batch or m)) * gradient.detach()
        limit = float("inf") if config.delta_clip is None else config.delta_clip
        moved = x + delta.clamp(-limit, limit)
        low, high = bounds or (-float("inf"), float("inf"))
        cut: Tensor = (delta.abs() > limit) | (moved < low) | (moved > high)
        return cut.to(x.dtype).mean()

    xr_hat, xf_hat = xr, xf
    gradient_r = gradient_f = None
    first: list[Tensor | None] = [None, None]
    for step in range(config.steps if config.attacks else 0):
        if config.fake:
            at = xf_hat if config.second_order else xf_hat.detach()
            gradient_f = attack(at, args_fake, a_fake, target_f)
        if config.real:
            at = xr_hat if config.second_order else xr_hat.detach()
            gradient_r = attack(at, args_real, a_real, target_r)
        if gradient_f is not None:
            xf_hat = perturb(xf_hat, gradient_f, config.bounds_of("fake"))
        if gradient_r is not None:
            xr_hat = perturb(xr_hat, gradient_r, config.bounds_of("real"))
        if step == 0:
            first = [gradient_r, gradient_f]

    # D's loss on x_hat; the released code calls D on the fakes first.
    def update_call(x: Tensor, args: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        nonlocal advanced
        with power_iteration(D, on=not once or not advanced):
            advanced = True
            return logits_of(x, args)

    if not once and config.attacks:
        fake, aux_f = update_call(xf_hat, args_fake)
        real, aux_r = update_call(xr_hat, args_real)
    else:
        real, aux_r = update_call(xr_hat, args_real)
        fake, aux_f = update_call(xf_hat, args_fake)
    total = -(loss.g1(real).mean() + loss.g2(fake).mean())
    if clean_r is None or clean_f is None:
        clean_r, clean_f = real, fake
    if config.clean_weight > 0:  # DATT
        w = config.clean_weight
        total = (total - w * (loss.g1(clean_r).mean() + loss.g2(clean_f).mean())) / (1 + w)
    if aux_loss is not None:
        with power_iteration(D, on=False):
            total = total + aux_loss(D, xr, xf)
    if not with_info:
        return total
    return total, DATInfo(
        logits_real=real.detach(),
        logits_fake=fake.detach(),
        clean_logits_real=clean_r.detach(),
        clean_logits_fake=clean_f.detach(),
        xr_adv=xr_hat.detach(),
        xf_adv=xf_hat.detach(),
        delta_rms_real=(xr_hat - xr).detach().square().mean().sqrt(),
        delta_rms_fake=(xf_hat - xf).detach().square().mean().sqrt(),
        grad_norm_real=_mean_norm(first[0], real),
        grad_norm_fake=_mean_norm(first[1], fake),
        clipped_real=clipped(xr, first[0], config.bounds_of("real")),
        clipped_fake=clipped(xf, first[1], config.bounds_of("fake")),
        penalty_fraction=torch.cat(
            [
                _lowered(D, x, args, g, -config.eps * gradient)
                for x, args, g, gradient in (
                    (xr, args_real, loss.g1, first[0]),
                    (xf, args_fake, loss.g2, first[1]),
                )
                if gradient is not None
            ]
            or [real.new_full((1,), torch.nan)]
        ).mean(),
        aux=(tuple(e.detach() for e in aux_r), tuple(e.detach() for e in aux_f)),
    )


def _attacked(config: DATConfig, loss: Loss) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if config.seed == "logits":
        return lambda t: t, lambda t: t
    return (loss.g1, loss.g2) if config.seed == "eq10" else (loss.g2, loss.g1)


def _mean_norm(gradient: Tensor | None, like: Tensor) -> Tensor:
    if gradient is None:
        return like.new_full((), torch.nan)
    norms: Tensor = gradient.detach().flatten(1).norm(dim=1)
    return norms.mean()


def _lowered(
    D: nn.Module, x: Tensor, args: tuple[Any, ...], g: Callable[[Tensor], Tensor], delta: Tensor
) -> Tensor:
    """1 for each sample whose ``delta`` lowers ``g(D(x))`` to first order, else 0; (n,)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad(), running_statistics(D, move=False), power_iteration(D, on=False):
        out = D(x, *args)
        logits = out[0] if isinstance(out, (tuple, list)) else out
        (own,) = torch.autograd.grad(g(logits.flatten()).sum(), x)
    change: Tensor = (own * delta).flatten(1).sum(1)
    return change.lt(0).to(change.dtype)


@contextmanager
def power_iteration(D: nn.Module, on: bool) -> Iterator[None]:
    """Whether torch's spectral norms in D advance u when D is called."""
    if on:
        yield
        return
    norms = [m for m in D.modules() if isinstance(m, _SpectralNorm)]
    hooks = [
        h for m in D.modules() for h in m._forward_pre_hooks.values() if isinstance(h, _SpectralNormHook)
    ]
    modes, iterations = [n.training for n in norms], [h.n_power_iterations for h in hooks]
    try:
        for norm in norms:
            norm.training = False
        for hook in hooks:
            hook.n_power_iterations = 0
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training = mode
        for hook, n in zip(hooks, iterations, strict=True):
            hook.n_power_iterations = n


@contextmanager
def every_layer_advances(D: nn.Module) -> Iterator[None]:
    """A call of D within it advances u of the layers it leaves out, too: heads that only ``aux_loss`` calls."""
    norms = [
        (module, name, norm)
        for module in D.modules()
        if isinstance(kinds := getattr(module, "parametrizations", None), nn.ModuleDict)
        for name, kind in kinds.items()
        for norm in kind.children()
        if isinstance(norm, _SpectralNorm) and norm.training and hasattr(norm, "_u")
    ]
    before = [norm._u.clone() for _, _, norm in norms]
    yield
    for (module, name, norm), u in zip(norms, before, strict=True):
        if torch.equal(norm._u, u):
            with torch.no_grad():
                getattr(module, name)  # computing the weight is what advances u


@contextmanager
def running_statistics(D: nn.Module, move: bool) -> Iterator[None]:
    """Whether D's batch norms update their running statistics; the batch's own are used either way."""
    layers = [
        m for m in D.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
    ]
    if move or not layers:
        yield
        return
    before = [
        (m.momentum, m.num_batches_tracked.clone()) for m in layers if m.num_batches_tracked is not None
    ]
    try:
        for layer in layers:
            layer.momentum = 0.0  # new = (1 - 0) * old + 0 * batch
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
