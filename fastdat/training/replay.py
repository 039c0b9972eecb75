"""Iterations that a GPU replays as CUDA graphs: the same numbers, without the host between the kernels.

At batch 64 the host takes about twice as long to launch an iteration as the GPU to compute it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastdat.engine.capture import Captured, CaptureError, ChangedError, KindsError
from fastdat.engine.cuda_graphs import CUDAGraphs, Recorder
from fastdat.engine.fixed import capturable
from fastdat.training.batches import Batches, in_parts
from fastdat.training.fakes import Labels
from fastdat.training.iteration import DInputs, Inputs, Iteration
from fastdat.training.networks import Networks
from fastdat.training.noise import Noise
from fastdat.training.schedule import hold_rates_in_tensors
from fastdat.training.state import RunState
from fastdat.training.train_config import TrainConfig
from fastdat.util.ranks import ONE_PROCESS, Ranks

#: Graphs that are kept: iterations differ in which regularizers take part in which of their D steps.
KINDS = 32


class ReplayedIteration(Iteration):
    """Runs the first iterations of each kind as they are, then captures one and replays it.

    What :meth:`fill` fetches is copied into the graph's inputs; rates and other numbers that move lie in tensors. Where
    something moves to other memory, the graphs are made anew. Where no graph can be made, iterations go on as they are.

    Args:
        networks, batches, noise, state, config: as in :class:`Iteration`.
        recorder: makes the graphs.

    Raises:
        ConfigError: as in :class:`Iteration`.
    """

    def __init__(
        self,
        networks: Networks,
        batches: Batches,
        noise: Noise,
        state: RunState,
        config: TrainConfig,
        recorder: Recorder,
    ) -> None:
        super().__init__(networks, batches, noise, state, config)
        optimizers = [networks.opt_g, networks.opt_d]
        hold_rates_in_tensors(optimizers)
        nets = [networks.G, networks.D]
        if networks.ema is not None:
            nets.append(networks.ema.net)
            if config.cosine.ema_halflife:
                networks.ema.hold_decay_in_tensors()
        self._fetch, self._make = in_parts(batches)
        self._like: Tensor | None = None
        self._captured = Captured(self._of_fetched, nets, optimizers, kinds=KINDS, recorder=recorder)
        self._uncaptured = False
        self._decay = self._decay_in_graph()

    def _other_decay(self) -> str | None:
        """Whether a callback has set the decay of the average, which is a number in the graph, in words."""
        now, before = self._decay_in_graph(), self._decay
        self._decay = now
        if now == before or not self.graphs:
            return None
        return f"the decay of the average is {now}, and was {before}"

    def _decay_in_graph(self) -> float | None:
        moves = self._config.cosine.ema_halflife
        return None if self._ema is None or moves else self._ema.decay

    @property
    def graphs(self) -> int:
        """How many graphs there are now."""
        return self._captured.graphs

    def run(self, step: int) -> None:
        self.schedule(step)
        inputs = self.fill(step)
        inputs = inputs._replace(discriminator=tuple(inputs.discriminator))
        try:
            if not self._uncaptured:
                self._run_captured(inputs)
                return
        except KindsError:
            pass  # this iteration runs as it is
        except CaptureError as error:
            self._uncaptured = True
            self._captured.reset()
            self.remarks.append(f"iterations are not captured as a CUDA graph, and go on as before: {error}")
        self._of_fetched(inputs)

    def _run_captured(self, inputs: Inputs) -> None:
        other_decay = self._other_decay()
        if other_decay is not None:
            self._make_anew(other_decay)
        before = self.graphs
        try:
            self._captured(inputs)
        except ChangedError as error:
            self._make_anew(error.change)
            self._captured(inputs)
        if self.graphs > before == 0:
            self.remarks.append("an iteration is one CUDA graph from now on")

    def _make_anew(self, changed: str) -> None:
        self._captured.reset()
        self.remarks.append(f"{changed}: the CUDA graph of an iteration is made anew")

    def _of_fetched(self, inputs: Inputs) -> None:
        """The body, with reals made from what was fetched."""
        made = (d._replace(reals=self._make(*d.reals)) for d in inputs.discriminator)
        self.body(inputs._replace(discriminator=made))

    def _d_inputs(self, d_step: int) -> DInputs:
        fetched = self._fetch(d_step)
        if self._like is None:
            shape = self._make(*fetched).shape
            self._like = torch.empty(1, device=self._noise.device).expand(shape)
        return self._beside(d_step, fetched, self._like)

    def _labels_real(self, d_step: int) -> Labels:
        return tuple(labels.clone() for labels in super()._labels_real(d_step))


def iteration_for(
    networks: Networks,
    batches: Batches,
    noise: Noise,
    state: RunState,
    config: TrainConfig,
    ranks: Ranks = ONE_PROCESS,
) -> Iteration:
    """The iteration of a run: replayed where that is possible, else as it is, with a remark that says why.

    Args:
        networks, batches, noise, state, config, ranks: as in :class:`Iteration`.

    Raises:
        ConfigError: as in :class:`Iteration`.
    """
    recorder = recorder_for(networks.device, config)
    if recorder is None:
        return Iteration(networks, batches, noise, state, config, ranks)
    obstacle = f"{ranks.size} processes train together" if ranks else obstacle_to_capture(networks, config)
    if obstacle is None:
        return ReplayedIteration(networks, batches, noise, state, config, recorder)
    iteration = Iteration(networks, batches, noise, state, config, ranks)
    iteration.remarks.append(f"iterations are not captured as a CUDA graph: {obstacle}")
    return iteration


def recorder_for(device: torch.device, config: TrainConfig) -> Recorder | None:
    """CUDA graphs on a GPU, for compiled steps; None where no graphs are wanted."""
    wanted = device.type == "cuda" and config.cuda_graph and config.compile
    return CUDAGraphs(device) if wanted else None


def obstacle_to_capture(networks: Networks, config: TrainConfig) -> str | None:
    """Why the iterations of a run on a GPU cannot be captured, in words; None if nothing is known to be in the way."""
    if config.cosine.beta2 is not None:
        return "cosine.beta2 moves a number of Adam, which a graph has built in"
    try:
        capturable([networks.opt_g, networks.opt_d])
    except ValueError as error:
        return str(error)
    moves = config.lr_decay != "none" or config.cosine.lr is not None
    for optimizer in (networks.opt_g, networks.opt_d):
        if moves and not all(group.get("fused") for group in optimizer.param_groups):
            return (
                f"the rate of {type(optimizer).__name__} moves, which only a fused step reads from the device: make it "
                "with fused=True"
            )
    return None
