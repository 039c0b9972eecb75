"""Reals by step: from an image set, from a ``DataLoader``, or from an object of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastdat.data import ImageSet, TrainSampler
from fastdat.training.loader_workers import LoaderWorkers
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.ranks import ONE_PROCESS, Ranks


@runtime_checkable
class Batches(Protocol):
    """Reals by step: :class:`fastdat.data.TrainSampler`, or anything with this method.

    Where several ranks train together, each has its own part of the batch, and ``batch_size`` is the size of the part.
    Conditional nets also need a method ``labels(step) -> (batch_size,) int64``.
    """

    def batch(self, step: int) -> Tensor:
        """Reals of D step ``step``: (batch_size, C, H, W) float32 in [-1, 1] on the nets' device."""
        ...


class LoaderBatches:
    """Batches of a ``DataLoader``, or of any iterable that can be iterated over repeatedly.

    The loader decides the order, so a resumed run sees other batches than an uninterrupted run. With an
    :class:`ImageSet` both see the same batches.

    Args:
        loader: yields images in [-1, 1], or tuples of images and labels; incomplete batches are skipped.
        batch_size: samples per batch.
        device: where the batches are put.
    """

    def __init__(self, loader: Iterable[Any], batch_size: int, device: torch.device) -> None:
        self._loader, self._batch_size, self._device = loader, batch_size, device
        self._iterator: Iterator[Any] = iter(())
        self._workers = LoaderWorkers()
        self._step = self._epoch = -1
        self._short = False
        self._now: tuple[Tensor, ...] = ()
        self._kept: tuple[Tensor, ...] = ()

    def batch(self, step: int) -> Tensor:
        """The next batch; the same one again if ``step`` was the last step asked for."""
        return self._at(step)[0]

    def labels(self, step: int) -> Tensor:
        """Labels of the batch of ``step``.

        Raises:
            ConfigError: the loader yields no labels.
        """
        if len(self._at(step)) < 2:
            raise ConfigError("these nets are conditional, but the loader yields no labels beside the images")
        return self._now[1]

    def kept(self, step: int) -> tuple[Tensor, ...]:
        """One batch, the same at every call: the present one, or that of ``step``, the next one, at the beginning."""
        if not self._kept:
            self._kept = self._now or self._at(step)
        return self._kept

    def _at(self, step: int) -> tuple[Tensor, ...]:
        if step != self._step:
            self._now, self._step = self._next(), step
        return self._now

    def _next(self) -> tuple[Tensor, ...]:
        parts: tuple[Any, ...] = ()
        for fresh in (False, True, True):
            if fresh:
                self._epoch += 1
                for name in ("sampler", "batch_sampler"):
                    # Of torch's DistributedSampler, which otherwise gives the same order for ever.
                    begin = getattr(getattr(self._loader, name, None), "set_epoch", None)
                    if begin is not None:
                        begin(self._epoch)
                self._iterator = self._workers.iterate(self._loader)
            for item in self._iterator:
                parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
                if not isinstance(parts[0], Tensor) or not parts[0].is_floating_point():
                    found = parts[0].dtype if isinstance(parts[0], Tensor) else type(parts[0]).__name__
                    raise ConfigError(f"the loader must yield floating-point images in [-1, 1], got {found}")
                if len(parts[0]) == self._batch_size:
                    self._short = False
                    # Labels after the images; file names and the like are nobody's input.
                    tensors = [part for part in parts[:2] if isinstance(part, Tensor)]
                    return tuple(part.to(self._device, non_blocking=True) for part in tensors)
                # A short batch may be the last of an epoch. A second one in a row is an error.
                if self._short or len(parts[0]) > self._batch_size:
                    break
                self._short = True
        raise ConfigError(
            f"the loader yields batches of {len(parts[0])}, expected {self._batch_size}: config.batch_size, shared out "
            "among the processes that train together"
            if parts
            else self._used_up()
        )

    def _used_up(self) -> str:
        if self._step < 0:
            return "the loader yields nothing"
        return (
            f"the {type(self._loader).__name__} that was given as batches has ended and yields nothing when it is "
            "iterated over again: give a DataLoader, a list of batches, or an iterator without an end"
        )

    def close(self) -> None:
        """Drop the loader's iterator, which ends its worker processes."""
        self._iterator = iter(())
        self._workers.close()


