"""TensorBoard events of a run: the numbers in stats.jsonl and metrics.jsonl, and the sample grids."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastdat.training.tags import tagged, tagged_scores
from fastdat.util.errors import RunFolderError


class Events:
    """Writes into ``folder``. Older events of steps after ``step``, from a run that was killed, no longer count.

    Raises:
        RunFolderError: here and below, an event cannot be written. A thread writes, so the error may come later.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._writer = self._open(step)

    def rewind(self, step: int) -> None:
        """Events of steps after ``step`` no longer count: these steps will be repeated."""
        with self._write_errors():
            self._writer.close()
        self._writer = self._open(step)

    def _open(self, step: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        fresh = not (self._folder.is_dir() and any(self._folder.iterdir()))
        # Step 0 has an event too, the first sample grid, which a run that starts again writes again.
        with self._write_errors():
            return SummaryWriter(str(self._folder), purge_step=None if fresh else step + 1 if step else 0)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self._folder}: {error.strerror or error}. The run has stopped. Run the same command "
                "again when the cause is removed."
            ) from error
        except UnicodeEncodeError as error:
            raise RunFolderError(
                f"TensorBoard cannot write {self._folder}, whose name is no UTF-8: give another --outdir or logger=none"
            ) from error

    def stats(self, stats: Mapping[str, float]) -> None:
        """The numbers of one line of stats.jsonl."""
        with self._write_errors():
            for tag, value in tagged(stats).items():
                self._writer.add_scalar(tag, value, int(stats["step"]))

    def metrics(self, record: Mapping[str, Any]) -> None:
        """The scores of one line of metrics.jsonl."""
        with self._write_errors():
            for tag, value in tagged_scores(record).items():
                self._writer.add_scalar(tag, math.nan if value is None else value, record["step"])

    def samples(self, step: int, png: bytes) -> None:
        """A sample grid."""
        from PIL import Image

        with self._write_errors(), Image.open(io.BytesIO(png)) as image:
            self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def flush(self) -> None:
        """Put everything on the disk; a checkpoint relies on it."""
        with self._write_errors():
            self._writer.flush()

    def close(self) -> None:
        """Close the file. Raises nothing: what a checkpoint relies on was flushed before."""
        with suppress(OSError):
            self._writer.close()
