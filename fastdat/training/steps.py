"""One D step and one G step, the parts of a training iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from fastdat.config import AttackConfig, Wiring
from fastdat.engine import passes
from fastdat.engine.announce import announced
from fastdat.engine.distributed import data_parallel
from fastdat.engine.generator_step import generator_step
from fastdat.engine.spectral.fused import is_fused, normalised_once
from fastdat.engine.step import dat_step
from fastdat.info import DATInfo
from fastdat.losses import generator_loss, get_loss, is_pair
from fastdat.nets.augmentation import Augmented
from fastdat.nets.auxiliary import HasAuxiliaryLoss
from fastdat.training.fakes import Fakes, Labels, Note, quiet
from fastdat.training.regularization import Regularizers, attack_of
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.net_modes import frozen
from fastdat.util.ranks import ONE_PROCESS, Ranks
from fastdat.util.term_names import of_term

Draws = tuple[Tensor, ...]
"""``(random numbers (N, DRAWS),)`` of each sample's augmentation, as ``Augmented`` takes them; ``()`` without one."""


TermDraws = tuple[dict[str, Tensor], ...]
"""What each regularizer whose turn it is has drawn, by name."""


class Reals(NamedTuple):
    """Real images (N, C, H, W) with their labels and the random numbers of their augmentation."""

    images: Tensor
    labels: Labels = ()
    draws: Draws = ()


def needs_whole_batch(netD: nn.Module) -> str | None:
    """Why D's step cannot be computed in parts of a batch; None if it can."""
    if isinstance(netD, HasAuxiliaryLoss):
        return f"the auxiliary loss of {type(netD).__name__} needs the whole batch and cannot be computed in parts"
    norms = [name for name, m in netD.named_modules() if isinstance(m, _BatchNorm) and m.training]
    if norms:
        return (
            f"{type(netD).__name__} has batch norms ({', '.join(norms[:4])}), whose statistics are those of the whole "
            "batch"
        )
    return None


def check_microbatch(config: TrainConfig, netD: nn.Module) -> None:
    """Raises ConfigError where a microbatch is set and D needs the whole batch."""
    reason = None if config.microbatch is None else needs_whole_batch(netD)
    if reason is not None:
        raise ConfigError(f"microbatch={config.microbatch}: {reason}; do not set microbatch")


def check_fakes_at_once(config: TrainConfig, processes: int) -> None:
    """Raises ConfigError where several processes shall make the fakes of all D steps in one pass."""
    if processes > 1 and config.fakes_at_once is True:
        raise ConfigError(
            f"fakes_at_once=true is for one process, and there are {processes}, which share batch norm's statistics "
            "step by step. Leave it out, or set fakes_at_once=false"
        )


