"""How a run's settings differ from those behind the paper's Table II, and which known attack its attack is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdat.report.runs import RunRecord
from fastdat.report.table2 import RESOLUTIONS

#: The settings that change the result and that all runs of the paper share (Table I; Sec. IV-A).
SETTINGS: Mapping[str, Any] = {
    "ngf": None,
    "ndf": None,
    "nz": 128,
    "loss": "hinge",
    "dat_generator": "none",
    "batch_size": 64,
    "n_dis": 5,
    "lr": 2e-4,
    "betas": [0.0, 0.9],
    "ema": 0.0,
    "init_from": None,
    "flip": False,
    "augment": "none",
    "precision": "fp32",
    "cosine.steps": None,
    "cosine.lr": None,
    "cosine.beta2": None,
    "cosine.regularizers": None,
    "cosine.ema_halflife": False,
}

_DEFAULT: Mapping[str, Any] = {
    "dat.seed": "logits",
    "dat.reduction": "batch",
    "dat.eps": 1.0,
    "dat.eps_batch": 64,
    "dat.delta_clip": 1.0,
    "dat.bounds": [-1.0, 1.0],
    "dat.clip_real": True,
    "dat.steps": 1,
    "dat.second_order": False,
    "dat.real": True,
    "dat.fake": True,
    "dat.clean_weight": 0.0,
    "dat.power_iterations": "once",
}
EQ10, RELEASED, DEFAULT = "Eq. 10", "the released code's", "fastdat's default"
#: The attacks that are known by a name: ``DATConfig.paper()``, ``.official()`` and ``DATConfig()``.
ATTACKS: Mapping[str, Mapping[str, Any]] = {
    EQ10: {
        **_DEFAULT,
        "dat.seed": "eq10",
        "dat.reduction": "sample",
        "dat.eps_batch": 1,
        "dat.delta_clip": None,
    },
    RELEASED: {
        **_DEFAULT,
        "dat.eps_batch": None,
        "dat.clip_real": False,
        "dat.power_iterations": "per_forward",
    },
    DEFAULT: _DEFAULT,
}
_ATTACK_OF = {
    EQ10: "that of Eq. 10",
    RELEASED: "the attack of the released code",
    DEFAULT: "fastdat's default",
}
_STEPS = 100_000
_UNSET = {"ngf": "the full width", "ndf": "the full width", "dat.delta_clip": "no limit"}


def differences(run: RunRecord) -> list[str]:
    """How a run's settings and number of steps differ from Table I's, one sentence part for each difference."""
    dataset = str(run.config.get("dataset"))
    expected: dict[str, Any] = {
        **SETTINGS,
        "resolution": RESOLUTIONS.get(dataset),
        "lr_decay": "none" if dataset == "tiny-imagenet" else "linear",
    }
    differing = [
        f"{key} is {_text(key, run.config[key])}, the paper's is {_text(key, value)}"
        for key, value in expected.items()
        if key in run.config and run.config[key] != value
    ]
    if run.done != _STEPS:
        differing.append(f"{run.done:,} steps, the paper's are {_STEPS:,}")
    elif run.total not in (None, _STEPS):
        differing.append(f"{run.total:,} steps were planned, the paper's are {_STEPS:,}")
    return differing


def attack_sentences(run: RunRecord) -> list[str]:
    """Which known attack a run's is, and how it differs from each of the others; empty for a run without DAT.

    The paper has two attacks, which are not the same: that of its Eq. 10, and that of its released code.
    """
    if not run.attacks:
        return []
    batch = run.config.get("batch_size")
    differing = {name: _differing(run.config, reference, batch) for name, reference in ATTACKS.items()}
    same = [name for name, parts in differing.items() if not parts]
    first = (
        f"The attack is {same[0]}." if same else f"The attack is none of {EQ10}, {RELEASED} and {DEFAULT}."
    )
    others = [f"Unlike {_ATTACK_OF[name]}: {', '.join(parts)}." for name, parts in differing.items() if parts]
    return [first, *others]


def _differing(config: Mapping[str, Any], reference: Mapping[str, Any], batch: object) -> list[str]:
    """Sentence parts; ``eps_batch=None`` is the batch size, so that equal attacks count as equal."""

    def divisor(settings: Mapping[str, Any]) -> object:
        found = settings["dat.eps_batch"]
        return batch if found is None else found

    return [
        f"{key} is {_text(key, config[key])} instead of {_text(key, value)}"
        for key, value in reference.items()
        if key in config
        and config[key] != value
        and not (key == "dat.eps_batch" and divisor(config) == divisor(reference))
    ]


def _text(key: str, value: object) -> str:
    if key == "dat.eps_batch" and value is None:
        return "the batch size"
    return _UNSET.get(key, "none") if value is None else str(value)