class PartOfBatches:
    """A rank's part of whole batches, which every rank makes.

    Args:
        whole: the batches.
        ranks: those that share them out.
    """

    def __init__(self, whole: Batches, ranks: Ranks) -> None:
        self._whole, self._ranks = whole, ranks

    def batch(self, step: int) -> Tensor:
        return self._ranks.part(self._whole.batch(step))


def check_shares(config: TrainConfig, ranks: Ranks) -> None:
    """Refuse a batch that cannot be shared out evenly; raises ConfigError."""
    batch, size = config.batch_size, ranks.size
    if batch % size:
        fitting = [n for n in range(1, size) if batch % n == 0]
        raise ConfigError(
            f"batch_size={batch} is the batch of all {size} processes, which cannot have equal parts of it. Give a "
            f"multiple of {size}, such as {max(1, round(batch / size)) * size}, or "
            f"start another number of processes: {' or '.join(map(str, fitting[-2:]))}"
        )


class Parts(NamedTuple):
    """Batches in two parts: what comes from outside, and what is computed from it on tensors of fixed shapes.

    ``make(*fetch(step))`` is the batch of D step ``step``.
    """

    fetch: Callable[[int], tuple[Tensor, ...]]
    make: Callable[..., Tensor]


def in_parts(batches: Batches) -> Parts:
    """The parts of ``batches``: all but those of an image set come ready from outside.

    Batches of several steps are fetched before any is used. So they are copied: a user's object may fill one tensor
    again and again.
    """
    if isinstance(batches, TrainSampler):
        return Parts(batches.fetched, batches.made)
    return Parts(lambda step: (batches.batch(step).clone(),), lambda reals: reals)


def first_reals(
    batches: Any, n: int, config: TrainConfig, done: int, *, labelled: bool
) -> tuple[Tensor, ...]:
    """The first ``n`` reals of a run, and their labels if it uses them; they change no batch of the training.

    Args:
        batches: of the run, as :class:`Batches`.
        n: how many. A :class:`LoaderBatches`, which cannot go back, has at most one batch of them.
        config: of the run.
        done: G steps done.
        labelled: with labels.
    """
    if isinstance(batches, LoaderBatches):
        return tuple(part[:n] for part in batches.kept(done * config.n_dis)[: 1 + labelled])
    first = batches.batch(0)  # on several ranks it is a part of a batch
    steps = range(1, -(-n // len(first)))
    parts = [[first, *(batches.batch(step) for step in steps)]]
    if labelled:
        parts.append([batches.labels(step) for step in (0, *steps)])
    return tuple(torch.cat(part)[:n] for part in parts)


def as_batches(
    data: Any,
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks = ONE_PROCESS,
) -> Batches:
    """``data`` as :class:`Batches`: a sampler of an :class:`ImageSet`, ``data`` itself, or the batches of a loader.

    On several ranks, a sampler's batches are this rank's part of the batch; a loader's must be.

    Raises:
        ConfigError: ``data`` is none of these, has fewer images than a batch, or is to be mirrored by ``config.flip``
            without being an :class:`ImageSet`.
    """
    if isinstance(data, ImageSet):
        memory_format = torch.channels_last if config.channels_last is True else torch.contiguous_format
        try:
            return TrainSampler(
                data,
                config.batch_size // ranks.size,
                seed=config.seed,
                flip=config.flip,
                device=device,
                memory_format=memory_format,
                rank=ranks.rank,
                world_size=ranks.size,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if config.flip:
        raise ConfigError(
            f"flip=true would have no effect: a fastdat.data.ImageSet is mirrored here, and {type(data).__name__} "
            "makes its batches by itself. Mirror them there, with torchvision's RandomHorizontalFlip for example"
        )
    if isinstance(data, Batches):
        return data
    if isinstance(data, Iterable) and not isinstance(data, Tensor | str):
        return LoaderBatches(data, config.batch_size // ranks.size, device)
    raise ConfigError(
        "reals must be a fastdat.data.ImageSet, have a method batch(step), or be a DataLoader; "
        f"got {type(data).__name__}"
    )
