"""The files of a study that runs: one for each arm, so that a killed study goes on where it was.

An arm's file holds its settings, its measurements and, until the arm is finished, the state of its ensemble. It is
replaced whole after each measurement.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastdat.data import torch_file
from fastdat.experiments.points.ensemble import Attack, Recipe
from fastdat.experiments.points.study import MEASURED, SHOWN, Measurement, Study, Times
from fastdat.experiments.training_origin import Origin
from fastdat.metrics.modes import Coverage
from fastdat.regularizers.term_registry import plain
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically

_FOLDER = "states"


@dataclass(frozen=True)
class ArmState:
    """How far an arm is.

    Args:
        measurements: so far.
        times: so far.
        ensemble: of :meth:`fastdat.experiments.points.ensemble.Ensemble.state`; None once the arm is finished.
        origin: of the training so far.
    """

    measurements: tuple[Measurement, ...] = ()
    times: Times = Times()  # noqa: RUF009  it is frozen
    ensemble: Mapping[str, Any] | None = None
    origin: Origin = Origin()  # noqa: RUF009  it is frozen


class ArmFile:
    """The file of an arm.

    Args:
        folder: of the study; the file lies in ``states`` below it.
        study: what is compared.
        name: of the arm.
        compiled: whether its steps are compiled.
        device: where it is trained.
    """

    def __init__(self, folder: Path, study: Study, name: str, compiled: bool, device: torch.device) -> None:
        self._settings = _settings(study, name, compiled, device)
        self._folder, self.path = (
            folder,
            folder / _FOLDER / f"{_file_name(study.name)}--{_file_name(name)}.pt",
        )

    def read(self) -> ArmState:
        """How far an earlier process came.

        Raises:
            RunFolderError: the file belongs to other settings, or cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ArmState()
        except OSError as error:
            raise RunFolderError(f"cannot read {self.path}: {error.strerror or error}") from error
        try:
            torch_file.check(io.BytesIO(content))
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            settings = json.loads(found["settings"])
            state = ArmState(
                tuple(_measurement(record) for record in found["measurements"]),
                Times(**found["times"]),
                found["ensemble"],
                Origin(
                    *(tuple(found.get(key, ())) for key in ("commits", "machines"))
                ),  # older files have none
            )
        except Exception as error:  # torch.load raises errors of many kinds for a damaged file
            raise RunFolderError(
                f"{self.path} is damaged ({type(error).__name__}): delete it, and its arm is trained again"
            ) from error
        self._check(settings)
        return state

    def write(self, state: ArmState) -> None:
        """Replace the file.

        Raises:
            RunFolderError: it cannot be written.
        """
        content = io.BytesIO()
        record = {
            "settings": json.dumps(self._settings),
            "measurements": [_record(m) for m in state.measurements],
            "times": asdict(state.times),
            "ensemble": state.ensemble,
            "commits": list(state.origin.commits),
            "machines": list(state.origin.machines),
        }
        torch.save(record, content)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, content.getvalue())
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Equal settings give equal numbers; numbers of different ones must not stand in one table."""
        ours = self._settings
        names = [name for name in {**ours, **settings} if ours.get(name) != settings.get(name)]
        if names:
            there, here = ({name: s.get(name) for name in names} for s in (settings, ours))
            raise RunFolderError(
                f"{self._folder} holds {ours['arm']!r} with other settings: {_words(there)} there, {_words(here)} now. "
                f"Give another folder (--outdir), or delete {self._folder / _FOLDER} to start again"
            )


def attack_record(attack: Attack) -> dict[str, Any]:
    """An attack in types that JSON knows."""
    return {"kind": type(attack).__name__, **asdict(attack)}


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Nets and training in types that JSON knows."""
    fields = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    fields["regularizers"] = [plain(term) for term in recipe.regularizers]
    return {name: attack_record(v) if hasattr(v, "attacks") else v for name, v in fields.items()}


def _settings(study: Study, name: str, compiled: bool, device: torch.device) -> dict[str, Any]:
    settings = {
        "study": study.name,
        "arm": name,
        "iterations": study.iterations,
        "seeds": study.seeds,
        "attack": attack_record(study.arms[name]),
        "recipe": recipe_record(study.recipe_of(name)),
        "mixtures": {m.name: m.probabilities for m in study.mixtures},
        "measurements": study.measurements,
        "checkpoints": study.checkpoints,
        "points": [MEASURED, SHOWN],
        "compiled": compiled,
        "device": device.type,
        "torch": str(torch.__version__),
    }
    plain_settings: dict[str, Any] = json.loads(json.dumps(settings))  # tuples are lists in the file
    return plain_settings


def _words(settings: Mapping[str, Any]) -> str:
    """The first differing setting; where it is a group or a list, its name says enough."""
    name, value = next(iter(settings.items()))
    return f"{name} = {value}" if not isinstance(value, dict | list) else f"{name} {json.dumps(value)}"


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _record(measurement: Measurement) -> dict[str, Any]:
    return {
        "iteration": measurement.iteration,
        "coverage": {name: vars(found) for name, found in measurement.coverage.items()},
        "points": measurement.points,
    }


def _measurement(record: Mapping[str, Any]) -> Measurement:
    coverage = {name: Coverage(**found) for name, found in record["coverage"].items()}
    return Measurement(record["iteration"], coverage, record["points"])
