"""What bench_kernels measures: each kernel's inputs, the bytes it must move, its providers and the exact results."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastdat.kernels import formulas, ops
from fastdat.kernels.dispatch import AVAILABLE, INTERPRETED
from fastdat.nets import SNGANDiscriminator

EAGER, COMPILED, FASTDAT, PARAMETRIZATION = "torch eager", "torch.compile", "fastdat", "torch parametrization"
Shape = tuple[int, ...]


def identity(inputs: Any) -> Any:
    return inputs


@dataclass(frozen=True)
class Provider:
    """One way to compute a case."""

    name: str
    call: Callable[[Any], list[Tensor]]
    """(what ``prepare`` made) -> results, in the order of ``Case.exact``."""
    prepare: Callable[[Any], Any] = identity
    """(inputs) -> what ``call`` takes; not timed."""


class Case(ABC):
    """One kernel on inputs of one kind."""

    kernel: str
    device: torch.device
    slack: float = 1e-6
    """Relative error that is never held against a provider."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Kernel, shape, dtype and layout."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The same for the JSON."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """What must move to and from memory, each tensor counted as bench/README.md says."""

    @property
    @abstractmethod
    def input_bytes(self) -> int:
        """Size of one set of inputs."""

    @property
    def memory_bytes(self) -> int:
        """A bound on the device memory that measuring takes, float64 results and all copies included."""
        return 24 * self.input_bytes + (256 << 20)

    @abstractmethod
    def inputs(self, seed: int) -> Any:
        """A set of random inputs."""

    @abstractmethod
    def exact(self, inputs: Any) -> list[Tensor]:
        """The results in float64."""

    @abstractmethod
    def providers(self) -> tuple[Provider, ...]:
        """The plain formula first."""

    def provider_names(self) -> tuple[str, ...]:
        """Those of ``providers()``, and of those that would be there on a GPU."""
        return EAGER, COMPILED, FASTDAT

    def _normal(self, seed: int) -> Callable[..., Tensor]:
        """(*shape) -> random numbers, others at each call."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return partial(torch.randn, generator=generator, device=self.device)

    def _three(self, call: Callable[..., list[Tensor]], name: str) -> tuple[Provider, ...]:
        """``call`` (function, inputs) on the formula, on the same compiled, and on the kernel where it runs."""
        formula = getattr(formulas, name)
        found = {EAGER: formula, COMPILED: torch.compile(formula, dynamic=False, fullgraph=True)}
        if has_kernels(self.device):
            found[FASTDAT] = getattr(ops, name)
        return tuple(Provider(provider, partial(call, function)) for provider, function in found.items())


def has_kernels(device: torch.device) -> bool:
    """Whether kernels run there compiled: their interpreter is never timed."""
    return AVAILABLE and device.type == "cuda" and not INTERPRETED


# --- the attack step on the samples -------------------------------------------------------------------------------

DELTA_CLIP, BOUNDS = 1.0, (-1.0, 1.0)
MARGIN = 1e-5
"""No element is so close to a limit that rounding decides on which side it lies."""

What = Literal["forward", "stats", "backward"]


