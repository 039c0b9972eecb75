"""Settings of a training run: one frozen dataclass, checked when made, the same in Python, YAML and ``--set``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fastdat.config import DATConfig
from fastdat.metrics.eval_config import EvalConfig
from fastdat.util import settings
from fastdat.util.errors import ConfigError

#: What nets, optimizers and data are made from: it says nothing of those that a user brings along.
MAKING = ("model", "dataset", "data", "resolution", "ngf", "ndf", "lr", "betas")

_MINIMUM = {
    "resolution": 1,
    "ngf": 1,
    "ndf": 1,
    "nz": 1,
    "steps": 1,
    "batch_size": 2,  # batch statistics of one sample mean nothing
    "n_dis": 1,
    "ema": 0,
    "seed": 0,
    "microbatch": 1,
    "log_every": 1,
    "sample_every": 1,
    "samples": 1,
    "checkpoint_every": 1,
    "nan_retries": 0,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is trained, on what, how and on which device. A step is one G step, after ``n_dis`` D steps.

    Args:
        model: a key of :data:`fastdat.training.models.MODELS`; None for nets of one's own.
        dataset: a key of :data:`fastdat.data.registry.DATASETS`, or a mixture of :data:`fastdat.data.mixture.MIXTURES`;
            None for reals of one's own.
        data: where it lies: a packed store, or the folder with the publisher's files.
        resolution: height and width of the images.
        ngf, ndf: full width of G and D in channels; None is the paper's.
        nz: length of z.
        loss: a name of :data:`fastdat.losses.LOSSES`.
        dat: the attack; :class:`fastdat.DATConfig`. ``real=False, fake=False`` is the plain GAN, same engine.
        steps: G steps in total.
        batch_size: samples a side in every D step, and z's in every G step.
        n_dis: D steps a G step.
        lr, betas: of both Adams; optimizers of one's own have their own.
        lr_decay: ``"linear"``: after G step t the rate is ``lr * (1 - t / steps)``. ``"none"``: constant.
        ema: decay a G step of a running average of G, which then is sampled and evaluated in G's place; 0 is none.
        flip: mirror reals left to right with probability 1/2.
        seed: of weights, batches and noise.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        compile: compile the steps; the first step then takes a minute or two.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        channels_last: memory format of nets and images.
        microbatch: D's samples a side at a time, for the same gradient in less memory; None is the whole batch.
        log_every, sample_every: G steps between lines of stats.jsonl and between sample grids.
        samples: images in a sample grid.
        checkpoint_every: G steps between checkpoints.
        on_nan: ``"stop"`` with a report, or ``"rollback"`` to the last checkpoint and go on with other noise, at most
            ``nan_retries`` times.
        tensorboard: write TensorBoard events too.
        eval: scores while training; :class:`fastdat.metrics.EvalConfig`.

    Raises:
        ConfigError: a value of another type or outside its range, at construction.
    """

    model: str | None = None
    dataset: str | None = None
    data: str | None = None
    resolution: int = 32
    ngf: int | None = None
    ndf: int | None = None
    nz: int = 128
    loss: Literal["hinge", "gan", "lsgan", "wgan"] = "hinge"
    dat: DATConfig = field(default_factory=DATConfig)
    steps: int = 100_000
    batch_size: int = 64
    n_dis: int = 5
    lr: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.9)
    lr_decay: Literal["linear", "none"] = "linear"
    ema: float = 0.0
    flip: bool = False
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    microbatch: int | None = None
    log_every: int = 50
    sample_every: int = 500
    samples: int = 64
    checkpoint_every: int = 1000
    on_nan: Literal["stop", "rollback"] = "stop"
    nan_retries: int = 3
    tensorboard: bool = True
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        settings.check_fields(self, _MINIMUM)
        if not self.lr > 0:
            raise ConfigError(f"lr must be positive, got {self.lr!r}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must lie in [0, 1), got {list(self.betas)!r}")
        if not self.ema < 1:
            raise ConfigError(f"ema, the average's decay a step, must lie in [0, 1), got {self.ema!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers, strings: what config.yaml holds. ``from_dict`` is its inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The config with these values and the defaults for the rest.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        return cls().replace(values)

    def replace(self, changes: Mapping[str, Any]) -> TrainConfig:
        """This config with ``changes``; ``"dat.eps"`` and ``{"dat": {"eps": ...}}`` reach the inner settings.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        changed: TrainConfig = settings.replace(self, changes)
        return changed


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"key=value"`` of the command line -> key and value; the value is JSON where it is JSON, else a string.

    Raises:
        ConfigError: no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"expected key=value, for example lr=1e-4 or dat.eps=0.5, got {text!r}")
    value = {"True": "true", "False": "false", "None": "null"}.get(value.strip(), value.strip())
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value
