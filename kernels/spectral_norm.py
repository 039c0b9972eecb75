"""Spectral norm of all of D's weights as one operator: ``W / sigma`` with ``sigma = u' W v``.

With G the gradient of ``W / sigma``, ``ds`` that of sigma, and u and v constants, the derivative is::

    dW = G / sigma + (ds - <G, W> / sigma^2) u v'

an operator of its own. The derivative of that in turn is its plain formula.

On a GPU both are Triton kernels (``spectral_launch``, ``spectral_norm_backward``). On a CPU both are computed by
formula, and still are operators: traced into a graph, the formula takes a dozen operations a layer, which a compiler
works on for seconds and runs no faster, since the matrices are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fastdat.kernels import formulas
from fastdat.kernels.dispatch import AVAILABLE, use_triton
from fastdat.kernels.operator import must_launch, operator
from fastdat.kernels.stored import accumulator, as_stored, split_state, state_size

if AVAILABLE:
    from fastdat.kernels import spectral_launch
    from fastdat.kernels import spectral_norm_backward as backward_launch

# --- the derivative ------------------------------------------------------------------------------------------------


def _gradients(
    grads: Sequence[Tensor], weights: Sequence[Tensor], state: Tensor, sigma: Tensor, grad_sigma: Tensor
) -> list[Tensor]:
    """dW of every weight, in the layout of the weight."""
    if not must_launch(state):
        return [torch.empty_like(as_stored(w)) for w in weights]
    if use_triton(state):
        return backward_launch.launch(grads, weights, state, sigma, grad_sigma)
    us, vs = split_state(state, weights)
    outs = []
    for i, (G, W, u, v) in enumerate(zip(grads, weights, us, vs, strict=True)):
        G, W = G.to(sigma.dtype), as_stored(W)
        along = grad_sigma[i] - (G * W).sum() / sigma[i] ** 2
        columns = (along * u).view(-1, *[1] * (W.ndim - 1))
        dW = torch.addcmul(G / sigma[i], columns, v.view(1, *W.shape[1:]))
        outs.append(torch.empty_like(W).copy_(dW))
    return outs


def _keep_for_second_order(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grads, weights, state, sigma, _ = inputs
    ctx.save_for_backward(*grads, *weights, state, sigma)


def _backward_of_backward(ctx: Any, above: Sequence[Tensor]) -> tuple[Any, ...]:
    """Of ``dW = G / s + (ds - <G, W> / s^2) u v'``, for cotangents H of each dW; u, v constants."""
    *both, state, sigma = ctx.saved_tensors
    n = len(both) // 2
    dg, dw, ds, dds = [], [], [], []
    us, vs = split_state(state, both[n:])
    for i, (G, W, H, u, v) in enumerate(zip(both[:n], both[n:], above, us, vs, strict=True)):
        s = sigma[i]
        G, W_, H = (t.to(s.dtype).flatten(1) for t in (G, W, H))
        h = u @ (H @ v)
        dot = (G * W_).sum()
        dg.append((H / s - h / s**2 * W_).view(W.shape).to(both[i].dtype))
        dw.append((-h / s**2 * G).view(W.shape).to(W.dtype))
        ds.append(2 * h * dot / s**3 - (H * G).sum() / s**2)
        dds.append(h)
    return dg, dw, None, torch.stack(ds), torch.stack(dds)


def _one_by_one(op: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """Under ``torch.vmap``: a call for each element of the mapped dimension."""

    def element(arg: Any, dim: Any, i: int) -> Any:
        if isinstance(arg, (list, tuple)):
            dims = dim if isinstance(dim, (list, tuple)) else [dim] * len(arg)
            return [element(each, d, i) for each, d in zip(arg, dims, strict=True)]
        return arg if dim is None else arg.select(dim, i)

    found = [
        op(*(element(a, d, i) for a, d in zip(args, in_dims, strict=True))) for i in range(info.batch_size)
    ]
    results = tree_map(lambda *each: torch.stack(each), *found)
    return results, tree_map(lambda _: 0, results)


spectral_norm_backward = operator(
    "spectral_norm_backward",
    _gradients,
    setup_context=_keep_for_second_order,
    backward=_backward_of_backward,
    vmap=_one_by_one,
)
"""(grads, weights, state, sigma, grad_sigma) -> dW of every weight."""


# --- spectral norm -------------------------------------------------------------------------------------------------


def _normalised(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    iterations: int,
    eps: float,
    u_first: bool,
    out_dtype: torch.dtype,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """``W / sigma``, u and v of all weights one after another (``stored.split_state``), and sigma (L,)."""
    if not weights or not must_launch(weights[0]):
        formulas.check_spectral_norm(weights, us, vs)
        outs = [torch.empty_like(as_stored(w), dtype=out_dtype) for w in weights]
        state, sigma = (
            weights[0].new_empty(n, dtype=accumulator(weights[0]))
            for n in (state_size(weights), len(weights))
        )
        return outs, state, sigma
    settings = iterations, eps, u_first, out_dtype
    if use_triton(weights[0]):
        launched: tuple[list[Tensor], Tensor, Tensor] = spectral_launch.launch(weights, us, vs, *settings)
        return launched
    with torch.no_grad():
        outs, us, vs, sigma = formulas.spectral_norm([as_stored(w) for w in weights], us, vs, *settings)
    return outs, torch.cat([*us, *vs]), sigma


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    weights = inputs[0]
    _, state, sigma = output
    ctx.mark_non_differentiable(state)
    ctx.save_for_backward(*weights, state, sigma)


def _backward(ctx: Any, grads: Sequence[Tensor], _: Tensor | None, grad_sigma: Tensor) -> tuple[Any, ...]:
    *weights, state, sigma = ctx.saved_tensors
    found = spectral_norm_backward(list(grads), list(weights), state, sigma, grad_sigma)
    constants = [None] * len(weights)  # u and v
    return list(found), constants, constants, None, None, None, None


_of_lists = operator(
    "spectral_norm",
    _normalised,
    like=formulas.spectral_norm,
    returns=tuple[list[Tensor], Tensor, Tensor],
    setup_context=_keep,
    backward=_backward,
    vmap=_one_by_one,
)


@wraps(formulas.spectral_norm)
def spectral_norm(
    weights: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor], *rest: Any, **named: Any
) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    outs, state, sigma = _of_lists(list(weights), list(us), list(vs), *rest, **named)
    return (outs, *split_state(state, weights), sigma)
