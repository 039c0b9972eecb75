"""The DAT step as a pure function of tensors: what is compiled, differentiated and mapped over.

Read next to ``fastdat.reference``, which computes the same with the plainest PyTorch. Here D is a function of its
weights (``torch.func.functional_call``), input gradients are ``torch.func.vjp``, and nothing is mutated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fastdat import attack
from fastdat.attack import Pair
from fastdat.config import DATConfig
from fastdat.kernels.reference import perturb_clip
from fastdat.losses import Loss, discriminator_loss, get_loss
from fastdat.spectral import SpectralWeight, advance, normalise, spectral_weights

Tensors = dict[str, Tensor]
Args = tuple[Any, ...]
AuxLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StepSpec:
    """Everything that shapes the step's graph, apart from the tensors."""

    config: DATConfig
    loss: Loss
    independent: bool = False
    """D treats its samples independently: one coefficient a sample describes the attack."""
    joint: bool = False
    """Real and fake share a call of D: independent, no buffer moves, one sigma, arguments and outputs can be joined."""
    spectral: tuple[SpectralWeight, ...] = ()
    moving: tuple[str, ...] = ()
    """Buffers that a call of D updates (batch norm's running statistics)."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(further name, name) of parameters that D holds under several names."""
    batch: int = 0
    """Samples a side in the whole batch: of all ranks, of all micro-batches."""
    group: dist.ProcessGroup | None = None
    """Ranks that share the batch; None for one process."""
    with_info: bool = False


class Inputs(NamedTuple):
    """A batch (m, ...) a side, with D's further arguments."""

    xr: Tensor
    xf: Tensor
    args_real: Args = ()
    args_fake: Args = ()

    def detached(self) -> Inputs:
        return self._replace(xr=self.xr.detach(), xf=self.xf.detach())

    def joined(self) -> tuple[Tensor, Args]:
        """Real then fake as one batch (2m, ...)."""
        pairs = zip(self.args_real, self.args_fake, strict=True)
        args = tuple(torch.cat([r, f]) if isinstance(r, Tensor) else r for r, f in pairs)
        return torch.cat([self.xr, self.xf]), args


class Fixed(NamedTuple):
    """What a part of a larger batch takes as given, so as to compute its share of the whole batch's step."""

    signs: tuple[Pair, ...] = ()
    """Signs of each attack step, (n,) a side; the attack itself is computed here. Or"""
    adversarial: tuple[Tensor, Tensor] | None = None
    """x_hat itself, real and fake, where delta is a constant and the loss does not contain the clean samples."""


# --- D as a function of its tensors ------------------------------------------------------------------------------


class Call(NamedTuple):
    """One call of D: logits (n,) in fp32 or wider, its further outputs, and the buffers it moved."""

    logits: Tensor
    extras: Args
    buffers: Tensors


