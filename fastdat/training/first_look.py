"""A look at nets, optimizers and reals before the first step, for mistakes that training would not notice, or only in
the middle of a net's forward."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastdat.data import TrainSampler
from fastdat.engine import checks
from fastdat.engine.value_range import range_problem
from fastdat.regularizers.term import Term
from fastdat.training.batches import Batches
from fastdat.training.iteration import Iteration
from fastdat.training.networks import Networks
from fastdat.training.noise import SAMPLES, Noise
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.net_modes import evaluating
from fastdat.util.ranks import ONE_PROCESS, Ranks

_ENOUGH = 64
"""Reals after which it is clear that their range begins at zero."""


def check_optimizers(netG: nn.Module, netD: nn.Module, optG: Optimizer, optD: Optimizer) -> None:
    """Refuse optimizers that would leave a net untrained, or train the wrong one.

    Raises:
        ConfigError: the two are one, an optimizer lacks trained parameters of its net or has those of the other one, or
            cannot make a step from gradients alone.
    """
    if optG is optD:
        raise ConfigError("optG and optD are the same object: make one optimizer for G and another one for D")
    of_G = {id(p) for p in netG.parameters()}
    common = [key for key, p in netD.named_parameters() if id(p) in of_G]
    if common:
        raise ConfigError(
            f"netG and netD share parameters, the first one is netD's {common[0]}: the step of one net would undo the "
            "other's. Give each net its own"
        )
    for name, optimizer, own, other, others in (
        ("optG", optG, netG, netD, "netD"),
        ("optD", optD, netD, netG, "netG"),
    ):
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        foreign = [key for key, p in other.named_parameters() if id(p) in held]
        if foreign:
            raise ConfigError(
                f"{name} holds {len(foreign)} parameter(s) of {others}, the first one is {foreign[0]}: give it "
                f"net{name[-1]}.parameters()"
            )
        missing = [key for key, p in own.named_parameters() if p.requires_grad and id(p) not in held]
        if missing:
            raise ConfigError(
                f"{name} lacks {len(missing)} parameter(s) of net{name[-1]}, the first one is {missing[0]}, which "
                f"would never be trained: give it net{name[-1]}.parameters(), or freeze them with requires_grad_(False)"
            )
        if _needs_closure(optimizer):
            raise ConfigError(
                f"{name} is a {type(optimizer).__name__}, whose step evaluates the loss again, on other weights: that "
                "does not fit a GAN's step. Use an optimizer that needs gradients alone, such as Adam"
            )


def put_into_training_mode(netG: nn.Module, netD: nn.Module) -> list[str]:
    """Put nets that are in evaluation mode into training mode, all layers of them.

    A net in training mode stays as it is, with the layers that were put into evaluation mode on purpose.

    Returns:
        A line for the log about each net that was not in training mode.
    """
    remarks = []
    for name, net in (("netG", netG), ("netD", netD)):
        if not net.training:
            net.train()
            remarks.append(
                f"{name} was in evaluation mode, in which batch norm and spectral norm stand still: it is in training "
                f"mode now. To freeze single layers, call {name}.train() and then their eval()"
            )
    return remarks


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def check_first_samples(
    networks: Networks,
    iteration: Iteration,
    noise: Noise,
    config: TrainConfig,
    d_step: int,
    ranks: Ranks = ONE_PROCESS,
) -> None:
    """Refuse reals outside the range that the attack clips to, labels that are no classes, a G whose samples have
    another shape, and a D without the further output that a regularizer needs.

    Args:
        networks: G is called on two latents; it stays as it is.
        iteration: of the run; its reals of ``d_step`` are looked at, and the next ones where they leave their range
            open.
        noise: makes the latents.
        config: of the run.
        d_step: the next D step.
        ranks: those that share out a batch.

    Raises:
        ConfigError: as above, or the reals are not what D steps take, or G cannot be called.
    """
    batches = iteration.batches
    reals = _checked(batches.batch(d_step), config.batch_size, ranks, networks.device)
    if config.augment != "none" and reals.ndim != 4:
        raise ConfigError(
            f"augment={config.augment} changes images (N, C, H, W), and the reals have the shape {tuple(reals.shape)}: "
            "set augment=none"
        )
    labels = (_checked_labels(batches, len(reals), noise.classes, d_step),) if noise.classes else ()
    terms = iteration.steps.regularizers.terms
    if any(term.needs.extras for term in terms):
        _check_extras(terms, networks.D, reals[:2], *(of_all[:2] for of_all in labels))
    if not isinstance(batches, TrainSampler):  # whose images are in [-1, 1] whatever they show
        _check_range(reals, batches, config, d_step)
    fakes = _two_fakes(networks.G, noise, config)
    if fakes.shape[1:] != reals.shape[1:]:
        raise ConfigError(
            f"netG makes samples of shape {tuple(fakes.shape[1:])}, and the reals are {tuple(reals.shape[1:])}: give "
            "both one number of channels and one resolution"
        )


def _checked(reals: Any, batch: int, ranks: Ranks, device: torch.device) -> Tensor:
    size = batch // ranks.size
    shared_out = f", shared out among {ranks.size} processes" if ranks else ""
    expected = f"a floating-point tensor of {size} samples on {device}"
    if not isinstance(reals, Tensor):
        raise ConfigError(f"batches.batch(step) must return {expected}; got a {type(reals).__name__}")
    if not reals.is_floating_point() or reals.ndim < 2 or len(reals) != size:
        raise ConfigError(
            f"batches.batch(step) must return {expected} (config.batch_size{shared_out}); got {reals.dtype} "
            f"of shape {tuple(reals.shape)}"
        )
    if reals.device.type != device.type:
        raise ConfigError(f"batches.batch(step) must return {expected}; got one on {reals.device}")
    return reals


def _check_extras(terms: Sequence[Term], D: nn.Module, *samples: Tensor) -> None:
    with torch.no_grad(), evaluating(D):
        out = D(*samples)
    try:
        checks.check_extras(len(out) - 1 if isinstance(out, (tuple, list)) else 0, terms)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _checked_labels(batches: Any, count: int, classes: int, d_step: int) -> Tensor:
    if not hasattr(batches, "labels"):
        raise ConfigError(
            f"these nets are conditional, but the {type(batches).__name__} that was given as batches has no method "
            "labels(step)"
        )
    labels = batches.labels(d_step)
    expected = (
        f"the labels beside the images must be {count} integers in 0 .. {classes - 1}, one for each image"
    )
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int32, torch.int64):
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ConfigError(f"{expected}, as int64; got {found}")
    if labels.shape != (count,):
        raise ConfigError(f"{expected}; got the shape {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ConfigError(f"{expected}; got {low} .. {high}. Is classes={classes} right?")
    return labels


def _check_range(reals: Tensor, batches: Batches, config: TrainConfig, d_step: int) -> None:
    low, high, seen = *_range(reals), len(reals)
    bounds = config.dat.bounds
    # A few bright images may have no negative value by chance; 64 do not.
    while seen < _ENOUGH and bounds is not None and bounds[0] < 0 <= low and _inside(low, high, bounds):
        d_step += 1
        more = batches.batch(d_step)
        (lower, higher), seen = _range(more), seen + len(more)
        low, high = min(low, lower), max(high, higher)
    problem = range_problem("the first batch of reals", low, high, bounds)
    if problem is not None:
        raise ConfigError(problem)


def _inside(low: float, high: float, bounds: tuple[float, float]) -> bool:
    return range_problem("", low, high, bounds, generated=True) is None


def _range(reals: Tensor) -> tuple[float, float]:
    if not reals.isfinite().all():
        raise ConfigError("the first reals hold NaN or infinity: look at what loads and scales them")
    return reals.min().item(), reals.max().item()


def _two_fakes(netG: nn.Module, noise: Noise, config: TrainConfig) -> Tensor:
    z, labels = noise.draw(SAMPLES, 0, 2), noise.labels(SAMPLES, 0, 2)
    devices = [z.device] if z.is_cuda else []
    try:
        with torch.no_grad(), evaluating(netG), torch.random.fork_rng(devices):
            fakes = netG(z, *labels)
    except Exception as error:  # whatever a user's net may raise
        given = f"z of shape (2, {config.nz})" + (" and labels of shape (2,)" if labels else "")
        takes = _length_of_z(netG) if isinstance(error, RuntimeError) and "shape" in str(error) else None
        hint = (
            "" if takes in (None, config.nz) else f" Its first layer takes {takes} numbers: set nz={takes}."
        )
        raise ConfigError(
            f"netG cannot be called on {given}: {str(error).partition(chr(10))[0]}.{hint}"
        ) from error
    if not isinstance(fakes, Tensor):
        raise ConfigError(f"netG must return a tensor of samples, got a {type(fakes).__name__}")
    return fakes


def _length_of_z(netG: nn.Module) -> int | None:
    """What the first layer of ``netG`` takes, if it is one of the usual layers."""
    for module in netG.modules():
        if isinstance(module, nn.Linear):
            return module.in_features
        if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
            return module.in_channels
    return None