@dataclass(frozen=True)
class PerturbClip(Case):
    """``perturb_clip`` on a batch [real; fake]: alone, with its statistics, or with its backward pass."""

    batch: int
    """Samples a side."""
    resolution: int
    dtype: torch.dtype
    channels_last: bool
    what: What
    device: torch.device
    kernel = "perturb_clip"

    @property
    def shape(self) -> Shape:
        return 2 * self.batch, 3, self.resolution, self.resolution

    @property
    def elements(self) -> int:
        return 2 * self.batch * 3 * self.resolution**2

    @property
    def name(self) -> str:
        kind = self.kernel if self.what == "forward" else f"{self.kernel}_{self.what}"
        return f"{kind}-{'x'.join(map(str, self.shape))}-{_short(self.dtype)}-{self.layout}"

    @property
    def layout(self) -> str:
        return "channels_last" if self.channels_last else "NCHW"

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "dtype": _short(self.dtype),
            "layout": self.layout,
            "what": self.what,
        }

    @property
    def bytes(self) -> int:
        """x, grad and x_hat once; with statistics two numbers a sample; backward: the upstream gradient, x and grad
        read again and two gradients written. Coefficients (and their gradients) are one float32 a sample."""
        passes = {"forward": 3, "stats": 3, "backward": 3 + 5}[self.what]
        of_sample = {"forward": 4, "stats": 4 + 8, "backward": 4 + 8}[self.what]
        return passes * self.elements * self.dtype.itemsize + of_sample * self.shape[0]

    @property
    def input_bytes(self) -> int:
        tensors = 3 if self.what == "backward" else 2
        return tensors * self.elements * self.dtype.itemsize + 4 * self.shape[0]

    @property
    def memory_bytes(self) -> int:
        return 36 * 4 * self.elements

    def inputs(self, seed: int) -> tuple[Tensor, ...]:
        """x, grad, coefficient, upstream (backward only): about half the elements meet a limit."""
        normal = self._normal(seed)
        x = self._laid_out(torch.erf(normal(*self.shape) / 2**0.5))  # uniform in [-1, 1]
        grad = self._laid_out(normal(*self.shape))
        c = normal(self.shape[0]) * 0.4
        for parts in zip(x.split(self._chunk), grad.split(self._chunk), c.split(self._chunk), strict=True):
            keep_away_from_limits(*parts)
        if self.what != "backward":
            return x, grad, c
        upstream = self._laid_out(normal(*self.shape))
        return *(t.requires_grad_() for t in (x, grad, c)), upstream

    def _laid_out(self, t: Tensor) -> Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return t.to(self.dtype, memory_format=layout)

    @property
    def _chunk(self) -> int:
        """Samples taken at once in float64."""
        return max(1, (1 << 24) // (3 * self.resolution**2))

    def exact(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        parts = zip(*(t.detach().split(self._chunk) for t in inputs), strict=True)
        formula = formulas.perturb_clip_stats if self.what == "stats" else formulas.perturb_clip
        results = []
        for part in parts:
            wide = [t.double().requires_grad_(self.what == "backward") for t in part]
            results.append(self._call(formula, wide))
        return [torch.cat(pieces) for pieces in zip(*results, strict=True)]

    def _call(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        if self.what == "stats":
            return list(function(*inputs, DELTA_CLIP, BOUNDS))
        *arguments, upstream = inputs if self.what == "backward" else (*inputs, inputs[0])
        x_hat = function(*arguments, DELTA_CLIP, BOUNDS)
        if self.what == "forward":
            return [x_hat]
        return [x_hat.detach(), *torch.autograd.grad(x_hat, arguments, upstream)]

    def providers(self) -> tuple[Provider, ...]:
        return self._three(self._call, "perturb_clip_stats" if self.what == "stats" else "perturb_clip")


def keep_away_from_limits(x: Tensor, grad: Tensor, coefficient: Tensor) -> None:
    """Change the few elements within ``MARGIN`` of a limit, in place."""
    delta = coefficient.double().reshape(-1, 1, 1, 1) * grad.double()
    moved = x.double() + delta.clamp(-DELTA_CLIP, DELTA_CLIP)
    near = (delta.abs() - DELTA_CLIP).abs() < MARGIN
    for bound in BOUNDS:
        near |= (moved - bound).abs() < MARGIN
    x.copy_(torch.where(near, x / 2, x))
    grad.masked_fill_(near, 0.0)


# --- the coefficients of the attack -------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttackCoefficients(Case):
    """``attack_coefficients`` as ``DATConfig()`` asks for them: logits attacked, one sign a side."""

    n: int
    """Samples a side."""
    device: torch.device
    kernel = "attack_coefficients"

    @property
    def name(self) -> str:
        return f"{self.kernel}-2x{self.n}-fp32"

    @property
    def facts(self) -> dict[str, Any]:
        return {"shape": [2, self.n], "dtype": "fp32"}

    @property
    def bytes(self) -> int:
        """Clean and present logits read, coefficients and signs written, 2n float32 each; two targets."""
        return 4 * (4 * 2 * self.n + 2)

    @property
    def input_bytes(self) -> int:
        return 4 * 2 * 2 * self.n

    def inputs(self, seed: int) -> tuple[Tensor, Tensor]:
        clean, now = self._normal(seed)(2, 2, self.n)
        return clean, now + 0.5  # far from the clean means, so that no sign hangs on rounding

    def exact(self, inputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        clean, now = inputs
        return self._call(formulas.attack_coefficients, (clean.double(), now.double()))

    def _call(self, function: Callable[..., Any], inputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        return list(function(*inputs, None, "identity", "identity", "batch", 1.0))

    def providers(self) -> tuple[Provider, ...]:
        return self._three(self._call, self.kernel)


# --- spectral norm of a whole discriminator -----------------------------------------------------------------------


def sngan_shapes(widths: Sequence[int]) -> tuple[Shape, ...]:
    """Weights of an SNGAN discriminator whose blocks have these widths, in the order of the forward pass."""
    first = widths[0]
    shapes: list[Shape] = [(first, 3, 3, 3), (first, first, 3, 3), (first, 3, 1, 1)]
    for a, b in itertools.pairwise(widths):
        shapes += [(a, a, 3, 3), (b, a, 3, 3)]
        if a != b:
            shapes.append((b, a, 1, 1))
    return (*shapes, (1, widths[-1]))


def shapes_at_32() -> tuple[Shape, ...]:
    """Those of fastdat's own."""
    named = SNGANDiscriminator(32).named_parameters()
    return tuple(tuple(p.shape) for name, p in named if name.endswith("weight.original"))


SHAPES: dict[int, Callable[[], tuple[Shape, ...]]] = {
    32: shapes_at_32,
    64: partial(sngan_shapes, (64, 128, 256, 512, 1024)),
    128: partial(sngan_shapes, (64, 128, 256, 512, 1024, 1024)),
}
"""Resolution -> weights of SNGAN's discriminator there."""

NORM_EPS = 1e-12


@dataclass(frozen=True)
class SpectralNorm(Case):
    """``spectral_norm`` of all weights of a discriminator in float32 after one power iteration."""

    net: str
    shapes: tuple[Shape, ...]
    backward: bool
    device: torch.device
    kernel = "spectral_norm"

    @property
    def name(self) -> str:
        return f"{self.kernel}{'_backward' if self.backward else ''}-{self.net}-fp32"

    @property
    def elements(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    @property
    def facts(self) -> dict[str, Any]:
        what = "backward" if self.backward else "forward"
        return {"shape": list(map(list, self.shapes)), "dtype": "fp32", "net": self.net, "what": what}

    @property
    def bytes(self) -> int:
        """W read twice, W / sigma written; backward: G and W read, dW written. u and v are left out."""
        return 4 * self.elements * (3 + 3 * self.backward)

    @property
    def input_bytes(self) -> int:
        return 4 * self.elements * (1 + self.backward)

    def inputs(self, seed: int) -> tuple[list[Tensor], ...]:
        """Weights, u and v on their way to the singular vectors, gradients of ``W / sigma`` (backward only)."""
        normal = self._normal(seed)
        weights = [normal(*shape) / shape[1:].numel() ** 0.5 for shape in map(torch.Size, self.shapes)]
        us = [nn.functional.normalize(normal(w.shape[0]), dim=0) for w in weights]
        vs = [nn.functional.normalize(normal(w[0].numel()), dim=0) for w in weights]
        _, of_rows, of_columns, _ = formulas.spectral_norm(weights, us, vs, 5, NORM_EPS, True, torch.float32)
        state = [list(of_rows), list(of_columns)]
        if not self.backward:
            return weights, *state
        return [w.requires_grad_() for w in weights], *state, [normal(*w.shape) for w in weights]

    def exact(self, inputs: tuple[list[Tensor], ...]) -> list[Tensor]:
        weights, *rest = ([t.detach().double() for t in tensors] for tensors in inputs)
        return self._call(formulas.spectral_norm, (weights, *rest), torch.float64)

    def _call(
        self,
        function: Callable[..., Any],
        inputs: tuple[list[Tensor], ...],
        dtype: torch.dtype = torch.float32,
    ) -> list[Tensor]:
        """``W / sigma``, u, v and, backward, dW of every weight."""
        weights, us, vs, *upstream = inputs
        if self.backward and not weights[0].requires_grad:
            weights = [w.requires_grad_() for w in weights]
        outs, us, vs, _ = function(weights, us, vs, 1, NORM_EPS, True, dtype)
        grads = torch.autograd.grad(outs, weights, upstream[0]) if self.backward else ()
        return [*(t.detach() for t in outs), *us, *vs, *grads]

    def provider_names(self) -> tuple[str, ...]:
        return EAGER, COMPILED, FASTDAT, PARAMETRIZATION

    def providers(self) -> tuple[Provider, ...]:
        torch_own = Provider(PARAMETRIZATION, self._call_parametrizations, parametrized)
        return *self._three(self._call, self.kernel), torch_own

    def _call_parametrizations(self, prepared: tuple[list[nn.Module], list[Tensor]]) -> list[Tensor]:
        """One access of every layer's weight in train mode."""
        layers, upstream = prepared
        norms: list[Any] = [layer.parametrizations.weight for layer in layers]  # type: ignore[union-attr]
        with torch.set_grad_enabled(self.backward):
            outs: list[Any] = [layer.weight for layer in layers]
        originals = [norm.original for norm in norms]
        grads = torch.autograd.grad(outs, originals, upstream) if self.backward else ()
        us, vs = [norm[0]._u for norm in norms], [norm[0]._v for norm in norms]
        return [*(t.detach() for t in outs), *us, *vs, *grads]


class _Layer(nn.Module):
    """A weight, which is all that spectral norm sees of a layer."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach())


def parametrized(inputs: tuple[list[Tensor], ...]) -> tuple[list[nn.Module], list[Tensor]]:
    """A layer a weight under torch's parametrization, with u and v of ``inputs``; upstream gradients, if any."""
    weights, us, vs, *upstream = inputs
    layers = []
    for weight, u, v in zip(weights, us, vs, strict=True):
        layer = nn.utils.parametrizations.spectral_norm(_Layer(weight), eps=NORM_EPS)
        norm = layer.parametrizations.weight[0]  # type: ignore[union-attr, index]
        norm._u.copy_(u)  # type: ignore[union-attr]
        norm._v.copy_(v)  # type: ignore[union-attr]
        layers.append(layer)
    return layers, upstream[0] if upstream else []


# --- which cases --------------------------------------------------------------------------------------------------


MOST_WANTED = 9
"""Of the cases, the first ones."""


def cases(device: torch.device) -> list[Case]:
    """All that are measured on a device, the most wanted first; a CPU gets small ones."""
    cuda = device.type == "cuda"
    sizes = (
        list(itertools.product((4096, 512, 64), (32, 64, 128))) if cuda else [(64, 32), (512, 32), (64, 64)]
    )
    nets = {r: shapes() for r, shapes in SHAPES.items() if cuda or r == 32}

    def norms(backward: bool) -> list[Case]:
        return [SpectralNorm(f"sngan{r}", shapes, backward, device) for r, shapes in nets.items()]

    def attacks(what: What) -> Iterator[Case]:
        options = itertools.product(sizes, (torch.float32, torch.bfloat16), (False, True))
        for (batch, resolution), dtype, channels_last in options:
            yield PerturbClip(batch, resolution, dtype, channels_last, what, device)

    plain = list(attacks("forward"))
    coefficients = [AttackCoefficients(n, device) for n in (64, 512, 4096)]
    most_wanted = [*plain[:4], *norms(True)[:1], *norms(False)[:1], *coefficients]
    assert len(most_wanted) == MOST_WANTED
    others = [*norms(True)[1:], *norms(False)[1:], *plain[4:], *attacks("backward"), *attacks("stats")]
    return [*most_wanted, *others]


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