class Steps:
    """The updates of D and G; with ``config.compile`` each is compiled once.

    The auxiliary loss of a D that is a :class:`fastdat.nets.HasAuxiliaryLoss` is added in both steps. With
    ``config.augment`` D's logits are those of augmented images, on both sides and in both steps; the auxiliary loss is
    that of the images themselves.

    Args:
        netG, netD: z (N, nz) -> images; images -> logits (N,) or (N, 1). Conditional nets also take labels (N,).
        optG, optD: their optimizers.
        config: loss, attack, regularizers, augmentation, precision, compile, fold, microbatch, fakes_at_once.
        note: called with a line for the log.
        ranks: those that take each step together, on equal parts of a batch. Losses and gradients are those of the
            whole batch; a loss that is returned is the mean over this part.

    Attributes:
        attack: settings of the attack.
        regularizers: the terms of D's loss, with their states.
        augments: whether both steps need random numbers for augmentations.

    Raises:
        ConfigError: a microbatch is set, but D has an auxiliary loss or batch norms, which need the whole batch; D
            cannot be augmented; a regularizer looks at a submodule that D does not have; or fakes_at_once is true with
            several ranks.
    """

    def __init__(
        self,
        netG: nn.Module,
        netD: nn.Module,
        optG: Optimizer,
        optD: Optimizer,
        config: TrainConfig,
        note: Note = quiet,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:
        self._netG, self._netD, self._optG, self._optD = netG, netD, optG, optD
        self._config, self._ranks = config, ranks
        device = next(netG.parameters()).device
        self._device_type = device.type
        self.attack = attack_of(config)
        self.regularizers = Regularizers(config, device)
        self._compares = is_pair(get_loss(config.loss))  # fakes with reals, in G's step too
        self._has_auxiliary = isinstance(netD, HasAuxiliaryLoss)
        check_microbatch(config, netD)
        self.augments = config.augment != "none"
        self._D = netD  # with the augmentation in front, if there is one
        if self.augments:
            try:
                self._D = Augmented(netD, config.augment)
            except ValueError as error:
                raise ConfigError(f"augment={config.augment}: {error}") from error
        self.regularizers.check_paths(self._D)
        self._in_step: nn.Module = data_parallel(self._D) if ranks else self._D
        check_fakes_at_once(config, ranks.size if ranks else 1)
        # G is compiled twice: without gradients for D's fakes, and with gradients for the G step.
        self._fakes = Fakes(netG, config.replace({"fakes_at_once": False}) if ranks else config, note)
        self._objective: Callable[..., Tensor] = self._generator_objective
        self._has_run: set[str] = set()
        if config.compile:
            self._objective = torch.compile(self._objective, options=passes.options(fold=config.fold))

    def fakes(self, z: Tensor, labels: Labels = ()) -> Iterator[Tensor]:
        """Fakes of G for D steps, without gradients.

        Args:
            z: (n, N, nz), of n D steps.
            labels: of the fakes, (n, N) each.

        Yields:
            The fakes (N, ...) of one D step after another. They are made one batch at a time, or all at once where
            ``config.fakes_at_once`` says so: G does not change between the D steps of an iteration.

        Raises:
            ConfigError: ``config.fakes_at_once`` is true, but G joins the samples of a batch.
        """
        seen = z if self._fakes.at_once(z, labels) else z[0]
        made = self._fakes.of_steps(z, labels)
        for _ in z:
            with self._autocast(), torch.no_grad(), self._announced("G without gradients", seen):
                fakes = next(made)
            yield fakes

    def discriminator(
        self,
        xr: Tensor,
        xf: Tensor,
        labels_real: Labels = (),
        labels_fake: Labels = (),
        draws_real: Draws = (),
        draws_fake: Draws = (),
        *,
        step: int = 0,
        draws: TermDraws = (),
    ) -> tuple[Tensor, DATInfo]:
        """Update D once, on reals and fakes (N, C, H, W); for a D with ``HasAuxiliaryLoss`` with its auxiliary loss of
        the clean reals.

        ``step`` is the number of the D step, which decides whose turn it is among the regularizers, and ``draws`` their
        random numbers, from :meth:`Regularizers.draws`.

        Returns:
            The loss of D and the measurements of the step, both detached.
        """
        config = self._config
        with self._autocast():
            loss, info = dat_step(
                self._in_step,
                xr,
                xf.to(xr.dtype),
                config=self.attack,
                loss=config.loss,
                args_real=(*draws_real, *labels_real),
                args_fake=(*draws_fake, *labels_fake),
                aux_loss=_auxiliary_of_reals if self._has_auxiliary else None,
                compile=config.compile,
                fold=config.fold,
                microbatch=config.microbatch,
                with_info=True,
                regularizers=self.regularizers.terms,
                step=step,
                draws=draws,
            )
        self._optD.zero_grad(set_to_none=True)
        loss.backward()
        self._optD.step()
        return loss.detach(), info

    def generator(
        self, z: Tensor, labels: Labels = (), draws: Draws = (), reals: Reals | None = None
    ) -> Tensor:
        """Update G once through D, on fakes from z (N, nz); returns the loss of G, detached.

        A loss of pairs compares the fakes with as many ``reals``, and an attack in G's step has its targets from them.

        Raises:
            ValueError: there are no reals for an attack in G's step.
        """
        if self._config.dat_generator != "none":
            loss = self._attacked_objective(self._config.dat_generator, z, labels, draws, reals)
            with self._announced("G's step", z):
                self._update_generator(loss)
            return loss.detach()
        with frozen(self._netD), self._announced("G's step", z):
            with self._autocast(), self._shared_normalisation():
                loss = self._objective(z, labels, draws, reals if self._compares else None)
            self._update_generator(loss)
        return loss.detach()

    def _update_generator(self, loss: Tensor) -> None:
        self._optG.zero_grad(set_to_none=True)
        loss.backward()
        # After the backward pass, in one message: G may be compiled as a whole, which no hook of DDP would see.
        self._ranks.average(p.grad for p in self._netG.parameters() if p.grad is not None)
        self._optG.step()

    def _generator_objective(self, z: Tensor, labels: Labels, draws: Draws, reals: Reals | None) -> Tensor:
        D: Any = self._netD
        fakes = self._netG(z, *labels)
        logits = self._logits(fakes, draws, labels)
        others = None if reals is None else self._logits(reals.images, reals.draws, reals.labels)
        loss = generator_loss(self._config.loss, logits, others)
        if self._has_auxiliary:
            loss = loss + D.auxiliary_weight_g * D.auxiliary_loss(fakes)
        return loss

    def _attacked_objective(
        self, wiring: Wiring, z: Tensor, labels: Labels, draws: Draws, reals: Reals | None
    ) -> Tensor:
        config = self._config
        if reals is None:
            raise ValueError(
                f"dat_generator={wiring} has its targets from reals, and there are none: pass those of the last D step "
                "as reals"
            )
        with self._autocast():
            with self._announced("G with gradients", z):
                fakes = self._fakes.of_a_batch(z, *labels).to(reals.images.dtype)
            return generator_step(
                self._in_step,
                fakes,
                reals.images,
                config.dat,
                config.loss,
                wiring=wiring,
                args_real=(*reals.draws, *reals.labels),
                args_fake=(*draws, *labels),
                aux_loss=_auxiliary_of_fakes if self._has_auxiliary else None,
                compile=config.compile,
                fold=config.fold,
            )

    def _logits(self, x: Tensor, draws: Draws, labels: Labels) -> Tensor:
        """D's logits, the first of its outputs."""
        outputs = self._D(x, *draws, *labels)
        logits: Tensor = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
        # The difference of two logits of bf16 would have few digits.
        return logits.float() if self._compares and logits.dtype == torch.bfloat16 else logits

    def _shared_normalisation(self) -> AbstractContextManager[None]:
        """Within it, D's calls (logits of fakes, of reals, auxiliary loss) share one spectral normalisation."""
        shared = (self._has_auxiliary or self._compares) and is_fused(self._netD)
        return normalised_once(self._netD) if shared else nullcontext()

    @contextmanager
    def _announced(self, what: str, z: Tensor) -> Iterator[None]:
        """Within it, a compilation of ``what`` is announced; ``dat_step`` does so by itself."""
        if not self._config.compile:
            yield
            return
        with announced(what, z, "changed" if what in self._has_run else "first"):
            yield
        self._has_run.add(what)

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self._config.precision == "bf16"
        return torch.autocast(self._device_type, torch.bfloat16, enabled=enabled)


def _auxiliary_of_reals(D: Any, xr: Tensor, xf: Tensor) -> Tensor:
    """D's weighted auxiliary loss on the clean reals, with the arguments that ``dat_step`` passes."""
    if isinstance(D, Augmented):
        D = D.D
    loss: Tensor = D.auxiliary_weight_d * D.auxiliary_loss(xr)
    return loss


def _auxiliary_of_fakes(D: Any, xr: Tensor, xf: Tensor) -> Tensor:
    """D's weighted auxiliary loss on G's fakes, with the arguments that ``generator_step`` passes."""
    if isinstance(D, Augmented):
        D = D.D
    loss: Tensor = D.auxiliary_weight_g * D.auxiliary_loss(xf)
    return loss


def measurements(info: DATInfo, config: AttackConfig) -> dict[str, Tensor]:
    """The means of ``info`` that are recorded (0-dimensional): of logits, of the attack on each attacked side, and of
    the regularizers whose turn it was."""
    values = {"logits_real": info.logits_real.mean(), "logits_fake": info.logits_fake.mean()}
    if config.attacks:
        values["clean_logits_real"] = info.clean_logits_real.mean()
        values["clean_logits_fake"] = info.clean_logits_fake.mean()
        values["penalty_fraction"] = info.penalty_fraction
    for side, attacked in (("real", config.real), ("fake", config.fake)):
        if attacked:
            values[f"delta_rms_{side}"] = getattr(info, f"delta_rms_{side}")
            values[f"grad_norm_{side}"] = getattr(info, f"grad_norm_{side}")
            values[f"clipped_{side}"] = getattr(info, f"clipped_{side}")
    return values | {of_term(name): value for name, value in info.terms.items()}
