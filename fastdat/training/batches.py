"""Where reals come from: anything that answers by step, made from whatever a user has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastdat.data import ImageSet, TrainSampler
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError


@runtime_checkable
class Batches(Protocol):
    """Reals by step: :class:`fastdat.data.TrainSampler`, or anything with this method.

    For conditional nets a method ``labels(step) -> (batch_size,) int64`` is wanted, too.
    """

    def batch(self, step: int) -> Tensor:
        """Reals of D step ``step``: (batch_size, C, H, W) float32 in [-1, 1] on the nets' device."""
        ...


class LoaderBatches:
    """Batches of a ``DataLoader``, or of any iterable that can be gone through again and again.

    It yields images in [-1, 1], or tuples of them and labels. Their order is the loader's affair, so a resumed run sees
    other batches than an uninterrupted one; with an :class:`ImageSet` it sees the same.

    Args:
        loader: the iterable; incomplete batches are left out.
        batch_size: samples a batch.
        device: where the batches are put.
    """

    def __init__(self, loader: Iterable[Any], batch_size: int, device: torch.device) -> None:
        self._loader, self._batch_size, self._device = loader, batch_size, device
        self._iterator: Iterator[Any] = iter(())
        self._step = -1
        self._short = False
        self._now: tuple[Tensor, ...] = ()

    def batch(self, step: int) -> Tensor:
        """The next batch, when ``step`` is not the last one asked for."""
        return self._at(step)[0]

    def labels(self, step: int) -> Tensor:
        """Labels of the batch of ``step``.

        Raises:
            ConfigError: the loader yields none.
        """
        if len(self._at(step)) < 2:
            raise ConfigError("these nets are conditional, but the loader yields no labels beside the images")
        return self._now[1]

    def _at(self, step: int) -> tuple[Tensor, ...]:
        if step != self._step:
            self._now, self._step = self._next(), step
        return self._now

    def _next(self) -> tuple[Tensor, ...]:
        parts: tuple[Any, ...] = ()
        for fresh in (False, True, True):
            if fresh:
                self._iterator = iter(self._loader)
            for item in self._iterator:
                parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
                if not isinstance(parts[0], Tensor) or not parts[0].is_floating_point():
                    found = parts[0].dtype if isinstance(parts[0], Tensor) else type(parts[0]).__name__
                    raise ConfigError(f"the loader must yield floating-point images in [-1, 1], got {found}")
                if len(parts[0]) == self._batch_size:
                    self._short = False
                    return tuple(part.to(self._device, non_blocking=True) for part in parts)
                # One that is short may be the last of an epoch; the next one is not.
                if self._short or len(parts[0]) > self._batch_size:
                    break
                self._short = True
        raise ConfigError(
            f"the loader yields batches of {len(parts[0])}, but config.batch_size is {self._batch_size}"
            if parts
            else "the loader yields nothing"
        )

    def close(self) -> None:
        """Let go of the loader's iterator, and so of its processes."""
        self._iterator = iter(())


def as_batches(data: Any, config: TrainConfig, device: torch.device) -> Batches:
    """``data`` as :class:`Batches`: itself, or a sampler of an :class:`ImageSet`, or a loader's batches.

    Raises:
        ConfigError: it is none of these, or has fewer images than a batch.
    """
    if isinstance(data, ImageSet):
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        try:
            return TrainSampler(
                data,
                config.batch_size,
                seed=config.seed,
                flip=config.flip,
                device=device,
                memory_format=memory_format,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if isinstance(data, Batches):
        return data
    if isinstance(data, Iterable) and not isinstance(data, Tensor | str):
        return LoaderBatches(data, config.batch_size, device)
    raise ConfigError(
        "reals must be a fastdat.data.ImageSet, have a method batch(step), or be a DataLoader; "
        f"got {type(data).__name__}"
    )
