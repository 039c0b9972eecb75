"""FLOPs of a step, counted while it runs, and the least number that computes the same gradients."""

from __future__ import annotations

import copy
import uuid
from collections import OrderedDict
from collections.abc import Callable
from unittest import mock

import torch
from torch import fx, nn
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.utils.flop_counter import flop_registry

from bench.step.eager_baselines import sngan_loss
from bench.step.workloads import Batch, LossOf, Step, Variant, Workload, gradient_step
from fastdat.engine import compile as engines
from fastdat.engine import passes
from fastdat.experiments.step_counters import CountFlops


def of_forward(D: nn.Module, batch: Batch) -> int:
    """F: FLOPs of one forward pass of D over real and fake."""
    counter = CountFlops()
    with counter, torch.no_grad():
        copy.deepcopy(D)(torch.cat(batch))
    return counter.total


def of_loss(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> int:
    """FLOPs of an uncompiled loss and its backward pass, without the work that only the first call for a D does."""
    D = copy.deepcopy(D)
    gradient_step(loss_of, D, batch, workload)
    counter = CountFlops()
    with counter:
        gradient_step(loss_of, D, batch, workload)
    return counter.total


def of_step(step: Step, batch: Batch) -> int:
    """FLOPs of a variant, uncompiled unless it is folded: the compiler keeps convolutions and matrix products."""
    variant = step.variant
    if not variant.fold:
        return of_loss(variant.eager, step.D, batch, step.workload)
    D = copy.deepcopy(step.D)
    return of_compiled(lambda: gradient_step(variant.loss, D, batch, step.workload))


class _CountedError(Exception):
    """A graph was counted, and need not be compiled."""


class _CountGraph(CustomGraphPass):
    def __init__(self) -> None:
        self.total = 0
        self._id = uuid.uuid4().hex

    def __call__(self, graph: fx.Graph) -> None:
        self.total += of_graph(graph)
        raise _CountedError

    def uuid(self) -> str:
        return self._id  # never in a cache: a graph found there is not counted


def of_compiled(call: Callable[[], object]) -> int:
    """FLOPs of the graph that ``call`` compiles first with `fastdat.passes.options`, after all passes.

    The graph is neither compiled further nor run.
    """
    counter = _CountGraph()
    counted = (*passes.AFTER_DIFFERENTIATION, counter)
    with (
        mock.patch.object(passes, "AFTER_DIFFERENTIATION", counted),
        mock.patch.object(engines, "_ENGINES", OrderedDict()),  # a graph that is there already is not counted
    ):
        try:
            call()
        except Exception:
            if not counter.total:
                raise
    if not counter.total:
        raise RuntimeError("no graph was compiled, so nothing was counted")
    return counter.total


def of_graph(graph: fx.Graph) -> int:
    """FLOPs of an ATen graph with fake tensors in ``node.meta["val"]``."""
    total = 0
    for node in graph.nodes:
        formula = flop_registry.get(getattr(node.target, "overloadpacket", None))
        if formula is not None:
            args = fx.map_arg(node.args, lambda n: n.meta["val"])
            total += int(formula(*args, **node.kwargs, out_val=node.meta.get("val")))
    return total


def floor(variant: Variant, D: nn.Module, batch: Batch, workload: Workload) -> int:
    """The least number of FLOPs that computes a variant's gradients while every layer stays where D applies it.

    It is a number of passes of F each. A first-order step does not need the gradient for the images in its last
    backward pass, so that part is subtracted; the plain step, which costs 3F without it, shows how much it is.
    """
    forward = of_forward(D, batch)
    if variant.image_gradient:
        return round(variant.passes * forward)
    image_layers = 3 * forward - of_loss(sngan_loss, D, batch, workload)
    return round(variant.passes * forward) - image_layers
