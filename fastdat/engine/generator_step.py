"""``generator_step``: G's loss on attacked fakes, position (iii) of the paper's Table IV and Fig. 10."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from fastdat.config import DEFAULT_CONFIG, DATConfig, Wiring
from fastdat.engine import checks
from fastdat.engine.prepared import Call
from fastdat.engine.step import stepped
from fastdat.engine.types import Args, AuxLoss, Batch
from fastdat.losses import AnyLoss
from fastdat.regularizers.sign_attacks import SignAttack


def generator_step(
    D: nn.Module,
    xf: Tensor,
    xr: Tensor,
    config: DATConfig | None = None,
    loss: str | AnyLoss = "hinge",
    *,
    wiring: Wiring = "pass",
    args_real: Args = (),
    args_fake: Args = (),
    aux_loss: AuxLoss | None = None,
    compile: bool | str = True,
    fold: bool = True,
) -> Tensor:
    """G's loss on adversarially perturbed fakes, in place of G's usual loss::

        loss = fastdat.generator_step(D, G(z), xr)
        loss.backward()

    The fakes are moved as the D step moves them, ``x_hat = clip(xf + d)``, and G minimises its loss of ``D(x_hat)``
    (Sec. V-C; Eqs. 8-10 give d). ``wiring`` says how the gradient of ``D(x_hat)`` reaches ``xf``:

    - ``"pass"``: d is a constant, and ``dx_hat/dxf`` is 1, or 0 where ``bounds`` clip.
    - ``"second_order"``: the gradient also flows through d, which depends on ``xf`` (signs and targets are constants).
    - ``"cut"``: x_hat is a constant. ``xf`` gets zeros, and G does not learn. The authors' released D step makes x_hat
      in a way that cuts the graph. The same code in G's step would explain the FID of 309 in Table IV: about what an
      untrained G would score (our reading; not measured).

    D is frozen: its parameters get no gradient, and they, its mode and all ``.grad`` stay as they were. u, v and
    running statistics move as in a plain step of G: u once (or in each of the ``steps + 3`` calls of D, with
    ``power_iterations="per_forward"``), running statistics in the call on x_hat. They move in the clean pass, too, on
    reals and then on fakes, where the loss contains its logits: with a pair loss, or with ``clean_weight``.

    It works wherever a loss works, under ``no_grad`` and autocast in bf16, too. With D under DistributedDataParallel
    means and divisors are those of the batch of all ranks, and the loss is the mean over this one's: G's own DDP
    averages the gradients. The first call for a D, config and shape inspects D and compiles.

    Args:
        D: as in ``dat_step``.
        xf: G's samples (m, ...) with their graph, in the range of ``config.bounds``. Without a gradient the result is
            the loss alone.
        xr: real samples, shape, dtype and device of ``xf``: the last batch of D's step. They give the targets, and the
            logits that a pair loss compares with. They get no gradient.
        config: the attack's settings; ``DATConfig()`` where None. ``real`` and ``fake`` say which sides a D step
            attacks and have no effect here; ``second_order`` is decided by ``wiring``. With ``clean_weight`` w the loss
            is ``(L(x_hat) + w L(xf)) / (1 + w)``, in which ``L(xf)`` keeps its gradient for every wiring.
        loss: a name of ``fastdat.losses.LOSSES``, or an object as for ``dat_step``; G's side is that of
            ``fastdat.losses.generator_loss``.
        wiring: see above.
        args_real, args_fake: further arguments of D (labels, say) for each side.
        aux_loss: function (D, xr, xf) -> scalar, added to the loss in the same graph; it sees the clean batch and the
            weights of D's last call. Its gradient reaches ``xf`` for every wiring.
        compile, fold: as in ``dat_step``.

    Returns:
        loss, a scalar whose ``backward()`` reaches G through ``xf``; a second derivative is an error.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as ``dat_step``; and for an unknown wiring, an attack
            other than DAT's own, or a gradient that only ``xr`` wants.
    """
    check_wiring(wiring)
    _check_module(D, xf)
    if xf is xr:
        raise ValueError(
            "xf and xr are the same tensor: give fake samples and real samples, generator_step(D, G(z), xr)"
        )
    _check_order(xf, xr)
    check_attack(config)
    call = Call(
        DEFAULT_CONFIG if config is None else config,
        loss,
        terms=(),
        term_names=(),
        weighed=(),
        aux_loss=aux_loss,
        compile=compile,
        fold=fold,
        microbatch=None,
        with_info=False,
        wiring=wiring,
    )
    return stepped(D, call, Batch(xr, xf, args_real, args_fake))[0]


def check_wiring(wiring: object) -> None:
    """Raises ValueError where there is no such wiring."""
    if wiring not in get_args(Wiring):
        raise ValueError(f"wiring must be one of {', '.join(map(repr, get_args(Wiring)))}, got {wiring!r}")


def check_attack(config: object) -> None:
    """Raises TypeError for an attack other than DAT's, whose move of the fakes G's step does not know."""
    if isinstance(config, SignAttack):
        raise TypeError(
            f"generator_step takes a fastdat.DATConfig, got {type(config).__name__}, which attacks in D's step only: "
            "train G with fastdat.losses.generator_loss"
        )


def _check_order(xf: object, xr: object) -> None:
    """Raises ValueError where a graph hangs on the reals alone: ``dat_step`` takes the sides the other way round."""
    wants = [isinstance(x, Tensor) and x.requires_grad for x in (xf, xr)]
    if wants == [False, True] and torch.is_grad_enabled():
        raise ValueError(
            "xr requires a gradient and xf does not, so the loss would not reach G: are the two swapped? G's samples "
            "come first, generator_step(D, G(z), xr); if they are in order, pass xr.detach()"
        )


def _check_module(D: object, xf: object) -> None:
    """Raises TypeError where D is no module."""
    if not isinstance(D, nn.Module) and (isinstance(D, Tensor) or isinstance(xf, nn.Module)):
        raise TypeError(
            f"D must be a torch.nn.Module, got {type(D).__name__}: the arguments are in another order, call "
            "generator_step(D, xf, xr)"
        )
    checks.check_module(D, xf)
