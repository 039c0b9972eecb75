"""What one iteration of a run costs one GPU, counted from its nets and settings: work, launches and memory.

Nothing is measured here: :mod:`fastdat.training.size_fit` turns these counts into seconds and bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastdat.losses import get_loss, is_pair
from fastdat.nets.auxiliary import HasAuxiliaryLoss
from fastdat.regularizers.cost import cost
from fastdat.training.models import build_nets, channels_of, model_of
from fastdat.training.regularization import Regularizers, attack_of
from fastdat.training.sample_cost import SampleCost, sample_cost
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError

BYTES_PER_PARAMETER = 20
"""16 are known: the weight, its gradient and Adam's two moments in fp32. A step also copies weights: in bf16 for
convolutions, and D's divided by sigma; 4 bytes for that is what the measured intercepts say."""

_OF_NETS = ("model", "dataset", "resolution", "classes", "ngf", "ndf", "nz", "precision")
"""The settings that :func:`nets_of` depends on."""

_NOTHING = SampleCost(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True)
class IterationCost:
    """Of one iteration (``n_dis`` D steps and one G step) on one of the GPUs that share a batch.

    Args:
        launches: layers times passes: how often a convolution or matrix product is launched.
        flops: of all passes.
        written: bytes of activations that all passes write.
        activations: bytes of activations that are alive at once at the peak.
        fixed: bytes that do not depend on the batch: weights, gradients, Adam's moments, the average of G.
        images: bytes of reals, fakes and their perturbed copies.
        gradients: bytes of gradients that GPUs have to average, in all steps.
        steps: steps of D and G.
        exchanges: of batch norms with those of other GPUs: one in each pass over a norm.
    """

    launches: float
    flops: float
    written: float
    activations: float
    fixed: float
    images: float
    gradients: float
    steps: int
    exchanges: int


@dataclass(frozen=True)
class Nets:
    """What a sample costs in G, in D and in D's auxiliary loss; how many parameters and batch norms the nets have."""

    G: SampleCost
    D: SampleCost
    auxiliary: SampleCost
    parameters_g: int
    parameters_d: int
    norms_g: int
    norms_d: int


def iteration_cost(config: TrainConfig, gpus: int = 1) -> IterationCost:
    """The cost of an iteration for one of ``gpus`` GPUs.

    A D step passes D ``cost()`` times over reals and fakes (:func:`fastdat.regularizers.cost.cost`: 5 for DAT, 7 for
    second order), and G once. G's step passes G three times (forward, and two gradients), and D twice (forward, and the
    gradient of the fakes). Memory is that of the step that needs more of it: G's, which keeps the activations of both
    nets, or D's, which keeps those of a microbatch on both sides, twice if it differentiates its own gradient.

    Args:
        config: with ``precision`` as it is on the device, not "auto".
        gpus: that share a batch; they divide it.

    Raises:
        ConfigError: the nets are not of images, or G's step attacks, which the count does not know.
    """
    if model_of(config).points:
        raise ConfigError(
            f"model {config.model} has points, not images: time and memory of it are not planned"
        )
    if config.dat_generator != "none":
        raise ConfigError(
            f"dat_generator={config.dat_generator}: what an attack in G's step costs was not measured; plan without it"
        )
    nets = nets_of(config)
    attack = attack_of(config)
    terms = Regularizers(config, torch.device("cpu")).terms
    of_step = cost(attack, terms)
    batch = config.batch_size // gpus
    part = min(batch, config.microbatch or batch)
    parts = math.ceil(batch / part)
    pair = int(is_pair(get_loss(config.loss)))
    # Passes of one sample in an iteration, and launched passes.
    in_g, n = config.n_dis + 3, config.n_dis
    in_d, launched_d = n * 2 * of_step + 2 + pair, n * parts * of_step + 2 + pair
    in_auxiliary = n * 3 + 2

    def total(of: str) -> float:
        g, d, auxiliary = (getattr(net, of) for net in (nets.G, nets.D, nets.auxiliary))
        return float(batch * (in_g * g + in_d * d + in_auxiliary * auxiliary))

    kept = 2 if _keeps_two(config) else 1
    g_step = batch * (nets.G.saved + nets.D.saved + nets.auxiliary.saved)
    d_step = 2 * part * kept * nets.D.saved + batch * nets.auxiliary.saved
    image = 4 * channels_of(config) * config.resolution**2
    average = 4 * nets.parameters_g if config.ema else 0
    return IterationCost(
        launches=in_g * nets.G.layers + launched_d * nets.D.layers + in_auxiliary * nets.auxiliary.layers,
        flops=total("flops"),
        written=total("written"),
        activations=max(g_step, d_step),
        fixed=BYTES_PER_PARAMETER * (nets.parameters_g + nets.parameters_d) + average,
        images=6 * batch * image,
        gradients=4 * (n * nets.parameters_d + nets.parameters_g),
        steps=n + 1,
        # One backward pass makes both gradients of G, whose own step has 2 passes therefore. D has at most so many.
        exchanges=(n + 2) * nets.norms_g + math.ceil(launched_d) * nets.norms_d,
    )


def nets_without_memory(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """G and D of ``config``, of which only shapes and layers are known."""
    with torch.device("meta"):
        return build_nets(config)


def nets_of(config: TrainConfig) -> Nets:
    """The costs of the nets of ``config``, which are made without memory for their weights."""
    return _nets_of(tuple((key, getattr(config, key)) for key in _OF_NETS))


@lru_cache(maxsize=16)  # counting takes seconds, and measurements share nets
def _nets_of(settings: tuple[tuple[str, Any], ...]) -> Nets:
    config = TrainConfig.from_dict(dict(settings))
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    G, D = nets_without_memory(config)
    for net in (G, D):
        net.to(dtype)
    labelled = model_of(config).conditional
    size = (channels_of(config), config.resolution, config.resolution)

    def inputs(samples: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        x = torch.empty(samples, *shape, dtype=dtype, device="meta")
        return (x, torch.empty(samples, dtype=torch.int64, device="meta")) if labelled else (x,)

    auxiliary = _NOTHING
    if isinstance(D, HasAuxiliaryLoss):
        auxiliary = sample_cost(lambda samples: D.auxiliary_loss(*inputs(samples, size)))
    return Nets(
        sample_cost(lambda samples: G(*inputs(samples, (config.nz,)))),
        sample_cost(lambda samples: D(*inputs(samples, size))),
        auxiliary,
        _parameters(G),
        _parameters(D),
        _norms(G),
        _norms(D),
    )


def _keeps_two(config: TrainConfig) -> bool:
    """Whether D's step keeps the clean pass beside the perturbed one to its end (:func:`cost` says when)."""
    attack: Any = attack_of(config)
    if not attack.attacks:
        return bool(config.regularizers)
    return bool(config.regularizers) or getattr(attack, "second_order", False) or attack.clean_weight > 0


def _norms(net: nn.Module) -> int:
    """The layers that exchange statistics with other GPUs (:func:`fastdat.nets.share_batch`)."""
    return sum(isinstance(module, _BatchNorm) for module in net.modules())


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
