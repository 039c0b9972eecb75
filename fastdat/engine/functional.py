"""The steps of D and of G as pure functions of parameters, for ``torch.vmap`` over many discriminators at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fastdat.config import DEFAULT_CONFIG, AttackConfig, DATConfig, Wiring
from fastdat.engine.checks import check_seed
from fastdat.engine.generator_step import check_attack, check_wiring
from fastdat.engine.objective import attention_for, step
from fastdat.engine.spectral.normalise import spectral_weights
from fastdat.engine.terms import checked, names_of, static, tensors_of, weights_of
from fastdat.engine.types import Batch, StepInputs, StepNeeds, StepSpec, Tensors
from fastdat.losses import AnyLoss, get_loss
from fastdat.regularizers.term import Term


def dat_grads(
    D: nn.Module,
    params: Tensors,
    xr: Tensor,
    xf: Tensor,
    *,
    config: AttackConfig | None = None,
    loss: str | AnyLoss = "hinge",
    regularizers: Sequence[Term] = (),
    draws: Sequence[Tensors] = (),
) -> tuple[Tensors, Tensor]:
    """Gradients of the DAT step for the parameters, and the loss: pure, for ``torch.vmap`` and ``torch.compile``.

    For loops of one's own in the functional style, such as many discriminators trained at once with stacked
    parameters. It checks little and moves nothing; ``fastdat.dat_step`` is the drop-in.

    Args:
        D: a module that treats its samples independently and keeps no state (no batch norm, no spectral norm).
        params: ``dict(D.named_parameters())`` or tensors in their place.
        xr, xf: (m, ...) a side.
        config: the step; ``DATConfig()`` where None.
        loss: name, ``Loss`` or ``PairLoss``.
        regularizers: terms of ``fastdat.regularizers`` that keep no state, all of them in this step.
        draws: the random numbers of each term, ``term.draws(Pair(xr, xf), generator)``: within vmap they are drawn
            outside, or with ``randomness="different"``.

    Returns:
        gradient of each of ``params``, loss (scalar).

    Raises:
        ValueError: D has spectral norm, whose state this function could not keep.
        RuntimeError: within a transform that would differentiate the gradients again.
    """
    _check("dat", D, (*params.values(), xr, xf))
    config = config or DEFAULT_CONFIG
    loss = get_loss(loss)
    check_seed(config, loss, config.attacks)
    terms = _checked(regularizers)
    weights = weights_of(terms)
    of_terms = tensors_of(terms, weights, Batch(xr, xf), None, draws or None)
    without_tensors, weighed = static(terms, weights)
    spec = StepSpec(
        config,
        loss,
        without_tensors,
        names_of(terms),
        weighed,
        StepNeeds.of(terms),
        independent=True,
        joint=True,
        batch=xr.shape[0],
    )
    constants = {name: param.detach() for name, param in params.items()}
    with attention_for(spec):
        result = step(D, spec, StepInputs(constants, {}, {}, Batch(xr, xf).detached(), terms=of_terms))
    return result.grads, result.loss


def generator_grads(
    D: nn.Module,
    params: Tensors,
    xf: Tensor,
    xr: Tensor,
    *,
    config: DATConfig | None = None,
    loss: str | AnyLoss = "hinge",
    wiring: Wiring = "pass",
) -> tuple[Tensor, Tensor]:
    """Gradient of ``fastdat.generator_step`` for G's samples, and the loss: pure, as ``dat_grads``.

    G's own gradient is then a vector-Jacobian product::

        xf, pull = torch.func.vjp(lambda g: functional_call(G, g, (z,)), g_params)
        gradient, loss = generator_grads(D, d_params, xf, xr)
        (g_grads,) = pull(gradient)

    Args:
        D, params, loss: as in ``dat_grads``.
        xf: G's samples (m, ...). They come before the reals, as in ``fastdat.generator_step``.
        xr: real samples (m, ...).
        config, wiring: as in ``fastdat.generator_step``.

    Returns:
        gradient (m, ...) for ``xf``, loss (scalar).

    Raises:
        TypeError: an attack other than DAT's own.
        ValueError: an unknown wiring, or D has spectral norm, whose state this function could not keep.
        RuntimeError: within a transform that would differentiate the gradients again.
    """
    _check("generator", D, (*params.values(), xr, xf))
    check_wiring(wiring)
    config, loss = config or DEFAULT_CONFIG, get_loss(loss)
    check_attack(config)
    check_seed(config, loss, attacks=True)
    spec = StepSpec(config, loss, independent=True, batch=xr.shape[0], inputs_wanted=("xf",), wiring=wiring)
    constants = {name: param.detach() for name, param in params.items()}
    with attention_for(spec):
        result = step(D, spec, StepInputs({}, constants, {}, Batch(xr, xf).detached()))
    return result.grads["xf"], result.loss


def _check(of: str, D: nn.Module, tensors: Iterable[Tensor]) -> None:
    """Raises ValueError for a D with a state, RuntimeError where one of ``tensors`` is differentiated."""
    if spectral_weights(dict(D.named_modules())):
        raise ValueError(f"{of}_grads keeps no state, but D has spectral norm: use fastdat.{of}_step")
    # torch.compile cannot trace the question: within it nothing is refused.
    if not torch.compiler.is_compiling() and any(map(_is_differentiated, tensors)):
        raise RuntimeError(
            f"the gradients of {of}_grads cannot be differentiated again, as torch.func.grad, vjp or jacrev around it "
            f"would do: use fastdat.reference.{of}_step with torch.autograd.grad(..., create_graph=True)"
        )


def _checked(regularizers: Sequence[Term]) -> tuple[Term, ...]:
    terms = checked(regularizers)
    for term in terms:
        if term.state() or term.needs.features:
            raise ValueError(
                f"dat_grads keeps no state and sees no features, which the regularizer {term.name} needs: use "
                "fastdat.dat_step"
            )
    return terms


def _is_differentiated(tensor: Tensor) -> bool:
    """Whether a transform of ``torch.func`` around this function differentiates with respect to ``tensor``."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False
