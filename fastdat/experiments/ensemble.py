"""Many small GANs trained at once: parameters stacked along a first axis, the pure DAT step mapped over it.

A two-dimensional GAN alone spends most of its time in Python and in dispatch; as one vmapped graph, many pay that
once. Adam, being elementwise, does the same to stacked parameters as to each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastdat.config import DATConfig
from fastdat.data.mixture import Mixture
from fastdat.engine.functional import dat_grads
from fastdat.experiments import draws
from fastdat.losses import generator_loss
from fastdat.nets.mlp import Init, MLPDiscriminator, MLPGenerator

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """Nets and training of one member; the default is Fig. 3's (Sec. IV-A and Sec. IV-B, one D step a G step)."""

    nz: int = 16
    hidden: int = 64
    layers: int = 4
    init: Init = "kaiming"
    loss: str = "gan"
    batch_size: int = 64
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)


class Ensemble:
    """One GAN for every mixture and seed, trained in step with each other.

    Args:
        mixtures, seeds: members are numbered mixture by mixture, seed by seed within one.
        attack: D's step.
        recipe: nets and training.
        device, dtype: of weights and samples.
        compile: compile the two gradient computations.

    Raises:
        ValueError: no mixture or no seed.
    """

    def __init__(
        self,
        mixtures: Sequence[Mixture],
        seeds: Sequence[int],
        attack: DATConfig,
        recipe: Recipe | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        if not mixtures or not seeds:
            raise ValueError(f"an ensemble needs a mixture and a seed; got {len(mixtures)} and {len(seeds)}")
        self.mixtures, self.seeds, self.recipe = tuple(mixtures), tuple(seeds), recipe or Recipe()
        pairs = [build_nets(seed, self.recipe) for seed in self.seeds]
        self.g_params = _stack([g for g, _ in pairs] * len(self.mixtures), device, dtype)
        self.d_params = _stack([d for _, d in pairs] * len(self.mixtures), device, dtype)
        self._g_adam, self._d_adam = (self._adam(params) for params in (self.g_params, self.d_params))
        self._g_grads, self._d_grads = g_grads(self.recipe, compile), d_grads(self.recipe, attack, compile)
        self._like = next(iter(self.g_params.values())).detach()
        size, nz = self.recipe.batch_size, self.recipe.nz
        self._batches = draws.batches(self.mixtures, self.seeds, size, nz, self._like)

    def __len__(self) -> int:
        return len(self.mixtures) * len(self.seeds)

    @torch.no_grad()
    def train(self, iterations: int) -> None:
        """So many times: a D step, then a G step against the new D."""
        for xr, z_d, z_g in islice(self._batches, iterations):
            _step(self._d_adam, self.d_params, self._d_grads(self.d_params, self.g_params, xr, z_d))
            _step(self._g_adam, self.g_params, self._g_grads(self.g_params, self.d_params, z_g))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Points (mixtures, seeds, count, 2) from the same z at every call."""
        z = draws.latents(self.mixtures, self.seeds, count, self.recipe.nz, self._like)
        points = generate(self.recipe)(self.g_params, z)
        return points.view(len(self.mixtures), len(self.seeds), count, -1)

    def _adam(self, params: Tensors) -> torch.optim.Adam:
        return torch.optim.Adam(params.values(), lr=self.recipe.lr, betas=self.recipe.betas, fused=True)


# --- one member's functions, mapped over all: pure, and so compiled once for all ensembles of a recipe --------------


@cache
def d_grads(recipe: Recipe, attack: DATConfig, compile: bool) -> Callable[..., Tensors]:
    """The D step: (d, g, xr, z) -> gradient of each of d, stacked."""
    G, D = build_nets(0, recipe)  # their weights are not used

    def grads(d: Tensors, g: Tensors, xr: Tensor, z: Tensor) -> Tensors:
        return dat_grads(D, d, xr, functional_call(G, g, (z,)), config=attack, loss=recipe.loss)[0]

    return _mapped(grads, compile)


@cache
def g_grads(recipe: Recipe, compile: bool) -> Callable[..., Tensors]:
    """The G step: (g, d, z) -> gradient of each of g, stacked."""
    G, D = build_nets(0, recipe)

    def loss(g: Tensors, d: Tensors, z: Tensor) -> Tensor:
        return generator_loss(recipe.loss, functional_call(D, d, (functional_call(G, g, (z,)),)))

    return _mapped(torch.func.grad(loss), compile)


@cache
def generate(recipe: Recipe) -> Callable[..., Tensor]:
    """(g, z) -> points, stacked."""
    G, _ = build_nets(0, recipe)
    return torch.vmap(lambda g, z: functional_call(G, g, (z,)))


def build_nets(seed: int, recipe: Recipe) -> tuple[MLPGenerator, MLPDiscriminator]:
    """G and D of one member as ``seed`` draws them, float32 on the CPU."""
    of_seed = draws.generator(seed, draws.WEIGHTS)
    settings: dict[str, Any] = {"hidden": recipe.hidden, "layers": recipe.layers, "init": recipe.init}
    G = MLPGenerator(recipe.nz, **settings, generator=of_seed)
    return G, MLPDiscriminator(**settings, generator=of_seed)


def _stack(nets: Sequence[nn.Module], device: torch.device | str, dtype: torch.dtype) -> Tensors:
    """Parameters of all nets by name, (members, ...)."""
    params = [dict(net.named_parameters()) for net in nets]
    return {
        name: torch.stack([p[name].detach() for p in params]).to(device, dtype).requires_grad_()
        for name in params[0]
    }


def _mapped(function: Callable[..., Tensors], compile: bool) -> Callable[..., Tensors]:
    mapped: Callable[..., Tensors] = torch.vmap(function)
    return torch.compile(mapped, fullgraph=True, dynamic=False) if compile else mapped


def _step(adam: torch.optim.Adam, params: Tensors, grads: Tensors) -> None:
    for name, param in params.items():
        param.grad = grads[name]
    adam.step()
