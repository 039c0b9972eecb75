"""The checkpoint files of a run: latest.pt, best.pt, and the newest ones by step."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fastdat.training import checkpoint
from fastdat.training.train_config import CheckpointConfig
from fastdat.util.errors import RunFolderError
from fastdat.util.files import temporary_of
from fastdat.util.run_layout import BEST, CHECKPOINTS, LATEST, SET_ASIDE, snapshot_file, snapshots


@dataclass(frozen=True)
class Found:
    """An undamaged checkpoint."""

    path: Path
    state: checkpoint.State

    @property
    def step(self) -> int:
        return int(self.state["step"])


class Snapshots:
    """Finds, keeps and drops the checkpoint files of the run in ``run``.

    Args:
        run: the run folder.
        config: which of them are kept.
    """

    def __init__(self, run: Path, config: CheckpointConfig) -> None:
        self._run, self._config = run, config
        self.latest, self.best = run / LATEST, run / BEST

    def files(self) -> list[Path]:
        """All that there are: latest.pt, those of steps from the newest on, best.pt."""
        of_steps = [path for _, path in reversed(snapshots(self._run))]
        return [path for path in (self.latest, *of_steps, self.best) if path.is_file()]

    def keep(self, step: int) -> None:
        """Give latest.pt, of ``step``, its second name, and remove those that are no longer kept.

        Raises:
            RunFolderError: that is not possible; latest.pt is intact.
        """
        try:
            if self._config.keep or self._is_for_good(step):
                _same_file(self.latest, self._run / snapshot_file(step))
            kept = (
                [path for _, path in snapshots(self._run)[-self._config.keep :]] if self._config.keep else []
            )
            for of_step, path in snapshots(self._run):
                if path not in kept and not self._is_for_good(of_step):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"cannot keep {snapshot_file(step)} in {self._run}: {error.strerror or error}. {self.latest} is "
                "intact. Run the same command again when the cause is removed."
            ) from error

    def to_resume(self, start: str | Path | None) -> Found | None:
        """The checkpoint to go on from; None if the run has none.

        Args:
            start: None: latest.pt and no other. ``"newest"``: the undamaged one of the highest step. ``"best"``,
                ``"step-000500"`` or a path: this one.

        Raises:
            RunFolderError: it is missing or damaged; the message names those that may take its place.
        """
        if start is None:
            if not self.files():
                return None
            return self._read(self.latest)
        if start == "newest":
            undamaged = self.undamaged()
            if not undamaged:
                raise RunFolderError(f"{self._run} has no undamaged checkpoint: {self._ways_out()}")
            return undamaged[0]
        return self._read(self.path_of(start))

    def path_of(self, name: str | Path) -> Path:
        """The file of ``"latest"``, ``"best"``, ``"step-000500"``, or of a path."""
        inside = self._run / CHECKPOINTS / f"{name}.pt"
        return inside if inside.is_file() or str(name) in ("latest", "best") else Path(name)

    def go_back_to(self, found: Found) -> list[Path]:
        """Make ``found`` the latest checkpoint: those of later steps and damaged ones are set aside, and are returned.

        Raises:
            RunFolderError: that is not possible.
        """
        moved = []
        try:
            for path in self.files():
                step = self._step_of(path)
                if path != found.path and (step is None or step > found.step):
                    moved.append(self._set_aside(path, step))
            if found.path != self.latest:
                _same_file(found.path, self.latest)
        except OSError as error:
            raise RunFolderError(f"cannot go back to {found.path}: {error.strerror or error}") from error
        return moved

    def _is_for_good(self, step: int) -> bool:
        return self._config.keep_every is not None and step % self._config.keep_every == 0

    def _read(self, path: Path) -> Found:
        try:
            return Found(path, checkpoint.load(path))
        except RunFolderError as error:
            raise RunFolderError(f"{error} {self._ways_out()}") from error

    def undamaged(self) -> list[Found]:
        """From the highest step on; of one step, latest.pt first."""
        found = []
        for path in self.files():
            try:
                found.append(Found(path, checkpoint.load(path)))
            except RunFolderError:
                continue
        return sorted(found, key=lambda one: -one.step)

    def _ways_out(self) -> str:
        undamaged = self.undamaged()
        if not undamaged:
            return (
                "There is no other that is undamaged. Begin anew with another --outdir, or remove this one."
            )
        listed = ", ".join(f"{found.path.stem} (step {found.step})" for found in undamaged)
        return (
            f"Undamaged in {self._run}: {listed}. To go on from the newest of them, give --from newest; what was "
            'recorded after its step is made again. (In Python: Trainer(..., resume_from="newest").)'
        )

    def _step_of(self, path: Path) -> int | None:
        """None for a damaged one."""
        try:
            return int(checkpoint.load(path)["step"])
        except RunFolderError:
            return None

    def _set_aside(self, path: Path, step: int | None) -> Path:
        folder = self._run / SET_ASIDE
        folder.mkdir(exist_ok=True)
        what = path.stem if step is None or path.stem.startswith("step-") else f"{path.stem}-of-step-{step}"
        target, number = folder / f"{what}{'-damaged' if step is None else ''}.pt", 1
        while target.exists():
            number += 1
            target = target.with_name(f"{what}-{number}.pt")
        path.rename(target)
        return target


def _same_file(existing: Path, name: Path) -> None:
    """Make ``name`` a second name of ``existing``, or a copy where the file system has no such names."""
    temporary = temporary_of(name)
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(existing, temporary)
        except OSError:
            shutil.copyfile(existing, temporary)
        os.replace(temporary, name)
    finally:
        temporary.unlink(missing_ok=True)
