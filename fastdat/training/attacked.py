"""The measurements of robustness of a trained run: what ``fastdat attack`` writes and prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fastdat.data import TrainSampler
from fastdat.data.mixture import MIXTURES, MixtureBatches
from fastdat.metrics.evaluators import Progress, keep_going
from fastdat.robustness import Measured, MonitorConfig, PGDFlips, measure
from fastdat.training import noise
from fastdat.training.build import choose_device, load_data
from fastdat.training.class_names import changed_classes
from fastdat.training.models import classes_of, dataset_of, model_of
from fastdat.training.noise import Noise
from fastdat.training.saved_nets import SavedNets, read_nets
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.provenance import commit_info, machine_info

Record = dict[str, Any]


def attack_run(
    run: Path,
    which: str,
    settings: MonitorConfig,
    *,
    data: str | None = None,
    split: str = "train",
    ema: bool = False,
    device: str = "auto",
    compile: bool = False,
    progress: Progress = keep_going,
) -> Record:
    """Measure the nets of a run.

    Args:
        run: a run folder, or a checkpoint file.
        which: of a run folder: ``"latest"``, ``"best"``, ``"step-000500"`` or the path of a checkpoint.
        settings: what is measured, and on how many reals and fakes.
        data: the data set; None: that of the run.
        split: of the reals: ``"train"`` or ``"test"``. A mixture of Gaussians, whose points are drawn, has only the
            first, and the record then names none.
        ema: take the running average of G; D was trained against G itself.
        device: as in :class:`TrainConfig`.
        compile: compile the steps of the searches.
        progress: called while a packed store is checked.

    Returns:
        All numbers in types that JSON knows, with settings, machine and commit.

    Raises:
        RunFolderError: there is no run or no such checkpoint, it is damaged, or the nets are not fastdat's.
        ConfigError, DataError: the data are missing, too few or of other classes, there is no such device, or the run
            has no running average.
    """
    where = choose_device(device)
    saved = read_nets(run, which, ema=ema)
    if ema and saved.weights != "ema":
        raise ConfigError(f"{run} has no running average of G (its setting ema is 0): leave --ema out")
    config = saved.config.replace({"data": data} if data is not None else {})
    classes = classes_of(config) if model_of(config).conditional else 0
    draws = Noise(config.nz, seed=settings.seed, device=where, classes=classes)
    count = settings.samples
    latents = (draws.draw(noise.COMMAND, 0, count), *draws.labels(noise.COMMAND, 0, count))
    reals = tuple(tensor.to(where) for tensor in _reals(config, saved, settings, split, progress))
    measured = measure(
        saved.G.to(where),
        saved.D.to(where),
        latents,
        reals if classes else reals[:1],
        settings,
        bounds=config.dat.bounds,
        batch_size=config.eval.batch_size,
        compile=compile,
    )
    drawn = dataset_of(config) in MIXTURES
    about = {"step": saved.step, "checkpoint": which, "weights": saved.weights}
    about["split"] = None if drawn else split
    return about | as_record(measured, settings)


def as_record(measured: Measured, settings: MonitorConfig) -> Record:
    """What was measured, in types that JSON knows, with settings, machine and commit."""
    used = {key: value for key, value in dataclasses.asdict(settings).items() if key != "every"}
    latent, flips = measured.latent, {"real": measured.pgd_real, "fake": measured.pgd_fake}
    return {
        "settings": used,
        "numbers": measured.numbers(),
        "eligible": {
            "latent": None if latent is None else int(latent.eligible.sum()),
            **{f"pgd_{side}": None if found is None else found.count for side, found in flips.items()},
        },
        "pgd_steps": {side: _steps(found) for side, found in flips.items() if found is not None},
        "layers": _finite(measured.layers),
        "machine": machine_info(),
        "commit": commit_info(),
    }


def shown(record: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table of a record of :func:`attack_run`."""
    numbers, used, eligible = record["numbers"], record["settings"], record["eligible"]
    if "verdict_threshold" in numbers:
        yield f"D takes a sample for real from the logit {numbers['verdict_threshold']:.4g} on (midpoint of the means)"
    else:
        yield "D's mean logits are not finite, so that it has no verdict to change"
    if eligible["latent"] is not None:
        found = _percent(numbers.get("latent_share"))
        yield (
            f"adversarial examples in latent space  {found} of {eligible['latent']} rejected samples of G "
            f"({used['norm']} <= {used['radius']:g}, {used['restarts']} restarts, {used['steps']} steps)"
        )
    for side in ("fake", "real"):
        if eligible[f"pgd_{side}"] is not None:
            steps = numbers.get(f"pgd_steps_{side}")
            mean = "-" if steps is None else f"{steps:.2f}"
            yield (
                f"PGD until the verdict on {side}s flips  {mean:>6} steps; "
                f"{_percent(numbers.get(f'pgd_flipped_{side}'))} of {eligible[f'pgd_{side}']} flip within "
                f"{used['cap']} (step {used['step_size']:.4g})"
            )
    if record["layers"] is not None:
        for place in ("real", "fake", "between"):
            values = [numbers.get(f"lipschitz_{place}_{what}") for what in ("mean", "q95", "max")]
            words = " ".join(f"{_number(value):>9}" for value in values)
            yield f"norm of D's gradient, {place:<8}  {words}   (mean, 95 %, greatest)"
        yield f"largest singular value of a layer of D  {_number(numbers.get('sigma_max'))}"
        real, fake = (_percent(numbers.get(f"penalty_case_{side}")) for side in ("real", "fake"))
        yield f"penalty case of Eq. (13)  {real} of the reals, {fake} of the fakes"


def _finite(layers: Mapping[str, float] | None) -> dict[str, float | None] | None:
    """JSON knows neither NaN nor infinity."""
    if layers is None:
        return None
    return {path: value if math.isfinite(value) else None for path, value in layers.items()}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(part: float | None) -> str:
    return "none" if part is None else f"{100 * part:.1f} %"


def _steps(found: PGDFlips) -> list[int | None]:
    """Of each eligible sample; None where the verdict did not flip."""
    pairs = zip(found.steps[found.eligible].tolist(), found.flipped[found.eligible].tolist(), strict=True)
    return [steps if flipped else None for steps, flipped in pairs]


def _reals(
    config: TrainConfig, saved: SavedNets, settings: MonitorConfig, split: str, progress: Progress
) -> tuple[Tensor, ...]:
    """Reals chosen at random, and their labels."""
    data = load_data(config, split, progress)
    if data is None:
        if split != "train":
            raise ConfigError(f"points of {dataset_of(config)} are drawn: there is no {split} split of them")
        mixture = MIXTURES[dataset_of(config)]
        return (MixtureBatches(mixture, settings.samples, seed=settings.seed).batch(0),)
    changed = changed_classes(saved.class_names, data.classes) if model_of(config).conditional else ""
    if changed:
        raise ConfigError(
            f"{data.name} has other classes than the run: {changed}. Give the data that it was trained on"
        )
    if settings.samples > len(data):
        raise ConfigError(
            f"{data.name} has {len(data):,} images; got -n {settings.samples:,}. Give at most as many"
        )
    sampler = TrainSampler(data, settings.samples, seed=settings.seed)
    return sampler.batch(0), sampler.labels(0)
