"""Measures robustness while a run trains: the numbers become part of stats.jsonl, of the logger and of the report."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from fastdat.robustness.measured import measure
from fastdat.robustness.monitor_config import MonitorConfig
from fastdat.util.errors import ConfigError
from fastdat.util.settings import replace


class Observed(Protocol):
    """What the monitor uses of :class:`fastdat.Trainer`."""

    @property
    def netG(self) -> nn.Module: ...
    @property
    def netD(self) -> nn.Module: ...
    @property
    def done(self) -> int: ...
    @property
    def config(self) -> Any: ...
    def latents(self, n: int, *, seed: int = 0) -> tuple[Tensor, ...]: ...
    def reals(self, n: int) -> tuple[Tensor, ...]: ...


class Monitor:
    """A callback of :class:`fastdat.Trainer`: ``fastdat.Trainer(..., callbacks=[Monitor(every=1000)])``.

    It measures the nets that are trained (not the running average of G) on the same latents and the same reals each
    time. A ``DataLoader`` cannot go back to them in a resumed run, which measures other reals from then on, so that a
    curve may jump there. Training stays the same to the last bit. ``TrainConfig(monitor=...)`` and
    ``--set monitor.every=1000`` do the same from the configuration.

    Args:
        config: what is measured.
        settings: changes to it, by name.

    Raises:
        ConfigError: ``every`` is not given, or a bad value.
    """

    def __init__(self, config: MonitorConfig | None = None, **settings: Any) -> None:
        self.config = replace(config or MonitorConfig(), settings, prefix="monitor.")
        if self.config.every is None:
            raise ConfigError("how often is it measured? Give every=, G steps between measurements")

    def __call__(self, trainer: Observed) -> dict[str, float] | None:
        """The numbers of now, if it is time for them."""
        config, run = self.config, trainer.config
        assert config.every is not None
        # Of the lines of stats.jsonl, the first at or after each multiple of ``every``, and the last one of the run.
        since = trainer.done % config.every
        if since >= run.log_every and trainer.done != run.steps:
            return None
        latents = trainer.latents(config.samples, seed=config.seed)
        reals = trainer.reals(config.samples)
        bounds, size = run.dat.bounds, run.batch_size
        return measure(
            trainer.netG, trainer.netD, latents, reals, config, bounds=bounds, batch_size=size
        ).numbers()
