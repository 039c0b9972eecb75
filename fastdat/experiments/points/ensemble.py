"""Many small GANs trained at once: their parameters are stacked, and the pure DAT step is mapped over the stack.

A single two-dimensional GAN spends most of its time in Python and in the dispatch of small operations. One vmapped
graph pays that price once for all GANs. Adam works element by element, so it treats stacked parameters like separate
ones.

The random numbers of a member depend only on its seed, not on the other members. All mixtures and all attacks share
them, so that a comparison of two attacks is paired. They are drawn on the CPU and then moved, so that every device
gets the same numbers. Regularizers draw from a stream of their own: other numbers stay as they are without them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, islice
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastdat.config import DATConfig
from fastdat.data.mixture import Mixture
from fastdat.engine.functional import dat_grads, generator_grads
from fastdat.engine.terms import due
from fastdat.losses import generator_loss, get_loss, is_pair
from fastdat.nets.mlp import Init, MLPDiscriminator, MLPGenerator
from fastdat.regularizers.sign_attacks import ASGAN, RobGAN
from fastdat.regularizers.term import Pair, Term

Tensors = dict[str, Tensor]
Attack: TypeAlias = DATConfig | ASGAN | RobGAN

#: Each seed has an independent stream of random numbers for each purpose.
WEIGHTS, TRAINING, EVALUATION, REGULARIZERS = 0, 1, 2, 3
#: How many iterations' random numbers are drawn at once. Another value changes the results: it deals the same numbers
#: out in another order.
CHUNK = 100


@dataclass(frozen=True)
class Recipe:
    """Nets and training of one GAN. Width and depth are Fig. 3's (Sec. IV-A); the rest is open: one D step per G step
    and the defaults below are ours.

    Args:
        nz: size of z.
        hidden: width of a hidden layer.
        layers: hidden layers of each net.
        init: distribution of the initial weights, see :class:`fastdat.nets.mlp.MLP`.
        loss: name of the loss, see :mod:`fastdat.losses`.
        batch_size: real points, and as many fakes, in one D step.
        lr, betas: of Adam.
        regularizers: terms of D's loss, see :mod:`fastdat.regularizers`.
        dat_generator: whether G's step attacks its fakes (position (iii) of Table IV), and how its gradient passes the
            attack, see :func:`fastdat.generator_step`. The reals are those of the iteration's D step.
        generator_attack: the attack in G's step; None: that of the D step.

    Raises:
        ValueError: a ``generator_attack`` that no G step makes; a regularizer keeps a state or looks at a layer of D,
            which stacked members cannot.
    """

    nz: int = 16
    hidden: int = 64
    layers: int = 4
    init: Init = "kaiming"
    loss: str = "gan"
    batch_size: int = 64
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    regularizers: tuple[Term, ...] = ()
    dat_generator: Literal["none", "pass", "second_order", "cut"] = "none"
    generator_attack: DATConfig | None = None

    def __post_init__(self) -> None:
        if self.generator_attack is not None and self.dat_generator == "none":
            raise ValueError(
                "generator_attack would have no effect with dat_generator='none': set dat_generator, for example to "
                "'pass'"
            )
        for term in self.regularizers:
            if term.state() or term.needs.features:
                reason = "keeps a state" if term.state() else "looks at a layer of D"
                raise ValueError(
                    f"the regularizer {term.name} {reason}, so it cannot train many GANs at once: take another, or "
                    "train them one by one with fastdat.dat_step"
                )


class Ensemble:
    """One GAN for each pair of a mixture and a seed. All of them are trained together, iteration by iteration.

    Members are numbered mixture by mixture, and within a mixture seed by seed.

    Args:
        mixtures: the real data.
        seeds: each decides a member's initial weights and all its random numbers.
        attack: configuration of the D step.
        recipe: nets and training.
        device, dtype: of weights and samples.
        compile: whether to compile the two gradient computations.

    Raises:
        ValueError: there is no mixture or no seed, or the recipe attacks in G's step and the attack is not DAT's own.
    """

    def __init__(
        self,
        mixtures: Sequence[Mixture],
        seeds: Sequence[int],
        attack: Attack,
        recipe: Recipe | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        if not mixtures or not seeds:
            raise ValueError(
                f"an ensemble needs at least one mixture and one seed; got {len(mixtures)} and {len(seeds)}"
            )
        self.mixtures, self.seeds, self.recipe = tuple(mixtures), tuple(seeds), recipe or Recipe()
        pairs = [build_nets(seed, self.recipe) for seed in self.seeds]
        self.g_params = _stack([g for g, _ in pairs] * len(self.mixtures), device, dtype)
        self.d_params = _stack([d for _, d in pairs] * len(self.mixtures), device, dtype)
        self._g_adam, self._d_adam = (self._adam(params) for params in (self.g_params, self.d_params))
        self._attack, self._compile = attack, compile
        self._g_grads = g_grads(replace(self.recipe, regularizers=()), compile, attack)
        self._like = next(iter(self.g_params.values())).detach()
        size, nz = self.recipe.batch_size, self.recipe.nz
        self._done = 0
        self._batches = batches(self.mixtures, self.seeds, size, nz, self._like)
        self._draws = regularizer_draws(
            self.recipe.regularizers, len(self.mixtures), self.seeds, size, self._like.device
        )

    def __len__(self) -> int:
        return len(self.mixtures) * len(self.seeds)

    @torch.no_grad()
    def train(self, iterations: int) -> None:
        """Train for ``iterations`` iterations: each is a D step, then a G step against the new D."""
        self._done += iterations
        plain = replace(
            self.recipe, dat_generator="none", generator_attack=None
        )  # for which D's step is compiled
        for xr, z_d, z_g in islice(self._batches, iterations):
            terms, draws = next(self._draws)
            of_d = d_grads(replace(plain, regularizers=terms), self._attack, self._compile)
            _adam_step(self._d_adam, self.d_params, of_d(self.d_params, self.g_params, xr, z_d, draws))
            _adam_step(self._g_adam, self.g_params, self._g_grads(self.g_params, self.d_params, z_g, xr))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Generated points (mixtures, seeds, count, 2), from the same z at every call."""
        z = latents(self.mixtures, self.seeds, count, self.recipe.nz, self._like)
        points = generate(self.recipe)(self.g_params, z)
        return points.view(len(self.mixtures), len(self.seeds), count, -1)

    def state(self) -> dict[str, Any]:
        """A copy of all that training changes, in types that ``torch.load(weights_only=True)`` reads."""
        nets = (self.g_params, self.d_params)
        return {
            "iterations": self._done,
            "params": [{name: p.detach().cpu().clone() for name, p in params.items()} for params in nets],
            "adam": [copy.deepcopy(adam.state_dict()) for adam in (self._g_adam, self._d_adam)],
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an ensemble with equal arguments, with the numbers that it would have had.

        Random numbers depend on seed and iteration alone, so those of the earlier iterations are drawn and dropped.

        Raises:
            ValueError: this ensemble was trained before.
        """
        if self._done:
            raise ValueError(f"restore a new ensemble; this one has trained for {self._done} iterations")
        self._done = state["iterations"]
        for _ in islice(zip(self._batches, self._draws, strict=True), self._done):
            pass
        for params, saved in zip((self.g_params, self.d_params), state["params"], strict=True):
            for name, param in params.items():
                param.copy_(saved[name])
        for adam, saved in zip((self._g_adam, self._d_adam), state["adam"], strict=True):
            adam.load_state_dict(copy.deepcopy(saved))

    def _adam(self, params: Tensors) -> torch.optim.Adam:
        return torch.optim.Adam(params.values(), lr=self.recipe.lr, betas=self.recipe.betas, fused=True)


# --- one member's functions, mapped over all members. They are pure and cached: all ensembles of a recipe share one
# --- compilation.


@cache
def d_grads(recipe: Recipe, attack: Attack, compile: bool) -> Callable[..., Tensors]:
    """The gradients of the D step: a function (d, g, xr, z, draws) -> gradients of d, all stacked over members.

    All regularizers of the recipe take part; ``draws`` are the random numbers of each.
    """
    G, D = build_nets(0, recipe)  # only their structure is used
    terms = recipe.regularizers

    def grads(d: Tensors, g: Tensors, xr: Tensor, z: Tensor, draws: tuple[Tensors, ...]) -> Tensors:
        xf = functional_call(G, g, (z,))
        settings: dict[str, Any] = {"config": attack, "loss": recipe.loss, "regularizers": terms}
        return dat_grads(D, d, xr, xf, **settings, draws=draws)[0]

    return _mapped(grads, compile)


def g_grads(recipe: Recipe, compile: bool, attack: Attack) -> Callable[..., Tensors]:
    """The gradients of the G step: a function (g, d, z, xr) -> gradients of g, all stacked over members.

    Only a loss of pairs, and an attack in G's step, look at the real points. ``attack`` is that of the D step.

    Raises:
        ValueError: the recipe takes over an attack that has no place in G's step.
    """
    if recipe.dat_generator == "none":
        return _plain_g_grads(recipe, compile)
    in_g = recipe.generator_attack or attack
    if not isinstance(in_g, DATConfig):
        raise ValueError(
            f"dat_generator={recipe.dat_generator!r} needs DAT's attack, and the D step's is {type(in_g).__name__}: "
            "set generator_attack to a fastdat.DATConfig, or dat_generator='none'"
        )
    return _attacked_g_grads(replace(recipe, generator_attack=in_g), compile)


@cache
def _attacked_g_grads(recipe: Recipe, compile: bool) -> Callable[..., Tensors]:
    G, D = build_nets(0, recipe)
    settings: dict[str, Any] = {
        "config": recipe.generator_attack,
        "loss": recipe.loss,
        "wiring": recipe.dat_generator,
    }

    def grads(g: Tensors, d: Tensors, z: Tensor, xr: Tensor) -> Tensors:
        xf, pull = torch.func.vjp(lambda g: functional_call(G, g, (z,)), g)  # type: ignore[misc]
        found: Tensors = pull(generator_grads(D, d, xf, xr, **settings)[0])[0]
        return found

    return _mapped(grads, compile)


@cache
def _plain_g_grads(recipe: Recipe, compile: bool) -> Callable[..., Tensors]:
    G, D = build_nets(0, recipe)
    compares = is_pair(get_loss(recipe.loss))

    def loss(g: Tensors, d: Tensors, z: Tensor, xr: Tensor) -> Tensor:
        fake = functional_call(D, d, (functional_call(G, g, (z,)),))
        return generator_loss(recipe.loss, fake, functional_call(D, d, (xr,)) if compares else None)

    return _mapped(torch.func.grad(loss), compile)


@cache
def generate(recipe: Recipe) -> Callable[..., Tensor]:
    """A function (g, z) -> points, all stacked over members."""
    G, _ = build_nets(0, recipe)
    return torch.vmap(lambda g, z: functional_call(G, g, (z,)))


def build_nets(seed: int, recipe: Recipe) -> tuple[MLPGenerator, MLPDiscriminator]:
    """G and D with the initial weights of ``seed``, in float32 on the CPU."""
    generator = random_stream(seed, WEIGHTS)
    settings: dict[str, Any] = {"hidden": recipe.hidden, "layers": recipe.layers, "init": recipe.init}
    G = MLPGenerator(recipe.nz, **settings, generator=generator)
    return G, MLPDiscriminator(**settings, generator=generator)


def _stack(nets: Sequence[nn.Module], device: torch.device | str, dtype: torch.dtype) -> Tensors:
    """The parameters of all nets by name, each (members, ...)."""
    params = [dict(net.named_parameters()) for net in nets]
    return {
        name: torch.stack([p[name].detach() for p in params]).to(device, dtype).requires_grad_()
        for name in params[0]
    }


def _mapped(function: Callable[..., Tensors], compile: bool) -> Callable[..., Tensors]:
    mapped: Callable[..., Tensors] = torch.vmap(function)
    if not compile:
        return mapped

    def alone(*tensors: Any) -> Tensors:
        return mapped(*tensors)

    # torch keeps at most eight graphs of one code object, and closures share theirs: this one gets a copy.
    alone.__code__ = alone.__code__.replace()
    compiled: Callable[..., Tensors] = torch.compile(alone, fullgraph=True, dynamic=False)
    return compiled


def _adam_step(adam: torch.optim.Adam, params: Tensors, grads: Tensors) -> None:
    for name, param in params.items():
        param.grad = grads[name]
    adam.step()


# --- random numbers --------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """The data of one iteration."""

    xr: Tensor
    """Real points (members, m, 2)."""
    z_d: Tensor
    """z of the fakes in the D step (members, m, nz)."""
    z_g: Tensor
    """z of the G step (members, m, nz), independent of ``z_d`` (Algorithm 1, line 12)."""


def random_stream(seed: int, purpose: int) -> torch.Generator:
    """A generator on the CPU for one purpose of one seed."""
    key = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(key[0]))


def batches(
    mixtures: Sequence[Mixture], seeds: Sequence[int], size: int, nz: int, like: Tensor
) -> Iterator[Batch]:
    """Endless batches of ``size`` points, with the dtype and device of ``like``."""
    generators = [random_stream(seed, TRAINING) for seed in seeds]
    while True:
        chunks = [_chunk(mixtures, size, nz, g) for g in generators]
        # Of each seed (mixtures, CHUNK, m, ...) -> of all (CHUNK, mixtures * seeds, m, ...)
        parts = [
            torch.stack(part, dim=1).flatten(0, 1).to(like).transpose(0, 1)
            for part in zip(*chunks, strict=True)
        ]
        for i in range(CHUNK):
            yield Batch(*(part[i].contiguous() for part in parts))


def regularizer_draws(
    terms: Sequence[Term], mixtures: int, seeds: Sequence[int], size: int, device: torch.device
) -> Iterator[tuple[tuple[Term, ...], tuple[Tensors, ...]]]:
    """For each iteration the regularizers whose turn it is, and the random numbers of each, (members, m, ...).

    A seed's numbers are those that ``fastdat.dat_step`` draws from its stream, with ``size`` points on the CPU.
    """
    generators = [random_stream(seed, REGULARIZERS) for seed in seeds]
    x = Pair(torch.empty(size, 2), torch.empty(size, 2))  # terms look at its shape
    for iteration in count():
        turn = due(terms, iteration).terms
        drawn = []
        for term in turn:
            of_seeds = [term.draws(x, generator) for generator in generators]
            drawn.append(
                {
                    name: torch.stack([draws[name] for draws in of_seeds] * mixtures).to(device)
                    for name in of_seeds[0]
                }
            )
        yield turn, tuple(drawn)


def latents(mixtures: Sequence[Mixture], seeds: Sequence[int], count: int, nz: int, like: Tensor) -> Tensor:
    """z for evaluation (members, count, nz), the same at every call."""
    z = torch.stack([torch.randn(count, nz, generator=random_stream(seed, EVALUATION)) for seed in seeds])
    return torch.cat([z] * len(mixtures)).to(like)


def _chunk(
    mixtures: Sequence[Mixture], size: int, nz: int, g: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """xr, z_d and z_g of one seed for CHUNK iterations, each (mixtures, CHUNK, m, ...)."""
    u = torch.rand(CHUNK, size, generator=g)
    noise = torch.randn(CHUNK, size, 2, generator=g)
    z = torch.randn(2, CHUNK, size, nz, generator=g)
    xr = torch.stack([mixture.place(u, noise) for mixture in mixtures])
    z_d, z_g = z.unsqueeze(1).expand(-1, len(mixtures), -1, -1, -1)
    return xr, z_d, z_g
