"""Names of the numbers in stats.jsonl, and the names that loggers give them: ``group/name``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdat.util.monitor_names import MONITORED
from fastdat.util.term_names import is_of_term, term_of

TAGS = {
    "loss_d": "loss/D",
    "loss_g": "loss/G",
    "logits_real": "logits/real",
    "logits_fake": "logits/fake",
    "clean_logits_real": "logits/real_clean",
    "clean_logits_fake": "logits/fake_clean",
    "penalty_fraction": "attack/penalty_fraction",
    "delta_rms_real": "attack/delta_rms_real",
    "delta_rms_fake": "attack/delta_rms_fake",
    "grad_norm_real": "attack/grad_norm_real",
    "grad_norm_fake": "attack/grad_norm_fake",
    "clipped_real": "attack/clipped_real",
    "clipped_fake": "attack/clipped_fake",
    "it_per_s": "speed/it_per_s",
    "lr": "speed/lr",
}
"""Name in stats.jsonl -> name in a logger, for all numbers that training measures by itself."""

RESERVED = frozenset({"step", "seconds", *TAGS})
"""The names that training uses in lines of stats.jsonl, apart from those of regularizers."""


def reserved(name: str) -> bool:
    """Whether training itself uses this name in lines of stats.jsonl."""
    return name in RESERVED or is_of_term(name)


def own(stats: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a line of stats.jsonl that a user's callbacks measured."""
    return {name: value for name, value in stats.items() if not (reserved(name) or name in MONITORED)}


def tagged(stats: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a line of stats.jsonl under the names that loggers give them."""
    known = {TAGS[name]: value for name, value in stats.items() if name in TAGS}
    terms = {
        f"regularizers/{term}{'_grad_norm' * norm}": value
        for name, value in stats.items()
        if is_of_term(name)
        for term, norm in [term_of(name)]
    }
    monitored = {f"robustness/{name}": value for name, value in stats.items() if name in MONITORED}
    return known | terms | monitored | {f"own/{name}": value for name, value in own(stats).items()}


def tagged_scores(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores of a line of metrics.jsonl under the names that loggers give them; None stays."""
    about = f"{record['split']} [{record['extractor']}]"
    return {f"scores/{name}_{about}": value for name, value in record["scores"].items()}
