"""The checkpoints of a run: written when everything is finite, restored when the run is resumed or rolled back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from fastdat.data import TrainSampler
from fastdat.training import checkpoint
from fastdat.training.batches import Batches, LoaderBatches
from fastdat.training.class_names import changed_classes
from fastdat.training.config_file import recorded_config
from fastdat.training.finite import FiniteGuard
from fastdat.training.networks import Networks
from fastdat.training.noise import Noise
from fastdat.training.regularization import Regularizers
from fastdat.training.resume import check_resumable, check_same_classes, check_same_parts, other_settings
from fastdat.training.run_folder import RunFolder
from fastdat.training.snapshots import Found, Snapshots
from fastdat.training.state import RunState
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.provenance import versions
from fastdat.util.ranks import ONE_PROCESS, Ranks
from fastdat.util.run_layout import LATEST, STATS, read_records


class RunCheckpoints:
    """Saves and restores nets, optimizers, regularizers, state and noise together.

    Args:
        folder: the run folder.
        networks, regularizers, state, noise: what is saved and restored, in place.
        batches: reals; their fingerprint and class names, if they have them, tell whether a run is resumed on the same
            images.
        config: of the run.
        ranks: those that train it together. Rank 0 reads and writes all files, and the others take over what it has
            read; every method is called by all of them.
        excused: rank 0 is within it while it writes, and not while it waits for the others: a disk may be slow.

    Attributes:
        saved_at: step of latest.pt; None if there is none yet.
    """

    def __init__(
        self,
        folder: RunFolder,
        networks: Networks,
        regularizers: Regularizers,
        state: RunState,
        noise: Noise,
        batches: Batches,
        config: TrainConfig,
        ranks: Ranks = ONE_PROCESS,
        excused: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._ranks, self._excused = ranks, excused
        self._folder, self._networks, self._state, self._noise = folder, networks, state, noise
        self._regularizers, self._config = regularizers, config
        self._files = Snapshots(folder.path, config.checkpoints)
        self.saved_at: int | None = None
        self._from_loader = isinstance(batches, LoaderBatches)
        self._fingerprint: str | None = getattr(batches, "fingerprint", None)
        names = batches.classes if isinstance(batches, TrainSampler) else ()
        # Of conditional nets; `fastdat sample` finds them in the checkpoint.
        self._class_names = list(names) if len(names) == noise.classes else []
        self._optimizers = {
            "optG": checkpoint.optimizer_settings(networks.opt_g),
            "optD": checkpoint.optimizer_settings(networks.opt_d),
        }
        self._finite = FiniteGuard({"netG": networks.G, "netD": networks.D})

    def check_finite(self) -> dict[str, float]:
        """Refuse NaN and infinity in the nets and in what any rank measured; waits for the device.

        Returns:
            The means of the measurements since the last line of stats.jsonl.

        Raises:
            NonFiniteError: with the steps since the last check.
        """
        self._state.average_meters(self._ranks)
        means = self._state.means()
        self._ranks.together(lambda: self._finite.check(means, self._state.done))
        return means

    def _check_equal(self) -> None:
        """Refuse ranks whose weights differ: what one of them saved would not be what the others train.

        Raises:
            ConfigError: they differ.
        """
        if not self._ranks:
            return
        parameters = [*self._networks.G.parameters(), *self._networks.D.parameters()]
        sums = torch.stack([p.detach().double().sum() for p in parameters]).tolist()
        by_rank = self._ranks.all_of(sums)
        others = [rank for rank, theirs in enumerate(by_rank) if theirs != by_rank[0]]
        if others:
            raise ConfigError(
                f"after step {self._state.done} the weights of rank {others[0]} are no longer those of rank 0. All "
                "ranks must do the same: look for whatever changes weights or optimizers on one rank alone"
            )

    def check_savable(self) -> None:
        """Refuse nets and optimizers that no checkpoint could hold; raises ConfigError."""
        checkpoint.check_savable(self._content())

    def save(self) -> None:
        """Write latest.pt; raises as :meth:`Trainer.save`."""
        self.check_finite()
        self._check_equal()
        self._ranks.by_first(self._write_latest)
        self.saved_at = self._state.done

    def _write_latest(self) -> None:
        self._write(self._files.latest)
        self._files.keep(self._state.done)

    def _write(self, file: Path) -> None:
        with self._excused():
            checkpoint.save(file, self._content())

    def save_best(self) -> None:
        """Write best.pt, of nets that were checked already; raises as :meth:`save`."""
        self._ranks.by_first(lambda: self._write(self._files.best))

    def resume(self, start: str | Path | None = None, extend: bool = False) -> list[str]:
        """Restore latest.pt if the folder has a run, or the checkpoint that ``start`` names.

        Args:
            start: as in :meth:`Snapshots.to_resume`; later checkpoints are then set aside.
            extend: other ``steps`` may change the rates that ``lr_decay`` gives.

        Returns:
            Remarks for the log.

        Raises:
            ConfigError: the run was begun with other settings, optimizers, images or nets, or ``start`` names a
                checkpoint but the folder holds no run.
            RunFolderError: a checkpoint is missing or damaged; the message names others.
        """
        remarks = self._ranks.by_first(lambda: self._resume(start, extend))
        if self._ranks:
            self._follow()
        return remarks

    def _follow(self) -> None:
        """Take over everything from rank 0: ranks then begin with the same weights, however each made its own."""

        def sent() -> dict[str, Any]:
            content = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu(), self._content())
            return {"content": content, "saved_at": self.saved_at}

        of_first = self._ranks.by_first(sent)
        if self._ranks.first:
            return
        self._restore(of_first["content"], self._folder.path)
        self.saved_at = of_first["saved_at"]

    def _resume(self, start: str | Path | None, extend: bool) -> list[str]:
        folder, path = self._folder, self._folder.path
        begun = folder.has_config()
        if start is not None and not begun:
            raise ConfigError(
                f"{path} holds no run that could go on from {start}: leave --from out to begin one"
            )
        if not begun:
            return self._start()
        found = self._files.to_resume(start)
        if found is None:
            self._refuse_to_begin_anew()
            # Without a checkpoint every setting may differ: a wrong setting may be why the run is started again.
            remarks = [*other_settings(recorded_config(path), self._config), *self._start()]
        else:
            check_same_classes(path, found.state, self._class_names)
            remarks = check_resumable(path, found.state["config"], self._config, found.step, extend)
            check_same_parts(path, found.state, self._optimizers, self._fingerprint)
            self._restore(found.state, found.path)
            remarks += found.remarks
            if start is not None or found.remarks:
                moved = [str(file.relative_to(path)) for file in self._files.go_back_to(found)]
                remarks.append(f"from {found.path}" + (f"; set aside: {', '.join(moved)}" if moved else ""))
            kept = TrainConfig.from_dict(found.state["config"]).checkpoints.keep_every
            self._files.go_on(found.step, kept)
            self.saved_at = found.step
            remarks += self._damage_of_config()
            if self._from_loader:
                remarks.append("the loader starts from its beginning: it decides which reals come next")
            if self._state.best is not None and not self._files.best.is_file():
                self._state.best = None
                remarks.append("there is no best.pt any more: the next scores begin a new one")
        folder.rewind(self._state.done, scored=not self._state.unscored)
        return [f"resumed after {self._state.done} steps", *remarks]

    def _start(self) -> list[str]:
        """Give new nets the weights of ``config.init_from``, if it is set; remarks for the log."""
        if self._config.init_from is None:
            return []
        path = Path(self._config.init_from)
        if path.is_dir():
            path = path / LATEST
        saved = checkpoint.load(path)
        self._networks.start_from(saved, path)
        changed = changed_classes(saved["class_names"], self._class_names)
        return [
            f"began with the weights of {path}, step {saved['step']} of its run"
            + (f"; labels now mean other classes: {changed}" if changed else "")
        ]

    def _refuse_to_begin_anew(self) -> None:
        """Raises RunFolderError where a run without a checkpoint has had one: beginning anew would drop its records."""
        folder = self._folder.path
        aside = self._files.aside()
        every = recorded_config(folder).checkpoints.every
        recorded = max((record["step"] for _, record in read_records(folder / STATS)), default=0)
        if aside is not None or recorded > every:
            where = f"; some are in {aside}" if aside is not None else ""
            raise RunFolderError(
                f"{folder} has records up to step {recorded}, but no checkpoint any more{where}. To go on, put one "
                f"back as {folder / LATEST}; to begin anew, give another --outdir."
            )

    def _damage_of_config(self) -> list[str]:
        """A remark if config.yaml is damaged; the checkpoint has the settings too, and the file is written anew."""
        try:
            self._folder.read_config()
        except RunFolderError as error:
            return [f"{error}; it is written anew"]
        return []

    def roll_back(self) -> list[str]:
        """Restore the last checkpoint, with other noise than before; remarks, if latest.pt was damaged."""
        attempt = self._state.attempt + 1
        found = self._ranks.by_first(self._last)
        self._restore(found.state, found.path)
        self.saved_at = found.step
        self._state.attempt = self._noise.attempt = attempt
        return list(found.remarks)

    def _last(self) -> Found:
        found = self._files.to_resume(None)
        assert found is not None, "Trainer rolls back only after a checkpoint"
        if found.remarks:
            self._files.go_back_to(found)
        return found

    def _restore(self, saved: checkpoint.State, path: Path) -> None:
        self._networks.restore(saved, path)
        self._regularizers.restore(saved["regularizers"], path)
        self._state.restore(saved, self._noise.device)
        # Scores that are no longer asked for are not made.
        self._state.unscored = self._state.unscored and bool(self._config.eval.every)
        self._noise.attempt = self._state.attempt
        self._finite.restart(self._state.done)
        if not self._ranks.first:
            # Not the numbers of rank 0: nets that draw some, for dropout, would draw the same for all parts of a batch.
            key = [self._config.seed, self._state.done, self._state.attempt, self._ranks.rank]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
            self._state.rng = checkpoint.rng_state()

    def _content(self) -> checkpoint.State:
        return {
            "config": self._config.recorded(),
            "versions": versions(),
            "data": self._fingerprint,
            "class_names": self._class_names,
            "optimizers": self._optimizers,
            **self._networks.to_checkpoint(),
            "regularizers": self._regularizers.to_checkpoint(),
            **self._state.to_checkpoint(),
        }
