"""The same training with a larger batch: which settings follow it, and how (docs/large_batch.md)."""

from __future__ import annotations

import math
from typing import Any

from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError


def at_batch(config: TrainConfig, batch_size: int) -> TrainConfig:
    """``config`` with another batch size, for as many images in total.

    With ``k = batch_size / config.batch_size``:

    - ``lr`` times ``sqrt(k)``, the rule for Adam (Krizhevsky 2014, arXiv:1404.5997; Malladi et al. 2022,
      arXiv:2205.10287). ``betas`` stay: Malladi's rule for them, ``1 - beta -> k (1 - beta)``, has no solution here,
      where beta1 is 0 and beta2 is 0.9. ``cosine.lr``, the rate at the end, follows ``lr``; ``cosine.beta2`` stays.
    - ``steps`` and ``cosine.steps`` divided by ``k``, and so all intervals: logs, samples, checkpoints and scores come
      after as many images.
    - ``ema`` to the power of ``k``: the same half-life in images.
    - ``dat`` stays: ``dat.eps_batch`` divides the strength, not the batch size, so each image moves as before.
    - ``n_dis`` stays, and regularizers with ``every``, which count D steps.

    Args:
        config: of the training whose results the larger batch should keep.
        batch_size: of all GPUs together.

    Raises:
        ConfigError: the attack's strength would change with the batch size.
    """
    if (config.dat.attacks or config.dat_generator != "none") and config.dat.eps_batch is None:
        raise ConfigError(
            f"dat.eps_batch is none, so each image would move {batch_size / config.batch_size:g} times less with a "
            f"batch of {batch_size:,}: set dat.eps_batch={config.batch_size}, which moves it as now"
        )
    k = batch_size / config.batch_size
    changes: dict[str, Any] = {
        "batch_size": batch_size,
        "lr": config.lr * math.sqrt(k),
        "steps": math.ceil(config.steps / k),
        "ema": config.ema**k if config.ema else 0.0,
        "log_every": _interval(config.log_every, k),
        "sample_every": _interval(config.sample_every, k),
        "checkpoints.every": _interval(config.checkpoints.every, k),
    }
    if config.cosine.lr is not None:
        changes["cosine.lr"] = config.cosine.lr * math.sqrt(k)
    if config.cosine.steps is not None:
        changes["cosine.steps"] = math.ceil(config.cosine.steps / k)
    if config.checkpoints.keep_every is not None:
        changes["checkpoints.keep_every"] = _interval(config.checkpoints.keep_every, k)
    for name in ("eval", "monitor"):
        every = getattr(config, name).every
        if every is not None:
            changes[f"{name}.every"] = _interval(every, k)
    return config.replace(changes)


def _interval(steps: int, k: float) -> int:
    return max(1, round(steps / k))
