"""The generator of a run, to be sampled and scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.metrics.evaluators import Progress, Record, keep_going
from fastdat.training import noise, scoring
from fastdat.training.build import build_evaluator, choose_device
from fastdat.training.config_file import EXTRACTOR, gives_extractor, refuse_code
from fastdat.training.models import classes_of, model_of
from fastdat.training.noise import Noise
from fastdat.training.sampling import from_latents
from fastdat.training.saved_nets import read_nets
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.settings import nearest
from fastdat.util.words import some

MOST_SAMPLES = 1_000_000
"""Of one call: their latents lie in memory together (0.5 GB)."""


@dataclass(frozen=True)
class Trained:
    """A generator and its origin.

    Args:
        net: G or its running average, on ``device``.
        weights: ``"G"`` or ``"ema"``.
        config: of the run.
        step: G steps that it was trained for.
        classes: number of classes; 0 for a generator without labels.
        device: where it generates.
        class_names: the classes' names, by label; empty where they are unknown.
        extractor_from: the file that says ``config.eval.extractor``; None if the caller says it.
    """

    net: nn.Module
    weights: str
    config: TrainConfig
    step: int
    classes: int
    device: torch.device
    class_names: tuple[str, ...] = ()
    extractor_from: Path | None = None

    def noise(self, seed: int) -> Noise:
        """Draws latents and labels for this generator."""
        return Noise(self.config.nz, seed=seed, device=self.device, classes=self.classes)

    def samples(self, count: int, seed: int = 0, label: int | None = None) -> Iterator[Tensor]:
        """``count`` samples in batches: images (n, C, H, W) in [-1, 1], or points (n, 2).

        Args:
            count: number of samples.
            seed: of latents and labels.
            label: class of all samples; None: random classes.

        Raises:
            ConfigError: the generator does not take this label, or ``count`` is above :data:`MOST_SAMPLES`.
        """
        if count > MOST_SAMPLES:
            raise ConfigError(
                f"{count:,} samples are more than can be drawn at once; the most are {MOST_SAMPLES:,}. Draw more with "
                "several seeds"
            )
        draws = self.noise(seed)
        labels = draws.labels(noise.COMMAND, 0, count) if label is None else self._repeated(label, count)
        return from_latents(self.net, draws.draw(noise.COMMAND, 0, count), labels, self._batch_size)

    def interpolations(self, rows: int, steps: int, seed: int = 0, label: int | None = None) -> Tensor:
        """``rows`` walks of ``steps`` samples, each between two latents: (rows, steps, ...).

        Raises:
            ConfigError: the generator does not take this label.
        """
        draws = self.noise(seed)
        ends = draws.draw(noise.COMMAND, 1, 2 * rows)
        z = between(ends[:rows], ends[rows:], steps).flatten(0, 1)
        labels: tuple[Tensor, ...] = ()
        if label is not None:
            labels = self._repeated(label, len(z))
        elif self.classes:
            labels = (draws.labels(noise.COMMAND, 1, rows)[0].repeat_interleave(steps),)
        samples = torch.cat(list(from_latents(self.net, z, labels, self._batch_size)))
        return samples.reshape(rows, steps, *samples.shape[1:])

    def class_number(self, given: str) -> int:
        """The label of a class that is given by its name or by its number.

        Raises:
            ConfigError: there is no such class.
        """
        if given in self.class_names:
            return self.class_names.index(given)
        if given.isdecimal() and int(given) < self.classes:
            return int(given)
        if not self.classes:
            raise ConfigError(f"model {self.config.model} has no classes; got class {given}")
        first = some(self.class_names)
        raise ConfigError(
            f"there is no class {given!r}. {nearest(given, self.class_names)}Give its number, 0 to {self.classes - 1}"
            + (f", or its name: {first}" if first else "")
        )

    def evaluate(self, progress: Progress = keep_going) -> list[Record] | None:
        """The scores that ``config.eval`` asks for.

        Args:
            progress: as in :class:`fastdat.metrics.evaluators.Evaluator`.

        Returns:
            One record per split; None if ``progress`` asked to stop.

        Raises:
            ConfigError, DataError: what is needed is missing.
            ConfigError: the run's own settings name code as the extractor, which only :func:`load_trained`'s
                ``settings`` may.
        """
        settings = self.config.eval
        if self.extractor_from is not None and "modes" not in settings.metrics:  # modes need no extractor
            refuse_code(settings.extractor, self.extractor_from, f"{EXTRACTOR}={settings.extractor}")
        evaluator = build_evaluator(self.config, self.device, progress=progress, class_names=self.class_names)
        evaluator.prepare()
        about = {"step": self.step, "weights": self.weights, "by": "eval"}
        return scoring.score(evaluator, self.net, settings, self.noise(settings.seed), about, progress)

    @property
    def _batch_size(self) -> int:
        return self.config.eval.batch_size

    def _repeated(self, label: int, count: int) -> tuple[Tensor, ...]:
        if not 0 <= label < self.classes:
            takes = f"labels from 0 to {self.classes - 1}" if self.classes else "no labels"
            raise ConfigError(f"model {self.config.model} takes {takes}; got {label}")
        return (torch.full((count,), label, device=self.device),)


def load_trained(
    run: str | Path,
    which: str = "latest",
    *,
    ema: bool = True,
    device: str = "auto",
    settings: dict[str, Any] | None = None,
) -> Trained:
    """The generator of a run.

    Args:
        run: run folder, or a checkpoint file.
        which: ``"latest"``, ``"best"``, ``"step-000500"`` or the path of a checkpoint.
        ema: take the running average if the run has one.
        device: as in :class:`TrainConfig`.
        settings: changes to the run's configuration, for example to ``eval`` or ``data``.

    Raises:
        RunFolderError: there is no run or no such checkpoint, it is damaged or of another run, or the nets are not
            fastdat's.
        ConfigError: bad settings, or no such device.
    """
    where = choose_device(device)
    saved = read_nets(Path(run), which, ema=ema)
    config = saved.config.replace(settings or {})
    net = saved.G.to(where).requires_grad_(False)
    classes = classes_of(config) if model_of(config).conditional else 0
    source = None if gives_extractor(settings or {}) else saved.settings_file
    return Trained(net, saved.weights, config, saved.step, classes, where, saved.class_names, source)


def between(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Walks (N, steps, nz) from ``start`` to ``end`` (N, nz) along a sphere, close to which samples of N(0, I) lie."""
    t = torch.linspace(0, 1, steps, device=start.device)[None, :, None]
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.acos()[:, None, None]
    a, b = torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()
    return a * start[:, None] + b * end[:, None]
