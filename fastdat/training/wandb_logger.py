"""Weights & Biases: the numbers of stats.jsonl and metrics.jsonl, and the sample grids, as a run of wandb."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastdat.training.tags import tagged, tagged_scores
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.files import write_atomically
from fastdat.util.run_layout import WANDB

_ID = "run-id.txt"


def require_wandb() -> None:
    """Raises ConfigError if the package is not installed."""
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder that wandb made is found too, and has no origin
        raise ConfigError('logger=wandb needs the package wandb: pip install "fastdat[wandb]"')


class WandbLogger:
    """One run of wandb for a run folder, however often it is resumed: its id is kept in the folder.

    The environment variables of wandb count: WANDB_MODE, WANDB_PROJECT, WANDB_NAME and so on. A step that is repeated,
    after a rollback or a kill, is logged again; charts over ``step`` then show both values. Where wandb's own process
    ends, the run goes on without it.

    Args:
        folder: the run folder.
        config: the settings of the run, for wandb's table of runs.
        note: receives a message.

    Raises:
        ConfigError: wandb cannot begin, because nobody is logged in or its server cannot be reached, for example.
        RunFolderError: the id cannot be written.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], note: Callable[[str], None]) -> None:
        import wandb  # type: ignore[import-not-found, unused-ignore]  # an optional package

        self._image: Any = wandb.Image
        self._note = note
        kept = folder / WANDB / _ID
        try:
            kept.parent.mkdir(exist_ok=True)
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "fastdat"),
                name=os.environ.get("WANDB_NAME", folder.resolve().name),
                id=kept.read_text().strip() if kept.is_file() else None,
                resume="allow",
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(console="off"),  # it would hook into the standard output
            )
            write_atomically(kept, self._run.id.encode())
        except (wandb.Error, ValueError) as error:  # a ValueError for an unknown WANDB_MODE, say
            raise ConfigError(
                f"wandb cannot begin its run: {str(error).rstrip('.')}. Without an account or a network set "
                f"WANDB_MODE=offline, and upload later with `wandb sync {folder / WANDB}/offline-run-*`"
            ) from error
        except OSError as error:
            raise RunFolderError(f"cannot write {kept.parent}: {error.strerror or error}") from error
        self._lost = False
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # wandb's own steps cannot be repeated

    def stats(self, stats: Mapping[str, float]) -> None:
        """The numbers of one line of stats.jsonl."""
        self._log({"step": stats["step"], **tagged(stats)})

    def metrics(self, record: Mapping[str, Any]) -> None:
        """The scores of one line of metrics.jsonl."""
        scores = {tag: value for tag, value in tagged_scores(record).items() if value is not None}
        self._log({"step": record["step"], **scores})

    def samples(self, step: int, png: bytes) -> None:
        """A sample grid."""
        from PIL import Image

        with Image.open(io.BytesIO(png)) as image:
            self._log({"step": step, "samples": self._image(image.convert("RGB"))})

    def _log(self, values: Mapping[str, Any]) -> None:
        if self._lost:
            return
        try:
            self._run.log(dict(values))
        except Exception as error:  # its process is gone
            self._lost = True
            self._note(f"wandb logs no more: {error!r}. The run goes on; resume it to begin wandb again")

    def rewind(self, step: int) -> None:
        """Steps after ``step`` will be logged a second time."""

    def flush(self) -> None:
        """Does nothing: a process of wandb writes on its own, and stats.jsonl has all numbers anyway."""

    def close(self) -> None:
        """End the run and wait for what is still to be uploaded; as failed while an exception is handled."""
        with suppress(Exception):
            self._run.finish(exit_code=0 if sys.exc_info()[0] is None else 1)
