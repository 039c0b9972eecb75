"""Scores of a generator: while training and by ``fastdat eval``, from the same samples and in the same records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.evaluators import Evaluator, Progress, Record, keep_going, ranking
from fastdat.training import noise
from fastdat.training.noise import Noise
from fastdat.training.png import to_uint8
from fastdat.training.sampling import generated

#: What two records must have in common to be ranked against each other.
_KIND = ("split", "extractor", "extractor_sha256", "fake_count", "real_count", "data_sha256")


def score(
    evaluator: Evaluator,
    net: nn.Module,
    settings: EvalConfig,
    draws: Noise,
    about: Mapping[str, Any],
    progress: Progress = keep_going,
) -> list[Record] | None:
    """Score samples of ``net``.

    Args:
        evaluator: makes the scores.
        net: the generator.
        settings: gives the batch size.
        draws: the generator's noise and labels, seeded with ``settings.seed``.
        about: what each record begins with: ``step``, ``weights`` ("G" or "ema") and ``by`` ("train" or "eval").
        progress: as in :class:`fastdat.metrics.evaluators.Evaluator`.

    Returns:
        One record per split, the one that ranks checkpoints first; None where ``progress`` asked to stop.
    """

    def fakes(count: int) -> Iterator[Tensor]:
        for batch in generated(net, draws, noise.EVALUATION, count, settings.batch_size):
            yield to_uint8(batch) if batch.ndim == 4 else batch

    records = evaluator(fakes, progress)
    return None if records is None else [{**about, **record} for record in records]


def better(best: Mapping[str, Any] | None, record: Record, settings: EvalConfig) -> dict[str, Any] | None:
    """The checkpoint entry ``best`` that follows from ``record``; None where the present ``best`` stays.

    Scores of another kind, from a run that was resumed with other evaluation settings, are not compared: the first
    record of a new kind is the best.
    """
    name, rank = ranking(record, settings)
    kind = {"name": name, **{key: record.get(key) for key in _KIND}}
    if best is not None and best["kind"] == kind and rank <= best["rank"]:
        return None
    return {"step": record["step"], "kind": kind, "rank": rank, "score": record["scores"][name]}
