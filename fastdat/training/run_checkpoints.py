"""The checkpoints of a run: written when everything is finite, restored when the run is resumed or rolled back."""

from __future__ import annotations

from pathlib import Path

from fastdat.training import checkpoint
from fastdat.training.batches import Batches, LoaderBatches
from fastdat.training.finite import FiniteGuard
from fastdat.training.networks import Networks
from fastdat.training.noise import Noise
from fastdat.training.resume import check_resumable, check_same_parts
from fastdat.training.run_folder import RunFolder
from fastdat.training.state import RunState
from fastdat.training.train_config import TrainConfig
from fastdat.util.provenance import versions


class RunCheckpoints:
    """Saves and restores nets, optimizers, state and noise together.

    Args:
        folder: the run folder.
        networks, state, noise: what is saved and restored, in place.
        batches: reals; their fingerprint, if they have one, tells whether a run is resumed on the same images.
        config: of the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        networks: Networks,
        state: RunState,
        noise: Noise,
        batches: Batches,
        config: TrainConfig,
    ) -> None:
        self._folder, self._networks, self._state, self._noise = folder, networks, state, noise
        self._config = config
        self._from_loader = isinstance(batches, LoaderBatches)
        self._fingerprint: str | None = getattr(batches, "fingerprint", None)
        self._optimizers = {
            "optG": checkpoint.optimizer_settings(networks.opt_g),
            "optD": checkpoint.optimizer_settings(networks.opt_d),
        }
        self._finite = FiniteGuard({"netG": networks.G, "netD": networks.D})

    def check_finite(self) -> dict[str, float]:
        """Refuse NaN and infinity in the nets and in what was measured; waits for the device.

        Returns:
            The means of the measurements since the last line of stats.jsonl.

        Raises:
            NonFiniteError: with the steps since the last check.
        """
        means = self._state.means()
        self._finite.check(means, self._state.done)
        return means

    def save(self) -> None:
        """Write latest.pt; raises as :meth:`Trainer.save`."""
        self.check_finite()
        checkpoint.save(self._folder.latest, self._content())

    def save_best(self) -> None:
        """Write best.pt, of nets that were checked already; raises as :meth:`save`."""
        checkpoint.save(self._folder.best, self._content())

    def resume(self) -> list[str]:
        """Restore latest.pt if the folder has one.

        Returns:
            Remarks for the log; none in a new folder.

        Raises:
            ConfigError: the run was begun with other settings, optimizers, images or nets.
            RunFolderError: a file is damaged.
        """
        folder = self._folder
        begun = folder.read_config()
        if begun is None:
            return []
        has_checkpoint = folder.latest.exists() or folder.best.exists()
        saved = checkpoint.load(folder.latest) if has_checkpoint else None
        # Without a checkpoint every setting may differ: a wrong setting may be why the run is started again.
        remarks = check_resumable(folder.path, begun, self._config, saved["step"] if saved else None)
        if saved is not None:
            check_same_parts(folder.path, saved, self._optimizers, self._fingerprint)
            self._restore(saved, folder.latest)
            if self._from_loader:
                remarks.append("the loader starts from its beginning: it decides which reals come next")
        folder.rewind(self._state.done, scored=not self._state.unscored)
        return [f"resumed after {self._state.done} steps", *remarks]

    def roll_back(self) -> None:
        """Restore latest.pt, with other noise than before."""
        attempt = self._state.attempt + 1
        self._restore(checkpoint.load(self._folder.latest), self._folder.latest)
        self._state.attempt = self._noise.attempt = attempt

    def _restore(self, saved: checkpoint.State, path: Path) -> None:
        self._networks.restore(saved, path)
        self._state.restore(saved, self._noise.device)
        # Scores that are no longer asked for are not made.
        self._state.unscored = self._state.unscored and bool(self._config.eval.every)
        self._noise.attempt = self._state.attempt
        self._finite.restart(self._state.done)

    def _content(self) -> checkpoint.State:
        return {
            "config": self._config.recorded(),
            "versions": versions(),
            "data": self._fingerprint,
            "optimizers": self._optimizers,
            **self._networks.to_checkpoint(),
            **self._state.to_checkpoint(),
        }
