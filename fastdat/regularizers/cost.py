"""What a step costs with its regularizers, in forward passes of D."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastdat.config import AttackConfig
from fastdat.regularizers.sign_attacks import RobGAN
from fastdat.regularizers.term import SIDES, Side, Term


def cost(config: AttackConfig, terms: Sequence[Term] = ()) -> float:
    """Multiplications of one step with its parameter gradient, in forward passes of D on reals and fakes (F).

    The plain step costs 3, that of ``DATConfig()`` 5. The model is ``A + g + 2 s + 2 b + 3 p + extra``, where

    - ``A`` is a clean forward pass;
    - ``g`` is the input gradient at the clean samples;
    - ``s`` is 1 where something differentiates that gradient: a second-order attack, or a term with ``needs.gradient``;
    - ``b`` is 1 where the loss contains the clean logits: no attack, ``clean_weight``, or a term with ``needs.logits``;
    - ``p`` is 1 where the loss contains a pass at perturbed samples;
    - ``extra`` are a term's own calls of D (``needs.own``), further attack steps, and the attack's own pass beside the
      clean one where spectral norm iterates ``"per_forward"``.

    Each side counts for itself, with half of each. The model holds for a D that treats samples independently, whose
    first layer costs little (few channels, as images have), and whose activations are piecewise linear: the zeros that
    these make are skipped. Folding and ``aux_loss`` are not counted.

    Memory: where ``s`` or ``b`` is 1 in a step that attacks, the clean pass stays alive to the end of the step beside
    the perturbed one, which doubles the activations. R1, R2, ZeroGP at clean samples, DigGAN, MaxGP, AR, RFM, ALP, CR,
    BCR, LeCam, ApproxR1 and ApproxR2 do that. AR, RFM, ALP and BCR keep a pass of their own beside it; GP, LP, DRAGAN,
    CR, ApproxR1 and ApproxR2 keep one of half a batch. SAN keeps nothing.

    The loss is one of single samples. With one of pairs (``"rpgan"``), RobGAN needs the fakes' logits in each of its
    steps: half an F more for each.

    Args:
        config: of the attack: ``DATConfig``, ``ASGAN`` or ``RobGAN``.
        terms: the regularizers. One with ``every`` > 1 counts as the average over its steps.

    Returns:
        The cost of the average step in F.
    """
    period = math.lcm(*(term.every for term in terms))
    known: dict[tuple[int, ...], float] = {}
    total = 0.0
    for step in range(period):
        turn = tuple(i for i, term in enumerate(terms) if step % term.every == 0)
        if turn not in known:
            known[turn] = _of_turn(config, [terms[i] for i in turn])
        total += known[turn]
    return total / period


def _of_turn(config: AttackConfig, terms: Sequence[Term]) -> float:
    """The cost in F of a step in which all ``terms`` take part."""
    return sum(_of_side(config, terms, side) for side in SIDES) + sum(term.needs.own for term in terms)


def _of_side(config: AttackConfig, terms: Sequence[Term], side: Side) -> float:
    """The cost of one side, of which a forward pass costs a half."""
    needs = [term.needs for term in terms]
    attacked = config.real if side == "real" else config.fake
    differentiated = any(side in need.gradient for need in needs)
    gradient = differentiated or any(need.loss_gradient for need in needs)
    logits = config.clean_weight > 0 or any(need.logits or need.features for need in needs)

    if not config.attacks:
        passes, logits = 3.0, False  # the clean pass is the loss's own
    elif isinstance(config, RobGAN):
        passes = 3.0 + (2 * config.steps if attacked else 0)
        if logits or gradient:
            passes += 1  # the attack sees another function than the terms
    else:
        passes = 3.0 + 1  # the perturbed pass and the clean one, from which the other side's target comes
        if attacked:
            passes += config.steps * (4 if config.second_order else 2)
            if config.power_iterations == "once":  # the first attack step shares what is at the clean samples
                passes -= 1
                gradient = False
                differentiated = differentiated and not config.second_order
    return (passes + gradient + 2 * differentiated + 2 * logits) / 2
