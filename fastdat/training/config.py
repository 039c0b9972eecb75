"""Settings of a training run: one frozen dataclass, checked when made, the same in Python, YAML and ``--set``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastdat.config import DATConfig
from fastdat.training.errors import ConfigError

_MINIMUM = {
    "resolution": 1,
    "ngf": 1,
    "ndf": 1,
    "nz": 1,
    "steps": 1,
    "batch_size": 2,  # batch statistics of one sample mean nothing
    "n_dis": 1,
    "seed": 0,
    "microbatch": 1,
    "log_every": 1,
    "sample_every": 1,
    "samples": 1,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is trained, on what, how and on which device. A step is one G step, after ``n_dis`` D steps.

    Args:
        model: a key of :data:`fastdat.training.build.MODELS`.
        dataset: a key of :data:`fastdat.data.registry.TRAIN_READERS`.
        resolution: height and width of the images.
        ngf, ndf: full width of G and D in channels; None is the paper's.
        nz: length of z.
        loss: a name of :data:`fastdat.losses.LOSSES`.
        dat: the attack; :class:`fastdat.DATConfig`. ``real=False, fake=False`` is the plain GAN, same engine.
        steps: G steps in total.
        batch_size: samples a side in every D step, and z's in every G step.
        n_dis: D steps a G step.
        lr, betas: of both Adams.
        lr_decay: ``"linear"``: after G step t the rate is ``lr * (1 - t / steps)``. ``"none"``: constant.
        flip: mirror reals left to right with probability 1/2.
        seed: of weights, batches and noise.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        compile: compile the steps; the first step then takes a minute or two.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        channels_last: memory format of nets and images.
        microbatch: D's samples a side at a time, for the same gradient in less memory; None is the whole batch.
        log_every, sample_every: G steps between lines of stats.jsonl and between sample grids.
        samples: images in a sample grid.

    Raises:
        ConfigError: a value of another type or outside its range, at construction.
    """

    model: str = "sngan"
    dataset: str = "cifar10"
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

    def __post_init__(self) -> None:
        for name, hint in _hints(TrainConfig).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        for name, minimum in _MINIMUM.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {value!r}")
        if not self.lr > 0:
            raise ConfigError(f"lr must be positive, got {self.lr!r}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must lie in [0, 1), got {list(self.betas)!r}")

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
        """This config with ``changes``; ``"dat.eps"`` and ``{"dat": {"eps": ...}}`` reach the attack's settings.

        Raises:
            ConfigError: an unknown key, or a bad value.
        """
        own, attack = {}, {}
        for key, value in changes.items():
            if key.startswith("dat."):
                attack[key.removeprefix("dat.")] = value
            elif key == "dat" and isinstance(value, Mapping):
                attack.update(value)
            else:
                own[key] = value
        _refuse_unknown(own, TrainConfig, prefix="")
        _refuse_unknown(attack, DATConfig, prefix="dat.")
        if attack:
            hints = _hints(DATConfig)
            attack = {key: _checked(f"dat.{key}", value, hints[key]) for key, value in attack.items()}
            try:
                own["dat"] = dataclasses.replace(own.get("dat", self.dat), **attack)
            except (TypeError, ValueError) as error:
                raise ConfigError(str(error)) from error
        return dataclasses.replace(self, **own)


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


def _refuse_unknown(values: Mapping[str, Any], of: type, prefix: str) -> None:
    known = [f.name for f in dataclasses.fields(of)]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"unknown setting {prefix}{key}; there are: {', '.join(prefix + k for k in known)}"
            )


def _hints(of: type) -> dict[str, Any]:
    return get_type_hints(of)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the type ``hint``: ints where floats are due, lists where tuples are due.

    Raises:
        ConfigError: it is not of that type.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        (hint,) = (option for option in options if option is not NoneType)
        return _checked(name, value, hint)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(f"{name} must be one of {', '.join(map(str, options))}; got {value!r}")
    if origin is tuple:
        if isinstance(value, list | tuple) and len(value) == len(options):
            return tuple(_checked(name, item, option) for item, option in zip(value, options, strict=True))
        raise ConfigError(f"{name} must be {len(options)} numbers, [a, b]; got {value!r}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise ConfigError(f"{name} must be {_IN_WORDS.get(hint, hint.__name__)}; got {value!r}")
    return value


_IN_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a name"}
