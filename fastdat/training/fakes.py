"""The fakes of D steps: G without gradients, one batch at a time, or all of an iteration in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fastdat.engine import passes
from fastdat.nets.grouped_batch import InGroups, NotGroupedError
from fastdat.nets.grouped_probe import check_in_groups
from fastdat.nets.pass_memory import activation_bytes
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError

MEMORY_SHARE = 1 / 4
"""Of a GPU's free memory that a pass over all batches may take where ``fakes_at_once`` is "auto"."""

Labels = tuple[Tensor, ...]
"""``(labels (N,) int64,)`` for conditional nets, else ``()``."""
Note = Callable[[str], None]


def quiet(text: str) -> None:
    """A :data:`Note` that nobody reads."""


def _as_wide(fakes: Tensor, z: Tensor) -> Tensor:
    """Autocast may have made them bfloat16, and the reals are not."""
    return fakes.to(torch.promote_types(fakes.dtype, z.dtype))


def on_gpu(z: Tensor) -> bool:
    return z.device.type == "cuda"


class Fakes:
    """Makes fakes with a G, compiled if ``config.compile``.

    Args:
        net: G: z (N, nz) -> (N, ...); a conditional one also takes labels (N,).
        config: compile, fold, and ``fakes_at_once``.
        note: called with a line for the log.
    """

    def __init__(self, net: nn.Module, config: TrainConfig, note: Note = quiet) -> None:
        self._net, self._config, self._note = net, config, note
        self.of_a_batch: Callable[..., Tensor] = self._compiled(net)
        """(z (N, nz), labels (N,)) -> (N, ...), with gradients unless they are off."""
        self._of_all: InGroups | None = None
        self._decided = False

    def at_once(self, z: Tensor, labels: Labels) -> bool:
        """Whether the fakes of all D steps are made in one pass; decided for the first latents (n, N, nz).

        Raises:
            ConfigError: the configuration says so, but G joins the samples of a batch.
        """
        if not self._decided:
            self._decided = True
            if self._wanted(z, labels):
                self._of_all = InGroups(self._net, len(z), compiler=self._compiled)
        return self._of_all is not None

    def of_steps(self, z: Tensor, labels: Labels) -> Iterator[Tensor]:
        """Fakes (N, ...) of one D step after another from z (n, N, nz) and labels (n, N); as wide as z at least."""
        if self.at_once(z, labels):
            assert self._of_all is not None
            made = self._of_all(*(x.flatten(0, 1) for x in (z, *labels)))
            yield from _as_wide(made, z).unflatten(0, z.shape[:2])
        else:
            for inputs in zip(z, *labels, strict=True):
                yield _as_wide(self.of_a_batch(*inputs), z)

    def _wanted(self, z: Tensor, labels: Labels) -> bool:
        wanted = self._config.fakes_at_once
        by_itself = wanted == "auto" and self._config.compile and on_gpu(z)
        if len(z) < 2 or not (wanted is True or by_itself):
            return False
        rows = 2 * min(3, z.shape[1])
        some = [x.flatten(0, 1)[:rows] for x in (z, *labels)]
        try:
            check_in_groups(self._net, *some)
        except NotGroupedError as error:
            if wanted is True:
                raise ConfigError(f"fakes_at_once=true, but {error}. Use fakes_at_once=false") from error
            self._note(f"G makes the fakes of each D step in a pass of its own: {error}")
            return False
        if wanted == "auto":
            needed = activation_bytes(self._net, *some) * z.shape[0] * z.shape[1]
            free = torch.cuda.mem_get_info(z.device)[0]
            if needed > MEMORY_SHARE * free:
                self._note(
                    f"G makes the fakes of each D step in a pass of its own: all at once would take up to "
                    f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
                )
                return False
        return True

    def _compiled(self, net: nn.Module) -> Callable[..., Tensor]:
        if not self._config.compile:
            return net
        compiled: Callable[..., Tensor] = torch.compile(net, options=passes.options(fold=self._config.fold))
        return compiled
