"""Regularizers and attacks of a run: read from its settings, and made once for all of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastdat.config import AttackConfig
from fastdat.nets.augmentation import Augmented
from fastdat.regularizers.sign_attacks import SignAttack
from fastdat.regularizers.term import Bounds, Pair, Term
from fastdat.regularizers.term_registry import ATTACKS, make_term, parse_terms, plain, read_term
from fastdat.util.errors import ConfigError
from fastdat.util.named_settings import NamedSettings
from fastdat.util.settings import FieldTypeError, nearest

if TYPE_CHECKING:
    from fastdat.training.train_config import TrainConfig


def read_attack(field: str, value: Any) -> NamedSettings | None:
    """The settings of an attack, completed by the defaults.

    Args:
        field: their name in messages.
        value: a mapping with a name of :data:`fastdat.regularizers.term_registry.ATTACKS`, or None.

    Raises:
        FieldTypeError, ConfigError: it is neither, the name or a setting is unknown, or a value is wrong.
    """
    if value is None:
        return None
    example = "for example {name: robgan, steps: 5}"
    if not isinstance(value, Mapping):
        raise FieldTypeError(
            f"{field} must be a mapping with a name, {example}, or None (null in YAML and --set) for DAT; got {value!r}"
        )
    values = dict(value)
    name = values.pop("name", None)
    if not isinstance(name, str) or name not in ATTACKS:
        raise ConfigError(
            f"{field} needs one of the names {', '.join(ATTACKS)}, {example}; got {dict(value)!r}. DAT itself is set "
            "by dat, without an attack"
        )
    known = [entry.name for entry in dataclasses.fields(_class(name)) if entry.name != "bounds"]
    for key in values:
        if key not in known:
            hint = "Its bounds are dat.bounds. " if key == "bounds" else nearest(str(key), known)
            raise ConfigError(f"unknown setting {field}.{key}. {hint}{name} has: {', '.join(known)}")
    made: Any = _attack(field, NamedSettings({"name": name, **values}), (-1.0, 1.0))
    return NamedSettings({"name": name, **{key: getattr(made, key) for key in known}})


def attack_of(config: TrainConfig) -> AttackConfig:
    """The attack of a run, with the bounds of its data.

    Raises:
        ConfigError: it needs a setting where the data have no bounds.
    """
    if config.attack is None:
        return config.dat
    attack: Any = _attack("attack", config.attack, config.dat.bounds)
    found: AttackConfig = attack
    return found


def _attack(field: str, settings: NamedSettings, bounds: Bounds) -> SignAttack:
    try:
        made: SignAttack = _class(settings.name)(bounds=bounds, **settings.settings)
    except (TypeError, ValueError) as error:
        text = str(error).replace(f"{ATTACKS[settings.name].__name__}.", f"{field}.")
        kind = FieldTypeError if isinstance(error, TypeError) else ConfigError
        raise kind(text.replace("bounds is None", "dat.bounds is None")) from None
    return made


def _class(name: str) -> Any:
    return ATTACKS[name]


def read_regularizers(field: str, value: Any) -> tuple[NamedSettings, ...]:
    """The settings of all regularizers, each completed by the defaults.

    Args:
        field: their name in messages.
        value: a list of mappings, each with a name of :data:`fastdat.regularizers.term_registry.TERMS`.

    Raises:
        FieldTypeError, ConfigError: it is no such list, a name or a setting is unknown, or a value is wrong.
    """
    return tuple(NamedSettings(plain(description)) for description in parse_terms(value, field))


class Regularizers:
    """The terms of a run, made once for all of its steps.

    Args:
        config: of the run.
        device: of D.

    Attributes:
        terms: for ``dat_step``.
        strengths: where the weights move during training, the tensor that each term holds as its weight, with its value
            at the start.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.strengths: list[tuple[Tensor, float]] = []
        self.terms: tuple[Term, ...] = tuple(
            self._made(settings, config, device) for settings in config.regularizers
        )

    def _made(self, settings: NamedSettings, config: TrainConfig, device: torch.device) -> Term:
        values = dict(settings)
        if config.augment != "none" and "path" in values:
            values["path"] = f"D.{values['path']}"  # the D of a step has the augmentation around it
        description = read_term(values)
        strength = None
        if config.cosine.regularizers is not None:
            start = values[description.strength]
            strength = torch.tensor(start, device=device)
            self.strengths.append((strength, start))
        term = make_term(description, strength)
        return term.to(device) if isinstance(term, nn.Module) else term

    def turn(self, step: int) -> int:
        """The first step in which the same terms take part as in D step ``step``: steps of one turn do the same."""
        every = [term.every for term in self.terms]
        due = [step % n == 0 for n in every]
        return next(turn for turn in range(step + 1) if [turn % n == 0 for n in every] == due)

    def draws(self, step: int, x: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], ...]:
        """What each term that takes part in D step ``step`` draws from ``generator``, one after another, for samples
        like ``x`` (N, ...) a side."""
        return tuple(term.draws(Pair(x, x), generator) for term in self.terms if step % term.every == 0)

    def check_paths(self, D: nn.Module) -> None:
        """Refuse terms that look at a submodule that ``D``, as a step is given it, does not have.

        Raises:
            ConfigError: with the names of those that it has.
        """
        around = ""
        if isinstance(D, Augmented):
            D, around = D.D, "D."
        known = [name for name, _ in D.named_modules() if name and ".parametrizations" not in name]
        for term in self.terms:
            path = term.needs.features
            if path is not None and path.removeprefix(around) not in known:
                path = path.removeprefix(around)
                raise ConfigError(
                    f"regularizers: {term.name} looks at {path!r} in D, which has no such submodule. "
                    f"{nearest(path, known)}There are: {', '.join(known)}"
                )

    def to_checkpoint(self) -> list[dict[str, Tensor]]:
        """What the terms keep from step to step, a dict for each."""
        return [dict(term.state()) for term in self.terms]

    def restore(self, saved: list[dict[str, Tensor]], path: Path) -> None:
        """Take over, in place, what :meth:`to_checkpoint` returned and the checkpoint ``path`` holds.

        Raises:
            ConfigError: it belongs to other regularizers.
        """
        shapes = [{name: tensor.shape for name, tensor in state.items()} for state in saved]
        now = [{name: tensor.shape for name, tensor in term.state().items()} for term in self.terms]
        if shapes != now:
            raise ConfigError(
                f"{path} belongs to other regularizers: it holds {shapes} for them, expected {now}"
            )
        for term, state in zip(self.terms, saved, strict=True):
            for name, tensor in term.state().items():
                tensor.copy_(state[name])
