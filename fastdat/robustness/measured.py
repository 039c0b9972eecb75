"""All measurements of robustness of one pair of nets, from the same samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.robustness.latent_search import LatentShare, latent_adversarial_share
from fastdat.robustness.lipschitz_monitor import Steepness, layer_norms, lipschitz
from fastdat.robustness.monitor_config import MonitorConfig
from fastdat.robustness.penalty_case import PenaltyCase, penalty_case
from fastdat.robustness.pgd import PGDFlips, pgd_steps_to_flip
from fastdat.robustness.probe import midpoint, probed, split


@dataclass(frozen=True)
class Measured:
    """What :func:`measure` found; None where it was not asked for, or cannot be measured.

    Args:
        threshold: the verdict's: the midpoint of D's mean logits of reals and of fakes. Where it is not finite, there
            is no verdict, and neither ``latent`` nor ``pgd_*`` can be measured.
        latent: adversarial examples in latent space.
        pgd_real, pgd_fake: steps until the verdict flips.
        steepness: D's input gradients.
        layers: the largest singular value of each weight of D, by the path of its layer.
        penalty: samples in the penalty case of Eq. (13).
    """

    threshold: float
    latent: LatentShare | None
    pgd_real: PGDFlips | None
    pgd_fake: PGDFlips | None
    steepness: Steepness | None
    layers: dict[str, float] | None
    penalty: PenaltyCase | None

    def numbers(self) -> dict[str, float]:
        """The finite numbers by their names in stats.jsonl (:data:`fastdat.util.monitor_names.MONITORED`).

        ``latent_share``, ``latent_eligible``, ``pgd_flipped_*`` and ``penalty_case_*`` are parts of 1; ``pgd_steps_*``
        are steps; the others are logits, and logits by unit of the images. ``sigma_mean`` is the geometric mean over
        the layers.
        """
        found = {"verdict_threshold": self.threshold}
        if self.latent is not None:
            found |= {"latent_share": self.latent.share, "latent_eligible": self.latent.eligible_share}
        flips = [(side, flips) for side, flips in (("real", self.pgd_real), ("fake", self.pgd_fake)) if flips]
        found |= {f"pgd_steps_{side}": of_side.mean_steps for side, of_side in flips}
        found |= {f"pgd_flipped_{side}": of_side.success_rate for side, of_side in flips}
        if self.steepness is not None:
            for what in ("mean", "q95", "max"):
                for place in ("real", "fake", "between"):
                    found[f"lipschitz_{place}_{what}"] = getattr(getattr(self.steepness, place), what)
        if self.layers:
            values = list(self.layers.values())
            if all(map(math.isfinite, values)):
                found |= {"sigma_max": max(values), "sigma_mean": _geometric_mean(values)}
        if self.penalty is not None:
            found |= {"penalty_case_real": self.penalty.real, "penalty_case_fake": self.penalty.fake}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def measure(
    G: nn.Module,
    D: nn.Module,
    latents: Sequence[Tensor],
    reals: Sequence[Tensor],
    config: MonitorConfig,
    *,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    batch_size: int | None = None,
    compile: bool = False,
) -> Measured:
    """Measure what ``config`` asks for, with D's verdict at the midpoint of its mean logits.

    Both nets are evaluated, and left exactly as they were. Logits that overflow are no error: what cannot be measured
    then is missing.

    Args:
        G, D: z -> images; images -> logits. Conditional nets take labels, too.
        latents: z (N, nz), and labels (N,) for conditional nets.
        reals: images (M, ...), and labels (M,) for conditional nets; gradients are measured at min(M, N) of each.
        config: what is measured; ``every`` has no effect.
        bounds: of the images; None: none.
        batch_size: samples at a time; None: all.
        compile: compile the steps of the searches.

    Raises:
        ValueError: rows that do not fit, or D does not return one logit a sample.
    """
    (z, *labels_fake), (xr, *labels_real) = latents, reals
    with probed(G), torch.no_grad():
        xf = torch.cat([G(*part) for part in split(batch_size, z, *labels_fake)])
    of_both: Any = {"args_real": labels_real, "args_fake": labels_fake, "batch_size": batch_size}
    threshold = midpoint(D, xr, xf, **of_both)

    def generator() -> torch.Generator:
        return torch.Generator(z.device).manual_seed(config.seed)

    latent = steepness = layers = penalty = None
    flips: dict[str, PGDFlips] = {}
    verdict = math.isfinite(threshold)
    if config.latent and verdict:
        latent = latent_adversarial_share(
            G,
            D,
            z,
            threshold=threshold,
            radius=config.radius,
            norm=config.norm,
            restarts=config.restarts,
            steps=config.steps,
            generator=generator(),
            args_g=labels_fake,
            args_d=labels_fake,
            batch_size=batch_size,
            compile=compile,
        )
    if config.pgd and verdict:
        attack: Any = {"step_size": config.step_size, "cap": config.cap, "bounds": bounds, "compile": compile}
        attack |= {"threshold": threshold, "batch_size": batch_size}
        flips["pgd_real"] = pgd_steps_to_flip(D, xr, "real", args=labels_real, **attack)
        flips["pgd_fake"] = pgd_steps_to_flip(D, xf, "fake", args=labels_fake, **attack)
    if config.lipschitz:
        pairs = min(len(xr), len(xf))
        steepness = lipschitz(
            D,
            xr[:pairs],
            xf[:pairs],
            generator=generator(),
            args_real=[labels[:pairs] for labels in labels_real],
            args_fake=[labels[:pairs] for labels in labels_fake],
            batch_size=batch_size,
        )
        layers = layer_norms(D)
        penalty = penalty_case(D, xr, xf, **of_both)
    of_pgd = flips.get("pgd_real"), flips.get("pgd_fake")
    return Measured(threshold, latent, *of_pgd, steepness, layers, penalty)


def _geometric_mean(values: Iterable[float]) -> float:
    """0 if one of them is."""
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if min(values) > 0 else 0.0
