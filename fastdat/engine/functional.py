"""The DAT step as a pure function of parameters, for ``torch.vmap`` over many discriminators at once."""

from __future__ import annotations

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
    """
    if spectral_weights(dict(D.named_modules())):
        raise ValueError("dat_grads keeps no state, but D has spectral norm: use fastdat.dat_step")
    config = config or DEFAULT_CONFIG
    loss = get_loss(loss)
    spec = StepSpec(config, loss, independent=True, joint=True, batch=xr.shape[0])
    constants = {name: param.detach() for name, param in params.items()}
    with attention_for(config):
        result = step(D, spec, StepInputs(constants, {}, {}, Batch(xr, xf).detached()))
    return result.grads, result.loss
