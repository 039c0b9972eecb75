"""Scores of a generator: while training and by ``fastdat eval``, from the same samples and in the same records."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from fastdat.metrics.equal_on_ranks import check_equal
from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.evaluators import (
    Evaluator,
    ImageEvaluator,
    ModesEvaluator,
    Progress,
    Record,
    keep_going,
    ranking,
)
from fastdat.metrics.weight_digest import weight_digest
from fastdat.training import noise
from fastdat.training.noise import Noise
from fastdat.training.png import to_uint8
from fastdat.training.sampling import generated
from fastdat.util.errors import ConfigError
from fastdat.util.ranks import ONE_PROCESS, Ranks

#: What two records must have in common to be ranked against each other.
_KIND = ("split", "extractor", "extractor_sha256", "fake_count", "real_count", "data_sha256")

_HINT = (
    "All ranks must score the same net. If a training goes on in the run folder, name one of its checkpoints, such as "
    "step-000500; while training, look for what changes weights or buffers of G on one rank alone"
)


def require_evaluator(settings: EvalConfig, evaluator: Evaluator | None) -> None:
    """Raises ConfigError where a training shall be scored and nothing is given that scores it, or an evaluator of
    fastdat's own that makes other scores."""
    if not settings.every:
        return
    if evaluator is None:
        raise ConfigError(
            "eval.every is set, but no evaluator was given to the Trainer: give evaluator=fastdat.metrics."
            "ImageEvaluator(settings, {'train': images}, device) with the settings of eval, or leave eval.every out"
        )
    if isinstance(evaluator, (ImageEvaluator, ModesEvaluator)):
        own, wanted = _of_scores(evaluator.config), _of_scores(settings)
        differing = [key for key in own if own[key] != wanted[key]]
        if differing:
            words = ", ".join(f"{key} ({own[key]!r} there, {wanted[key]!r} here)" for key in differing)
            raise ConfigError(
                f"the evaluator has other settings than eval of the run: {words}. Give both the same EvalConfig"
            )


def _of_scores(settings: EvalConfig) -> dict[str, Any]:
    """The settings that scores depend on; a run has made the path of the weights absolute."""
    values = dataclasses.asdict(settings)
    for key in ("every", "batch_size"):
        del values[key]
    return values | {"weights": settings.weights and os.path.abspath(os.path.expanduser(settings.weights))}


def score(
    evaluator: Evaluator,
    net: nn.Module,
    settings: EvalConfig,
    draws: Noise,
    about: Mapping[str, Any],
    progress: Progress = keep_going,
    ranks: Ranks | None = None,
) -> list[Record] | None:
    """Score samples of ``net``.

    Several ranks share out the batches of samples that one makes, and all of them return the records of rank 0. These
    hold the scores of one rank, to the last bit where a batch gives the same features on every rank.

    Args:
        evaluator: makes the scores. One that does not know of ranks gets all samples on each.
        net: the generator; the same on all ranks.
        settings: gives the batch size.
        draws: the generator's noise and labels, seeded with ``settings.seed``.
        about: what each record begins with: ``step``, ``weights`` ("G" or "ema") and ``by`` ("train" or "eval").
        progress: as in :class:`fastdat.metrics.evaluators.Evaluator`; called on every rank.
        ranks: those that call this together; None: all processes of ``torch.distributed``.

    Returns:
        One record per split, the one that ranks checkpoints first; None where ``progress`` asked to stop on any rank.

    Raises:
        ConfigError: the net of one rank differs from that of rank 0.
        Exception: what the evaluator raised on any rank, on all of them.
    """
    ranks = Ranks.now() if ranks is None else ranks
    if ranks:
        check_equal(ranks, {"step": about["step"], "the hash of the generator": weight_digest(net)}, _HINT)

    def fakes(count: int, of: Ranks = ONE_PROCESS, /) -> Iterator[Tensor]:
        for batch in generated(net, draws, noise.EVALUATION, count, settings.batch_size, ranks=of):
            yield to_uint8(batch) if batch.ndim == 4 else batch

    records = ranks.together(lambda: evaluator(fakes, progress))
    if ranks.any(records is None):
        return None
    return ranks.by_first(lambda: [{**about, **record} for record in records or []])


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
