"""A run's folder: what is in it, and how it is written so that no reader ever sees half a file.

config.yaml  log.txt  stats.jsonl  reals.png  samples/step-000500.png
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fastdat.files import write_atomically
from fastdat.training.errors import RunFolderError


class RunFolder:
    """Writes into ``path``, which must not exist or be empty.

    Raises:
        RunFolderError: ``path`` has something in it, is a file, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            occupied = any(self.path.iterdir())
            if not occupied:
                (self.path / "samples").mkdir()
        except OSError as error:
            raise RunFolderError(
                f"cannot use {self.path} as a run folder: {error.strerror or error}"
            ) from error
        if occupied:
            raise RunFolderError(
                f"{self.path} is not empty, and a run cannot be resumed yet. Give another --outdir, or remove it."
            )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml, keys in the order given."""
        self._write("config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())

    def write_reals(self, png: bytes) -> None:
        """reals.png: a grid of training images, to compare the samples with."""
        self._write("reals.png", png)

    def write_samples(self, step: int, png: bytes) -> Path:
        """samples/step-NNNNNN.png."""
        return self._write(f"samples/step-{step:06d}.png", png)

    def append_stats(self, stats: Mapping[str, float]) -> None:
        """One line of stats.jsonl; every number in it must be finite."""
        self._append("stats.jsonl", json.dumps(stats, allow_nan=False))

    def append_log(self, text: str) -> None:
        """Lines of log.txt, each with the time."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._append("log.txt", "\n".join(f"{now}  {line}" for line in text.splitlines()))

    def _append(self, name: str, line: str) -> None:
        # Opened anew each time and written at once: a killed run leaves whole lines, and no handle is kept open.
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _write(self, name: str, content: bytes) -> Path:
        target = self.path / name
        write_atomically(target, content)
        return target
