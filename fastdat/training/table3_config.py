"""The settings of Table III's cells: three losses, each with DAT and with what the paper compares it with."""

from __future__ import annotations

from typing import Any

from fastdat.config import DATConfig
from fastdat.metrics.eval_config import EvalConfig
from fastdat.nets.table3_nets import PHI
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError

LOSSES = ("gan", "lsgan", "wgan", "lsgan-sigmoid", "wgan-sigmoid")
"""The losses on D's raw logits, and those on their sigmoid, as in the code base that the paper names; with ``"gan"``
the two are one."""

STEP_ORDER = (
    "The code base updates G before D and takes one set of fakes for both; fastdat updates D first and draws fakes for "
    "each net."
)
"""How a step of the code base that the paper names differs from fastdat's."""

_OFF = DATConfig(real=False, fake=False)
# The code base has one D step for each G step, and 1000 iterations in each of 100 epochs.
_SHARED: dict[str, Any] = {
    "model": "table3",
    "dataset": "cifar10",
    "resolution": 32,
    "nz": 128,
    "batch_size": 64,
    "lr": 1e-4,
    "betas": (0.5, 0.999),
    "lr_decay": "none",
    "n_dis": 1,
    "steps": 100_000,
    "precision": "fp32",
    "channels_last": "auto",
    "cudnn_benchmark": "auto",
    "eval": EvalConfig(every=10_000, fakes=10_000),
}


def _term(name: str, **settings: Any) -> dict[str, Any]:
    return {"dat": _OFF, "regularizers": ({"name": name, **settings},)}


_ARMS: dict[str, dict[str, Any]] = {
    "none": {"dat": _OFF},
    "gp": _term("gp"),
    "lp": _term("lp"),
    "0gp": _term("0gp", at="real"),
    "ar": _term("ar"),
    "rfm": _term("rfm", path=PHI),
    "asgan": {"attack": {"name": "asgan"}},
    "dat": {"dat": DATConfig()},
    "datt": {"dat": DATConfig(clean_weight=1.0)},
    "dat-2nd": {"dat": DATConfig(second_order=True)},
}

ARMS = tuple(_ARMS)
"""The columns of Table III from left to right, and DAT of second order, which the paper does not have."""


def table3_config(loss: str, arm: str) -> TrainConfig:
    """Settings for one cell of Table III (Sec. IV-C).

    The paper gives z of length 128, batches of 64, Adam with 1e-4 and (0.5, 0.999), and ASGAN with 1/255 of the
    range on both sides. It names a code base for the rest, from which one D step for each G step and 100,000 steps
    and FID of 10,000 fakes are taken; the nets are our reduction of its nets (:mod:`fastdat.nets.table3_nets`). Its
    step differs from fastdat's: it updates G before D and takes one set of fakes for both. No weight of a regularizer
    is printed: each has that of its source, 10 (``fastdat.regularizers``), and 0-GP is on the reals. AR compares
    the sigmoid of D's logits where the loss uses it, else the logits.

    All cells are computed in fp32, on a GPU too: AR and RFM need it, and the cells are compared with each other.

    Args:
        loss: one of :data:`LOSSES`.
        arm: one of :data:`ARMS`.

    Raises:
        ConfigError: another loss or arm.
    """
    if loss not in LOSSES:
        raise ConfigError(f"Table III has no loss {loss!r}: choose one of {', '.join(LOSSES)}")
    if arm not in _ARMS:
        raise ConfigError(f"Table III has no arm {arm!r}: choose one of {', '.join(ARMS)}")
    settings = _SHARED | {"loss": loss} | _ARMS[arm]
    if arm == "ar":
        settings |= _term("ar", of="logits" if loss in ("lsgan", "wgan") else "output")
    return TrainConfig(**settings)