def split_outputs(out: Any) -> tuple[Tensor, Args]:
    """D's output as logits (n,) in fp32 or wider, and the further outputs."""
    logits, extras = (out[0], tuple(out[1:])) if isinstance(out, (tuple, list)) else (out, ())
    if logits.ndim == 2:
        logits = logits.squeeze(1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, extras


def call(D: nn.Module, weights: Tensors, buffers: Tensors, x: Tensor, args: Args) -> Call:
    """D(x, *args) with these tensors in place of its own, of which none is moved."""
    moved = {name: buffer.clone() for name, buffer in buffers.items()}
    out = torch.func.functional_call(D, {**weights, **moved}, (x, *args), tie_weights=False)
    return Call(*split_outputs(out), moved)


def call_both(
    D: nn.Module,
    spec: StepSpec,
    weights: tuple[Tensors, Tensors],
    buffers: Tensors,
    x: Inputs,
    fake_first: bool = False,
) -> tuple[Call, Call, Tensors]:
    """D on real and on fake, in one call where that is the same thing, and the buffers after both."""
    if spec.joint:
        logits, extras, _ = call(D, weights[0], {}, *x.joined())
        halves = [part.chunk(2) for part in (logits, *extras)]
        (lr, lf), *parts = halves
        return Call(lr, tuple(r for r, _ in parts), {}), Call(lf, tuple(f for _, f in parts), {}), {}
    if fake_first:
        fake = call(D, weights[1], buffers, x.xf, x.args_fake)
        real = call(D, weights[0], fake.buffers, x.xr, x.args_real)
        return real, fake, real.buffers
    real = call(D, weights[0], buffers, x.xr, x.args_real)
    fake = call(D, weights[1], real.buffers, x.xf, x.args_fake)
    return real, fake, fake.buffers


class Linearised(NamedTuple):
    """D on both sides, ready for vector-Jacobian products with respect to its inputs."""

    logits: Pair
    buffers: Tensors
    pull: Callable[[Pair], tuple[Tensor | None, Tensor | None]]
    """Seeds (n,) a side -> gradient (n, ...) of ``seeds @ logits``; None for a side that is not attacked."""


def linearise(
    D: nn.Module,
    spec: StepSpec,
    weights: tuple[Tensors, Tensors],
    buffers: Tensors,
    x: Inputs,
    known: Pair | None = None,
) -> Linearised:
    """D linearised at x on the attacked sides. The other side's logits are ``known``, or else computed."""

    def at(weights: Tensors, buffers: Tensors, x: Tensor, args: Args) -> tuple[Tensor, Tensors, Any]:
        def logits_of(x: Tensor) -> tuple[Tensor, Tensors]:
            logits, _, moved = call(D, weights, buffers, x, args)
            return logits, moved

        logits, pullback, moved = torch.func.vjp(logits_of, x, has_aux=True)  # type: ignore[misc]
        return logits, moved, pullback

    config = spec.config
    if spec.joint and config.real and config.fake:
        logits, _, pullback = at(weights[0], {}, *x.joined())

        def pull_joint(seeds: Pair) -> tuple[Tensor | None, Tensor | None]:
            real, fake = pullback(torch.cat(seeds))[0].chunk(2)
            return real, fake

        return Linearised(Pair(*logits.chunk(2)), {}, pull_joint)

    pullbacks: list[Any] = []
    logits_of_sides: list[Tensor] = []
    sides = ((x.xr, x.args_real, config.real), (x.xf, x.args_fake, config.fake))
    for i, (samples, args, attacked) in enumerate(sides):
        if attacked:
            logits, buffers, pullback = at(weights[i], buffers, samples, args)
            pullbacks.append(pullback)
        else:
            pullbacks.append(None)
            if known is not None:
                logits = known[i]
            else:
                logits, _, buffers = call(D, weights[i], buffers, samples, args)
        logits_of_sides.append(logits)

    def pull(seeds: Pair) -> tuple[Tensor | None, Tensor | None]:
        real, fake = (
            back(seed)[0] if back is not None else None for back, seed in zip(pullbacks, seeds, strict=True)
        )
        return real, fake

    return Linearised(Pair(*logits_of_sides), buffers, pull)


class Weights:
    """D's weights, spectrally normalised, call by call: u advances once a step, or in every call."""

    def __init__(self, spec: StepSpec, params: Tensors, buffers: Tensors) -> None:
        self._spec = spec
        names = dict(spec.aliases)
        self._params = {**params, **{alias: params[name] for alias, name in spec.aliases}}
        self._originals = [params[names.get(s.original, s.original)] for s in spec.spectral]
        self._states = [(buffers[s.u], buffers[s.v]) if s.u and s.v else None for s in spec.spectral]
        self._last: tuple[Tensors, Tensors] | None = None

    def next(self, differentiable: bool) -> Tensors:
        """Weights of the next call of D, by name; constants unless ``differentiable``."""
        if self._last is None or self._spec.config.power_iterations == "per_forward":
            weights = self._advanced()
            self._last = weights, {name: weight.detach() for name, weight in weights.items()}
        return self._last[0 if differentiable else 1]

    def last(self) -> Tensors:
        """Weights of the last call of D, differentiable."""
        return self.next(True) if self._last is None else self._last[0]

    def _advanced(self) -> Tensors:
        weights = dict(self._params)
        for i, (spec, original) in enumerate(zip(self._spec.spectral, self._originals, strict=True)):
            with torch.autocast(original.device.type, enabled=False):  # sigma in fp32, whatever D runs in
                state = self._states[i]
                if state is not None and spec.iterations:
                    state = self._states[i] = advance(spec, original.detach(), state)
                weights[spec.target] = normalise(spec, original, state)
        return weights

    def buffers(self) -> Tensors:
        """u and v as they are now, by name, of the weights whose iteration runs."""
        moved: Tensors = {}
        for spec, state in zip(self._spec.spectral, self._states, strict=True):
            if spec.u and spec.v and spec.iterations and state is not None:
                moved[spec.u], moved[spec.v] = state
        return moved


# --- the step ----------------------------------------------------------------------------------------------------


class Attacked(NamedTuple):
    """The outcome of the attack."""

    xr: Tensor
    """x_hat_r (m, ...)."""
    xf: Tensor
    """x_hat_f (m, ...)."""
    clean: Pair
    """Logits (m,) of the clean samples."""
    buffers: Tensors
    """Running statistics, moved by the clean pass only where the loss contains it."""
    info: dict[str, Any]


def run_attack(
    D: nn.Module,
    spec: StepSpec,
    weights: Weights,
    buffers: Tensors,
    x: Inputs,
    fixed_signs: Sequence[Pair] = (),
) -> Attacked:
    """The K attack steps (Algorithm 1, lines 6-9), each on the sides that are attacked."""
    config, once = spec.config, spec.config.power_iterations == "once"
    # Two things differentiate the clean pass: an attack of second order, and a loss that contains it (DATT).
    keep = config.second_order or config.clean_weight > 0
    at = x if keep else x.detached()
    sides: Linearised | None = None
    if once:
        shared = weights.next(keep)
        sides = linearise(D, spec, (shared, shared), buffers, at)
        clean, moved = sides.logits, sides.buffers
    else:
        real, fake, moved = call_both(D, spec, (weights.next(keep), weights.next(keep)), buffers, at)
        clean = Pair(real.logits, fake.logits)
    targets: Pair | None = None
    info: dict[str, Any] = {}
    for step in range(config.steps):
        if sides is None:
            # The released code attacks the fakes first; only the order of u's advances depends on it.
            of_fake = weights.next(config.second_order) if config.fake else {}
            of_real = (
                of_fake if once and config.fake else weights.next(config.second_order) if config.real else {}
            )
            at = x if config.second_order else x.detached()
            sides = linearise(D, spec, (of_real, of_fake), buffers, at, known=clean)
        if fixed_signs:
            signs = fixed_signs[step]
        else:
            signs, targets = attack.residual_signs(
                config, spec.loss, clean, sides.logits, targets, spec.group
            )
        moves = attack_move(spec, sides, signs)
        if spec.with_info and step == 0:
            info = attack_info(spec, sides, signs, moves)
        x = perturbed(config, x, moves)
        sides = None
    return Attacked(x.xr, x.xf, clean, moved if config.clean_weight > 0 else buffers, info)


Move = tuple[Tensor, Tensor]
"""Input gradient (n, ...) and the coefficient (n,) it is scaled by."""


def attack_move(spec: StepSpec, sides: Linearised, signs: Pair) -> tuple[Move | None, Move | None]:
    """Where each attacked side is to move: ``c_i * g_i`` before any clamp; constants in a first-order step."""
    config = spec.config
    seeds = attack.seeds(config, spec.loss, sides.logits, signs)
    strength = attack.strength(config, spec.batch)
    with torch.set_grad_enabled(config.second_order):
        if spec.independent:
            # Seeds of one keep the input backward free of the batch statistics; they enter as c_i afterwards.
            grads = sides.pull(Pair(torch.ones_like(seeds.real), torch.ones_like(seeds.fake)))
            coefficients = [-strength * seed for seed in seeds]
        else:
            grads = sides.pull(seeds)
            coefficients = [torch.full_like(seed, -strength) for seed in seeds]
    moves = [None if g is None else (g, c) for g, c in zip(grads, coefficients, strict=True)]
    if not config.second_order:
        moves = [None if move is None else (move[0].detach(), move[1].detach()) for move in moves]
    return moves[0], moves[1]


def perturbed(config: DATConfig, x: Inputs, moves: tuple[Move | None, Move | None]) -> Inputs:
    """``clip(x + clamp(c g))`` on the attacked sides."""
    real, fake = moves
    xr = x.xr if real is None else perturb_clip(x.xr, *real, config.delta_clip, config.bounds_of("real"))
    xf = x.xf if fake is None else perturb_clip(x.xf, *fake, config.delta_clip, config.bounds_of("fake"))
    return x._replace(xr=xr, xf=xf)


def attack_info(
    spec: StepSpec, sides: Linearised, signs: Pair, moves: tuple[Move | None, Move | None]
) -> dict[str, Any]:
    """``grad_norm_*`` and ``penalty_fraction`` of DATInfo."""
    loss = spec.loss
    seeds = attack.seeds(spec.config, loss, sides.logits, signs)
    own = Pair(attack.slope(loss.g1, sides.logits.real), attack.slope(loss.g2, sides.logits.fake))
    effects = (None, None) if spec.independent else sides.pull(own)
    info: dict[str, Any] = {}
    lowered = []
    for i, side in enumerate(("real", "fake")):
        move, effect = moves[i], effects[i]
        if move is None:
            info[f"grad_norm_{side}"] = own[i].new_full((), torch.nan)
            continue
        grad, c = move
        norm = grad.flatten(1).to(own[i].dtype).norm(dim=1)
        if effect is None:  # the gradient of g(D(x_i)) is own_i * grad_i, and delta_i is c_i * grad_i
            change = own[i] * c * norm
            norm = norm * seeds[i].abs()
        else:
            change = (effect * c.reshape(-1, *(1,) * (grad.ndim - 1)) * grad).flatten(1).sum(1)
        info[f"grad_norm_{side}"] = norm.mean()
        lowered.append((change < 0).to(own[i].dtype))
    info["penalty_fraction"] = torch.cat(lowered).mean()
    return info


def objective(
    D: nn.Module,
    spec: StepSpec,
    params: Tensors,
    buffers: Tensors,
    x: Inputs,
    aux_loss: AuxLoss | None = None,
    fixed: Fixed | None = None,
) -> tuple[Tensor, tuple[Tensors, dict[str, Any]]]:
    """D's loss on the perturbed samples (Eq. 8, Algorithm 1, line 10), a scalar to differentiate.

    Args:
        D: the discriminator, its spectral norm bypassed.
        params: every parameter of D by name.
        buffers: u, v and the moving buffers by name, before the step.
        x: the batch.
        aux_loss: a further loss of D on the clean batch, added; it sees the weights of D's last call.
        fixed: what is already decided, for a part of a batch.

    Returns:
        loss, (new values of the moving buffers, fields of DATInfo).
    """
    config, loss = spec.config, spec.loss
    weights = Weights(spec, params, buffers)
    moving = {name: buffers[name] for name in spec.moving}
    adversarial = fixed.adversarial if fixed is not None else None
    attacked: Attacked | None = None
    if config.attacks and adversarial is None:
        attacked = run_attack(D, spec, weights, moving, x, fixed.signs if fixed is not None else ())
        moving = attacked.buffers
        adversarial = attacked.xr, attacked.xf
    x_hat = x if adversarial is None else x._replace(xr=adversarial[0], xf=adversarial[1])

    # The released code updates on the fakes first; only the order of the buffers' moves depends on it.
    fake_first = config.attacks and config.power_iterations == "per_forward"
    one, other = weights.next(True), weights.next(True)
    real, fake, moving = call_both(
        D, spec, (other, one) if fake_first else (one, other), moving, x_hat, fake_first
    )
    total = discriminator_loss(loss, real.logits, fake.logits)

    clean = Pair(real.logits, fake.logits)
    if attacked is not None:
        clean = attacked.clean
    if config.clean_weight > 0:
        w = config.clean_weight
        total = (total + w * discriminator_loss(loss, *clean)) / (1 + w)

    if aux_loss is not None:
        of_aux, moving = call_aux(D, aux_loss, weights.last(), moving, x)
        total = total + of_aux

    info: dict[str, Any] = {}
    if spec.with_info:
        info = _info(x, x_hat, real, fake, clean, attacked.info if attacked is not None else {})
    return total, ({**weights.buffers(), **moving}, info)


class _Holder(nn.Module):
    """Gives a function of D the D whose tensors ``functional_call`` has put in place."""

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        self.D = D

    def forward(self, function: AuxLoss, xr: Tensor, xf: Tensor) -> Tensor:
        return function(self.D, xr, xf)


def call_aux(
    D: nn.Module, aux_loss: AuxLoss, weights: Tensors, buffers: Tensors, x: Inputs
) -> tuple[Tensor, Tensors]:
    """``aux_loss(D, xr, xf)`` with these tensors in place of D's own, of which none is moved."""
    moved = {name: buffer.clone() for name, buffer in buffers.items()}
    tensors = {f"D.{name}": tensor for name, tensor in {**weights, **moved}.items()}
    loss = torch.func.functional_call(_Holder(D), tensors, (aux_loss, x.xr, x.xf), tie_weights=False)
    return loss, moved


def _rms(delta: Tensor) -> Tensor:
    return delta.to(torch.promote_types(delta.dtype, torch.float32)).square().mean().sqrt()


def _info(
    x: Inputs, x_hat: Inputs, real: Call, fake: Call, clean: Pair, of_attack: dict[str, Any]
) -> dict[str, Any]:
    nan = real.logits.new_full((), torch.nan)
    info = {
        "logits_real": real.logits,
        "logits_fake": fake.logits,
        "clean_logits_real": clean.real,
        "clean_logits_fake": clean.fake,
        "xr_adv": x_hat.xr,
        "xf_adv": x_hat.xf,
        "delta_rms_real": _rms(x_hat.xr - x.xr),
        "delta_rms_fake": _rms(x_hat.xf - x.xf),
        "grad_norm_real": nan,
        "grad_norm_fake": nan,
        "penalty_fraction": nan,
        "aux": (real.extras, fake.extras),
        **of_attack,
    }
    detached: dict[str, Any] = tree_map_only(Tensor, Tensor.detach, info)
    return detached


# --- differentiated ----------------------------------------------------------------------------------------------


class StepResult(NamedTuple):
    """What a step computes."""

    loss: Tensor
    grads: Tensors
    """Gradient of each trainable parameter, and of ``xr``, ``xf`` where asked for."""
    buffers: Tensors
    """New values of the buffers that moved: u, v, running statistics."""
    info: dict[str, Any]
    """Fields of ``DATInfo``."""


def step(
    D: nn.Module,
    spec: StepSpec,
    trainable: Tensors,
    frozen: Tensors,
    buffers: Tensors,
    x: Inputs,
    aux_loss: AuxLoss | None = None,
    fixed: Fixed | None = None,
    of_inputs: tuple[str, ...] = (),
    traced: bool = True,
) -> StepResult:
    """``objective`` and its gradient for ``trainable`` and for those of xr, xf that ``of_inputs`` names.

    With ``traced`` the outer derivative is ``torch.func.grad``, which compiles. Without, it is autograd's, which
    in eager mode does not keep a graph of the backward pass alive.
    """
    wanted = {**trainable, **{name: getattr(x, name) for name in of_inputs}}

    def of(wanted: Tensors) -> tuple[Tensor, tuple[Tensors, dict[str, Any]]]:
        params = {**frozen, **{name: wanted[name] for name in trainable}}
        samples = x._replace(xr=wanted.get("xr", x.xr), xf=wanted.get("xf", x.xf)) if of_inputs else x
        return objective(D, spec, params, buffers, samples, aux_loss, fixed)

    if not wanted:
        loss, (moved, info) = of({})
        return StepResult(loss, {}, moved, info)
    if traced:
        grads, (loss, (moved, info)) = torch.func.grad_and_value(of, has_aux=True)(wanted)
        return StepResult(loss, grads, moved, info)
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in wanted.items()}
        loss, (moved, info) = of(leaves)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return StepResult(loss.detach(), dict(zip(leaves, found, strict=True)), moved, info)


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
    config = config or DATConfig()
    spec = StepSpec(config, get_loss(loss), independent=True, joint=True, batch=xr.shape[0])
    constants = {name: param.detach() for name, param in params.items()}
    result = step(D, spec, constants, {}, {}, Inputs(xr, xf).detached())
    return result.grads, result.loss
