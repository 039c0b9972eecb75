"""Settings of a training run: one frozen dataclass, checked when it is made; the same in Python, YAML and ``--set``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastdat.config import DATConfig
from fastdat.metrics.eval_config import EvalConfig
from fastdat.nets.augmentation import parse_policy
from fastdat.robustness.monitor_config import MonitorConfig
from fastdat.training.cosine import CosineConfig
from fastdat.training.fitting import check_fitting
from fastdat.training.regularization import read_attack, read_regularizers
from fastdat.util import plain_yaml, settings
from fastdat.util.errors import ConfigError
from fastdat.util.named_settings import NamedSettings
from fastdat.util.settings import (
    NoneMeans,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    ReadBy,
    SeedInt,
)

#: Settings from which nets, optimizers and data are made: they mean nothing for nets that the user provides.
MAKING = ("model", "dataset", "data", "resolution", "classes", "ngf", "ndf", "lr", "betas")


class _Policy:
    """A policy of augmentation."""

    words = ': "none", "diffaug", or some of "color,translation,cutout" (with commas)'

    def holds(self, value: Any) -> bool:
        try:
            parse_policy(value)
        except ValueError:
            return False
        return True


_Decay = Annotated[float, Range(at_least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a run writes checkpoints, and which of them it keeps.

    Args:
        every: G steps between checkpoints.
        keep: how many of the newest are kept as step-000500.pt, ...; latest.pt is a second name of the newest one. Two
            in any case: if the newest is damaged, the run goes on from the one before it.
        keep_every: the first one after every so many G steps is kept for good; None: none of them.

    Raises:
        ConfigError: a value of the wrong type or outside its range.
    """

    every: PositiveInt = 1000
    keep: NonNegativeInt = 2
    keep_every: Annotated[PositiveInt | None, NoneMeans("none")] = None

    def __post_init__(self) -> None:
        settings.check_fields(self, prefix="checkpoints.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is trained, on which data, how and on which device. A step is one G step, after ``n_dis`` D steps.

    A run records what ``"auto"`` of ``precision``, ``channels_last`` and ``cudnn_benchmark`` came to, see
    :mod:`fastdat.training.device_settings`; the presets on images say ``"auto"``.

    Args:
        model: a key of :data:`fastdat.training.models.MODELS`; None for your own nets.
        dataset: a key of :data:`fastdat.data.registry.DATASETS`, or a mixture of :data:`fastdat.data.mixture.MIXTURES`;
            None for your own reals.
        data: path of the data set: a packed store, or the folder with the publisher's files.
        resolution: height and width of the images.
        classes: number of classes of a conditional model; None: as the data set has. A run on a folder, which has as
            many as it has subfolders, records the number here.
        ngf, ndf: full width of G and D in channels; None is the paper's.
        nz: length of z.
        loss: a name of :data:`fastdat.losses.LOSSES`.
        dat: the attack; :class:`fastdat.DATConfig`. ``real=False, fake=False`` is the plain GAN in the same engine.
        attack: another attack in DAT's place, ``{name: asgan}`` or
            ``{name: robgan, steps: 5}`` with the settings of :class:`fastdat.regularizers.ASGAN` and ``RobGAN``. Of
            ``dat`` it takes the bounds; ``dat.real`` and ``dat.fake`` become false.
        dat_generator: whether G's step attacks its fakes too (position (iii) of Table IV), with the last reals of the
            iteration, and how its gradient passes the attack. ``"none"``: G's usual step. ``"pass"``,
            ``"second_order"``, ``"cut"``: see :func:`fastdat.generator_step`; its attack is ``dat``, whatever
            ``dat.real`` and ``dat.fake`` say.
        regularizers: terms of D's loss beside the attack, each a mapping of its name and its settings:
            ``[{name: r1, gamma: 1, every: 16}, {name: lecam}]``; the names are those of
            :data:`fastdat.regularizers.term_registry.TERMS`.
        steps: G steps in total.
        batch_size: reals and fakes per D step, and fakes per G step; at least 2, for batch statistics.
        n_dis: D steps per G step.
        lr, betas: of both Adams; your own optimizers have their own.
        lr_decay: ``"linear"``: the rate after G step t is ``lr * (1 - t / steps)``. ``"none"``: constant.
        cosine: what moves during training, from rates to the weights of regularizers;
            :class:`fastdat.training.cosine.CosineConfig`.
        ema: decay per G step of a running average of G, which is then sampled and scored in place of G; 0: no average.
        init_from: a checkpoint, or a run folder, whose weights of G and D the training starts from; its optimizers and
            its step are not taken over. None: new weights.
        flip: mirror each real left to right with probability 1/2; G then learns mirrored images too.
        augment: what D sees of reals and fakes in all steps. ``"none"``: the images themselves. ``"diffaug"``, or some
            of ``"color,translation,cutout"``: images changed at random; :mod:`fastdat.nets.augmentation`.
        seed: of weights, batches and noise.
        device: ``"auto"`` (CUDA where there is a GPU), ``"cpu"`` or ``"cuda"``.
        compile: compile the steps; the first step then takes a minute or two.
        fakes_at_once: whether G makes the fakes of all ``n_dis`` D steps of an iteration in one pass, with batch norm's
            statistics of each batch: the same up to rounding. ``"auto"``: on a GPU with ``compile``, where G treats
            samples independently otherwise and a quarter of the free memory is enough.
        cuda_graph: on a GPU with ``compile``, replay whole iterations as CUDA graphs: the same numbers, in less time at
            small batches. log.txt says where that is not possible.
        fold: in compiled steps, reorder convolutions beside pools and up-samplings: the same up to rounding, in less
            time.
        precision: ``"fp32"``; ``"bf16"`` for autocast; or ``"auto"``: bf16 on a GPU that computes it, where no
            regularizer needs fp32, and fp32 elsewhere.
        channels_last: memory format of nets and images: true, false, or ``"auto"``: true on a GPU, false for your own
            nets, which stay as they are.
        cudnn_benchmark: while the run trains, ``torch.backends.cudnn.benchmark`` is on: cuDNN times its algorithms for
            each new shape and takes the fastest, which may differ from process to process in rounding. False: PyTorch's
            own setting stays. ``"auto"``: true on a GPU.
        microbatch: real samples, and as many fakes, that D sees at a time: the same gradient in less memory; None: all.
        log_every, sample_every: G steps between lines of stats.jsonl, and between sample grids.
        samples: images in a sample grid.
        checkpoints: :class:`CheckpointConfig`: when they are written, and which are kept.
        on_nan: ``"stop"`` with a report, or ``"rollback"`` to the last checkpoint and go on with other noise, at most
            ``nan_retries`` times.
        hang_timeout: seconds without a step, compilations apart, after which a run of several processes ends, with a
            message that names the one that hangs.
        logger: where numbers and sample grids go beside the files of the run folder: ``"tensorboard"`` (event files in
            it), ``"wandb"`` (Weights & Biases, an optional package), or ``"none"``.
        eval: scores while training; :class:`fastdat.metrics.EvalConfig`.
        monitor: measurements of robustness while training; :class:`fastdat.robustness.MonitorConfig`.

    Raises:
        ConfigError: at construction, for a value of the wrong type or outside its range, or settings that do not fit
            each other.
    """

    model: str | None = None
    dataset: str | None = None
    data: str | None = None
    resolution: PositiveInt = 32
    classes: Annotated[PositiveInt | None, NoneMeans("as the data set has")] = None
    ngf: PositiveInt | None = None
    ndf: PositiveInt | None = None
    nz: PositiveInt = 128
    loss: Literal["hinge", "gan", "lsgan", "wgan", "lsgan-sigmoid", "wgan-sigmoid", "rpgan"] = "hinge"
    dat: DATConfig = field(default_factory=DATConfig)
    attack: Annotated[NamedSettings | None, ReadBy(read_attack)] = None
    dat_generator: Literal["none", "pass", "second_order", "cut"] = "none"
    regularizers: Annotated[tuple[NamedSettings, ...], ReadBy(read_regularizers)] = ()
    steps: PositiveInt = 100_000
    batch_size: Annotated[int, Range(at_least=2)] = 64
    n_dis: PositiveInt = 5
    lr: PositiveFloat = 2e-4
    betas: tuple[_Decay, _Decay] = (0.0, 0.9)
    lr_decay: Literal["linear", "none"] = "linear"
    cosine: CosineConfig = field(default_factory=CosineConfig)
    ema: _Decay = 0.0
    init_from: str | None = None
    flip: bool = False
    augment: Annotated[str, _Policy()] = "none"
    seed: SeedInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = True
    fakes_at_once: Literal["auto"] | bool = "auto"
    cuda_graph: bool = True
    fold: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    channels_last: Literal["auto"] | bool = False
    cudnn_benchmark: Literal["auto"] | bool = False
    microbatch: PositiveInt | None = None
    log_every: PositiveInt = 50
    sample_every: PositiveInt = 500
    samples: PositiveInt = 64
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    on_nan: Literal["stop", "rollback"] = "stop"
    nan_retries: NonNegativeInt = 3
    hang_timeout: PositiveFloat = 600.0
    logger: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    eval: EvalConfig = field(default_factory=EvalConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self) -> None:
        settings.check_fields(self)
        check_fitting(self)
        if self.attack is not None:
            off = dataclasses.replace(self.dat, real=False, fake=False)
            object.__setattr__(self, "dat", off)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings: the content of config.yaml. ``from_dict`` is the inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=dict))
        return plain

    def recorded(self) -> dict[str, Any]:
        """What a run's config.yaml and checkpoints say; without :data:`MAKING` for nets that a user brought along."""
        return {key: value for key, value in self.to_dict().items() if self.model or key not in MAKING}

    def for_own_nets(self) -> tuple[TrainConfig, list[str]]:
        """The settings of a preset without :data:`MAKING`, for nets that a user brings along, and a line for the log
        that says so. Without a model, as it is."""
        made, default = self._making(), TrainConfig()
        if self.model is None:
            return self, []
        words = ", ".join(f"{key}={json.dumps(getattr(self, key))}" for key in made)
        remark = (
            f"nets, optimizers and reals are given: {words} made none of them, and the run records none of it"
        )
        return self.replace({key: getattr(default, key) for key in made}), [remark]

    def refuse_unused(self) -> None:
        """Check that no setting is changed that has no effect for nets that a user brings along.

        Raises:
            ConfigError: one of :data:`MAKING` is set.
        """
        unused = self._making()
        if unused:
            raise ConfigError(
                f"{', '.join(unused)} would have no effect: nets, optimizers and reals are given. Set it where they "
                "are made."
            )

    def _making(self) -> list[str]:
        """Those of :data:`MAKING` that are set."""
        default = TrainConfig()
        return [key for key in MAKING if getattr(self, key) != getattr(default, key)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A config with these values, and defaults for the rest.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        return cls().replace(values)

    def replace(self, changes: Mapping[str, Any]) -> TrainConfig:
        """A copy with ``changes``; ``"dat.eps"`` and ``{"dat": {"eps": ...}}`` reach the inner settings.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        changed: TrainConfig = settings.replace(self, changes)
        return changed


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"key=value"`` from the command line -> key and value. A list or mapping may be YAML, with texts without quotes;
    another value that is not JSON is a text.

    Raises:
        ConfigError: there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"expected key=value, for example lr=1e-4 or dat.eps=0.5, got {text!r}")
    value = {"True": "true", "False": "false", "None": "null"}.get(value.strip(), value.strip())
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        pass
    if value[:1] in ("[", "{"):
        with suppress(plain_yaml.PlainYamlError):
            return key.strip(), plain_yaml.loads(value, plain_yaml.NUMBER)
    return key.strip(), value
