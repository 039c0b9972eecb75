"""The DAT step as a pure function of parameters, for ``torch.vmap`` over many discriminators at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdat.config import DEFAULT_CONFIG, DATConfig
from fastdat.engine.objective import attention_for, step
from fastdat.engine.spectral.normalise import spectral_weights
from fastdat.engine.types import Batch, StepInputs, StepSpec, Tensors
from fastdat.losses import Loss, get_loss


def dat_grads(
    D: nn.Module,
    params: Tensors,
    xr: Tensor,
    xf: Tensor,
    *,
    config: DATConfig | None = None,
    loss: str | Loss = "hinge",
) -> tuple[Tensors, Tensor]:
    """Gradients of the DAT step for the parameters, and the loss: pure, for ``torch.vmap`` and ``torch.compile``.

    For loops of one's own in the functional style, such as many discriminators trained at once with stacked
    parameters. It checks little and moves nothing; ``fastdat.dat_step`` is the drop-in.

    Args:
        D: a module that treats its samples independently and keeps no state (no batch norm, no spectral norm).
        params: ``dict(D.named_parameters())`` or tensors in their place.
        xr, xf: (m, ...) a side.
        config: the step; ``DATConfig()`` where None.
        loss: name or ``Loss``.

    Returns:
        gradient of each of ``params``, loss (scalar).

    Raises:
        ValueError: D has spectral norm, whose state this function could not keep.
        RuntimeError: within a transform that would differentiate the gradients again.
    """
    if spectral_weights(dict(D.named_modules())):
        raise ValueError("dat_grads keeps no state, but D has spectral norm: use fastdat.dat_step")
    # torch.compile cannot trace the question: within it nothing is refused.
    if not torch.compiler.is_compiling() and any(map(_is_differentiated, (*params.values(), xr, xf))):
        raise RuntimeError(
            "the gradients of dat_grads cannot be differentiated again, as torch.func.grad, vjp or jacrev around it "
            "would do: use fastdat.reference.dat_step with torch.autograd.grad(..., create_graph=True)"
        )
    config = config or DEFAULT_CONFIG
    loss = get_loss(loss)
    spec = StepSpec(config, loss, independent=True, joint=True, batch=xr.shape[0])
    constants = {name: param.detach() for name, param in params.items()}
    with attention_for(config):
        result = step(D, spec, StepInputs(constants, {}, {}, Batch(xr, xf).detached()))
    return result.grads, result.loss


def _is_differentiated(tensor: Tensor) -> bool:
    """Whether a transform of ``torch.func`` around this function differentiates with respect to ``tensor``."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False
