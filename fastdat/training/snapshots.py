"""The checkpoint files of a run: latest.pt, best.pt, and the newest ones by step."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from fastdat.training import checkpoint
from fastdat.training.train_config import CheckpointConfig
from fastdat.util.errors import RunFolderError
from fastdat.util.files import temporary_of
from fastdat.util.run_layout import (
    BEST,
    CHECKPOINTS,
    LATEST,
    METRICS,
    SET_ASIDE,
    STATS,
    read_records,
    sample_grids,
    snapshot_file,
    snapshots,
)

#: How many of the newest are kept, whatever the settings say: if latest.pt is damaged, there is one before it.
_AT_LEAST = 2


@dataclass(frozen=True)
class Found:
    """An undamaged checkpoint.

    Args:
        path: its file.
        state: its content.
        remarks: if it takes the place of latest.pt: which files are damaged and why, and how much is lost.
    """

    path: Path
    state: checkpoint.State
    remarks: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        return int(self.state["step"])


@dataclass(frozen=True)
class _Seen:
    """What was found in a file: the step of an undamaged checkpoint, or why it cannot be used."""

    path: Path
    step: int | None
    error: str = ""


class Snapshots:
    """Finds, keeps and drops the checkpoint files of the run in ``run``.

    Args:
        run: the run folder.
        config: which of them are kept.
    """

    def __init__(self, run: Path, config: CheckpointConfig) -> None:
        self._run, self._keep = run, max(config.keep, _AT_LEAST)
        self.latest, self.best = run / LATEST, run / BEST
        self._since = 0
        self._for_good = {config.keep_every}

    def files(self) -> list[Path]:
        """All that there are: latest.pt, those of steps from the newest on, best.pt."""
        of_steps = [path for _, path in reversed(snapshots(self._run))]
        return [path for path in (self.latest, *of_steps, self.best) if path.is_file()]

    def keep(self, step: int) -> None:
        """Give latest.pt, of ``step``, its second name, and remove those that are no longer kept.

        Raises:
            RunFolderError: that is not possible; latest.pt is intact.
        """
        self._name(step)
        there = [(of_step, path) for of_step, path in snapshots(self._run) if of_step <= step]
        ours = [i for i, (of_step, _) in enumerate(there) if self._since <= of_step]
        try:
            for i in ours[: max(len(ours) - self._keep, 0)]:
                of_step, path = there[i]
                if not self._is_for_good(of_step, there[i - 1][0] if i else 0):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot("remove an older one than", step, error) from error

    def _name(self, step: int) -> None:
        """Give latest.pt, of ``step``, its second name.

        Raises:
            RunFolderError: that is not possible; latest.pt is intact.
        """
        try:
            _same_file(self.latest, self._run / snapshot_file(step))
        except OSError as error:
            raise self._cannot("keep", step, error) from error

    def go_on(self, step: int, keep_every: int | None) -> None:
        """To be called when the run is resumed: decides which of the checkpoints that are there are never removed.

        Those are all but the newest ones, and those that the process before kept for good.

        Args:
            step: at which the run is resumed.
            keep_every: the setting of the process before: it kept a checkpoint of every so many steps for good; None
                if it kept none.
        """
        self._name(step)  # a kill may have come between the file and its second name
        there = [of_step for of_step, _ in snapshots(self._run) if of_step <= step]
        self._since = min(there[max(len(there) - self._keep, 0) :], default=step)
        self._for_good.add(keep_every)

    def to_resume(self, start: str | Path | None) -> Found | None:
        """The checkpoint to go on from; None if the run has none.

        Args:
            start: None: latest.pt, or the newest one that is undamaged if latest.pt is damaged or gone.
                ``"newest"``: the undamaged one of the highest step. ``"best"``, ``"step-000500"`` or a path: this one.

        Raises:
            RunFolderError: it is missing or damaged; the message names those that may take its place. Or latest.pt is
                whole but cannot be used, such as a file of another version.
        """
        if start is None:
            return self._latest_or_before() if self.files() else None
        if start != "newest":
            return self._read(self.path_of(start))
        if not self.files():
            raise RunFolderError(f"{self._run} has no checkpoint yet: leave --from out to begin anew")
        return self._newest(self._seen())

    def _latest_or_before(self) -> Found:
        """latest.pt, or the one that takes its place."""
        why = [] if self.latest.is_file() else [f"there is no checkpoint {self.latest} any more."]
        if not why:
            try:
                return Found(self.latest, checkpoint.load(self.latest))
            except checkpoint.DamagedCheckpointError:
                pass
            except RunFolderError as error:
                raise RunFolderError(f"{error} {self._ways_out()}") from error
        seen = self._seen()
        found = self._newest(seen)
        why += [one.error for one in seen if one.step is None]
        lost = self._reached() - found.step
        steps = "step after it is" if lost == 1 else f"{lost} steps after it are"
        again = f": the {steps} done again" if lost > 0 else ""
        return replace(found, remarks=(*why, f"going on from {found.path.stem}, step {found.step}{again}"))

    def _newest(self, seen: list[_Seen]) -> Found:
        """The undamaged one of the highest step.

        Raises:
            RunFolderError: none is undamaged; the message lists them.
        """
        undamaged = [(one.step, -i) for i, one in enumerate(seen) if one.step is not None]
        if not undamaged:
            listed = " ".join(one.error for one in seen)
            raise RunFolderError(
                f"{self._run} has no undamaged checkpoint. {listed} Put a copy of one back as {self.latest}, or begin "
                "anew with another --outdir."
            )
        return self._read(seen[-max(undamaged)[1]].path)

    def _reached(self) -> int:
        """The last step that the run is known to have done."""
        recorded = [int(record["step"]) for _, record in read_records(self._run / STATS)]
        return max([0, *recorded, *(step for step, _ in snapshots(self._run))])

    def _seen(self) -> list[_Seen]:
        """What reading each file says, in the order of :meth:`files`; one of several names of a file."""
        seen: list[_Seen] = []
        for path in self.files():
            if any(path.samefile(other.path) for other in seen):
                continue
            try:
                seen.append(_Seen(path, int(checkpoint.load(path)["step"])))
            except RunFolderError as error:
                seen.append(_Seen(path, None, str(error)))
        return seen

    def path_of(self, name: str | Path) -> Path:
        """The file of ``"latest"``, ``"best"``, ``"step-000500"``, or of a path."""
        for inside in (self._run / CHECKPOINTS / f"{name}.pt", self._run / CHECKPOINTS / name):
            if inside.is_file() or str(name) in ("latest", "best"):
                return inside
        return Path(name)

    def go_back_to(self, found: Found) -> list[Path]:
        """Make ``found`` the latest checkpoint. What is of later steps, or damaged, is set aside: checkpoints, sample
        grids, and copies of the records.

        Returns:
            The checkpoints set aside.

        Raises:
            RunFolderError: that is not possible.
        """
        moved = []
        try:
            waiting = _waiting(found.path, self.latest)  # before anything is moved
            for path in self.files():
                step = found.step if path == found.path else self._step_of(path)
                if step is None or step > found.step:
                    moved.append(self._set_aside(path, step))
            os.replace(waiting, self.latest)
            waiting.unlink(missing_ok=True)  # it was a second name of the same file
            self._set_records_aside(found.step)
        except OSError as error:
            raise RunFolderError(f"cannot go back to {found.path}: {error.strerror or error}") from error
        return moved

    def undamaged(self) -> list[tuple[Path, int]]:
        """File and step of each, in the order of :meth:`files`; one of several names of a file."""
        return [(one.path, one.step) for one in self._seen() if one.step is not None]

    def undamaged_in_words(self) -> str:
        """``"latest (step 500), best (step 300)"``; empty if there is none."""
        return ", ".join(f"{path.stem} (step {step})" for path, step in self.undamaged())

    def aside(self) -> Path | None:
        """The folder of what was set aside; None if there is nothing in it."""
        folder = self._run / SET_ASIDE
        return folder if folder.is_dir() and any(folder.iterdir()) else None

    def _is_for_good(self, step: int, before: int) -> bool:
        """Whether it is the first one since a multiple; ``before`` is the step of the one before it, or 0."""
        return any(every is not None and step // every > before // every for every in self._for_good)

    def _read(self, path: Path) -> Found:
        try:
            return Found(path, checkpoint.load(path))
        except RunFolderError as error:
            raise RunFolderError(f"{error} {self._ways_out()}") from error

    def _ways_out(self) -> str:
        listed = self.undamaged_in_words()
        if not listed:
            return "There is no other that is undamaged. Begin anew with another --outdir."
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
        what = path.stem if step is None or path.stem.startswith("step-") else f"{path.stem}-of-step-{step}"
        target = self._free_name(f"{what}{'-damaged' if step is None else ''}.pt")
        path.rename(target)
        return target

    def _set_records_aside(self, step: int) -> None:
        for name in (STATS, METRICS):
            if (self._run / name).exists():
                shutil.copyfile(self._run / name, self._free_name(name))
        for of_step, path in sample_grids(self._run):
            if of_step > step:
                path.rename(self._free_name(path.name))

    def _free_name(self, name: str) -> Path:
        """A new file among those that are set aside."""
        folder = self._run / SET_ASIDE
        folder.mkdir(exist_ok=True)
        target, number = folder / name, 1
        while target.exists():
            number += 1
            target = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
        return target

    def _cannot(self, what: str, step: int, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"cannot {what} {snapshot_file(step)} in {self._run}: {error.strerror or error}. {self.latest} is intact. "
            "Run the same command again when the cause is removed."
        )


def _same_file(existing: Path, name: Path) -> None:
    """Make ``name`` a second name of ``existing``, or a copy where the file system has no such names."""
    temporary = _waiting(existing, name)
    try:
        os.replace(temporary, name)
    finally:
        temporary.unlink(missing_ok=True)  # where both are names of one file, replacing does nothing


def _waiting(existing: Path, name: Path) -> Path:
    """A second name of ``existing``, or a copy, beside ``name``, to be moved there."""
    temporary = temporary_of(name)
    temporary.unlink(missing_ok=True)
    try:
        os.link(existing, temporary)
    except OSError:
        shutil.copyfile(existing, temporary)
    return temporary
