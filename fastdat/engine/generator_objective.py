"""G's loss on attacked fakes as a pure function of tensors: position (iii) of Table IV and Fig. 10."""

from __future__ import annotations

from torch import Tensor, nn

from fastdat.engine.attack import run_attack
from fastdat.engine.discriminator import WholeBatchD, call, call_aux
from fastdat.engine.types import AuxLoss, Batch, StepSpec, Tensors
from fastdat.engine.weights import Weights
from fastdat.losses import generator_mean, is_pair


def generator_objective(
    D: nn.Module,
    spec: StepSpec,
    weights: Weights,
    moving: Tensors,
    batch: Batch,
    aux_loss: AuxLoss | None = None,
) -> tuple[Tensor, Tensors]:
    """What G minimises on the samples that the D step would make of G's, a scalar to differentiate for ``xf``.

    The attack is that of the D step on the fakes; ``generator_step`` has turned it off on the reals. So the reals are
    called once, for the targets and for a loss of pairs.

    Args:
        D: the discriminator, its spectral norm bypassed.
        spec: of the step; ``spec.wiring`` says which path to ``xf`` the gradient takes.
        weights: D's weights call by call.
        moving: the moving buffers by name, before the step.
        batch: the samples; ``xf`` comes from G.
        aux_loss: a further loss on the clean batch, added; it sees the weights of D's last call.

    Returns:
        loss, new values of u, v and of the moving buffers.
    """
    loss, w = spec.loss, spec.config.clean_weight
    attack = run_attack(spec, WholeBatchD(D, spec, moving), weights, batch)
    of_clean_reals = attack.clean[0] if is_pair(loss) else None
    if is_pair(loss) or w > 0:  # the loss contains the clean pass, which then moves running statistics
        moving = attack.buffers

    x_hat = attack.batch.xf.detach() if spec.wiring == "cut" else attack.batch.xf
    attacked = call(D, weights.next(True), moving, x_hat, batch.args_fake)
    moving = attacked.buffers
    total = generator_mean(loss, attacked.logits, of_clean_reals)
    of_clean_fakes = attack.clean[1]
    if w > 0 and of_clean_fakes is not None:  # as in the D step (DATT)
        total = (total + w * generator_mean(loss, of_clean_fakes, of_clean_reals)) / (1 + w)

    if aux_loss is not None:
        of_aux, moving = call_aux(D, aux_loss, weights.last(), moving, batch)
        total = total + of_aux
    return total, {**weights.buffers(), **moving}
