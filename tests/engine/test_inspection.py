"""What the step finds out about a D: how it couples samples, and which buffers it moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.engine import compile
from fastdat.engine.inspection import Traits, inspect
from fastdat.engine.spectral import normalise as spectral
from fastdat.engine.types import Batch, StepInputs, StepSpec
from fastdat.losses import get_loss
from tests.compare import assert_step_matches
from tests.discriminators import Conv, batch, make


def traits_of(D: nn.Module, x: Batch) -> Traits:
    weights = spectral.spectral_weights(dict(D.named_modules()))
    spec = StepSpec(DATConfig(), get_loss("hinge"), spectral=weights)
    params = {name: p.detach() for name, p in D.named_parameters()}
    buffers = dict(D.named_buffers())
    with spectral.bypassed(dict(D.named_modules()), weights):
        return replace(inspect(D, spec, StepInputs({}, params, buffers, x), None), spectral=())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mlp", (True, True, ())),
        ("spectral", (True, True, ())),
        ("spectral-hook", (True, True, ())),
        ("conditional", (True, True, ())),
        ("two-heads", (True, True, ())),
        ("minibatch-statistics", (False, False, ())),
        ("batchnorm", (False, False, ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"))),
    ],
)
def test_kinds(kind: str, expected: tuple[object, ...]) -> None:
    D, (xr, xf, args) = make(kind), batch(kind)
    before = {name: t.clone() for name, t in D.state_dict().items()}
    rng = torch.get_rng_state()
    x = Batch(xr, xf, *args.values())
    assert traits_of(D, x) == Traits(*expected)
    torch.testing.assert_close(dict(D.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), rng)
    if kind == "batchnorm":
        assert traits_of(D.eval(), x) == Traits(True, True, ())


class Grouped(Conv):
    """StyleGAN's minibatch standard deviation in groups of two: neighbours, or samples half a batch apart."""

    def __init__(self, strided: bool) -> None:
        super().__init__()
        self.strided = strided

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        groups = h.reshape(2, -1, 8) if self.strided else h.reshape(-1, 2, 8).transpose(0, 1)
        std = groups.std(0).mean(1)
        return self.head(h).squeeze(1) + (std.repeat(2) if self.strided else std.repeat_interleave(2))


@pytest.mark.parametrize("strided", [False, True])
def test_groups_of_samples(strided: bool) -> None:
    xr, xf, _ = batch("conv", dtype=torch.float32)
    assert traits_of(Grouped(strided), Batch(xr, xf)) == Traits(False, False, ())


def test_a_discriminator_that_refuses_nan_takes_the_careful_path() -> None:
    class Strict(Conv):
        def forward(self, x: Tensor) -> Tensor:
            if x.isnan().any():
                raise ValueError("NaN image")
            return super().forward(x)

    xr, xf, _ = batch("conv", dtype=torch.float32)
    assert traits_of(Strict(), Batch(xr, xf)) == Traits(False, False, ())
    fastdat.dat_step(Strict(), xr, xf, compile=False).backward()


@pytest.mark.parametrize(
    ("real", "fake", "joint"),
    [
        ((torch.ones(6, 1),), (torch.ones(6, 1),), True),
        ((torch.ones(1),), (torch.ones(1),), False),
        ((torch.ones(6, 1),), (2.0,), False),
        ((2.0,), (2.0,), True),
        ((2.0,), (3.0,), False),
    ],
)
def test_arguments_that_can_be_joined(real: tuple[object], fake: tuple[object], joint: bool) -> None:
    class Scaled(Conv):
        def forward(self, x: Tensor, scale: Tensor | float) -> Tensor:
            return super().forward(x) * scale

    xr, xf, _ = batch("conv", dtype=torch.float32)
    assert traits_of(Scaled(), Batch(xr, xf, real, fake)) == Traits(True, joint, ())


class OfDomains(Conv):
    """One batch norm for each domain."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(8), nn.BatchNorm1d(8)])

    def forward(self, x: Tensor, domain: int) -> Tensor:
        return self.head(self.norms[domain](self.features(x))).squeeze(1)


def test_buffers_that_only_the_fakes_move() -> None:
    D = OfDomains().double()
    xr, xf, _ = batch("conv")
    expected = ("running_mean", "running_var", "num_batches_tracked")
    names = tuple(f"norms.{domain}.{name}" for domain in (0, 1) for name in expected)
    assert traits_of(D, Batch(xr, xf, (0,), (1,))) == Traits(False, False, names)
    assert_step_matches(D, xr, xf, DATConfig(eps=30.0), "gan", tolerance=1e-9, args_real=(0,), args_fake=(1,))
    assert [int(norm.num_batches_tracked) for norm in D.norms] == [0, 0], "a step of a copy"
    fastdat.dat_step(D, xr, xf, args_real=(0,), args_fake=(1,), compile=False)
    assert [int(norm.num_batches_tracked) for norm in D.norms] == [1, 1]


def test_a_buffer_that_moves_only_where_gradients_are_recorded() -> None:
    class Counting(Conv):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                self.mean.add_(x.detach().mean())
            return super().forward(x)

    xr, xf, _ = batch("conv", dtype=torch.float32)
    assert traits_of(Counting(), Batch(xr, xf)).moving == ("mean",)
    with pytest.raises(ValueError, match="microbatch"):
        fastdat.dat_step(Counting(), xr, xf, compile=False, microbatch=2)


class FurtherOutputs(Conv):
    """Its logits treat samples independently; what it returns beside them need not."""

    def __init__(self, further: str) -> None:
        super().__init__()
        self.further, self.table = further, nn.Parameter(torch.randn(6, 3))
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        further = {
            "own": lambda: h * 2,
            "similarity": lambda: h @ h.T,
            "table": lambda: self.table * 1,
            "batch norm": lambda: self.norm(h),
            "deviation": lambda: h - h.mean(0),
        }[self.further]()
        return self.head(h).squeeze(1), further


@pytest.mark.parametrize("further", ["own", "similarity", "table", "batch norm", "deviation"])
def test_further_outputs_that_couple_the_samples(further: str) -> None:
    """There are 6 samples, and the table has 6 rows."""
    D, (xr, xf, _) = FurtherOutputs(further).double(), batch("conv")
    _, ours = fastdat.dat_step(D, xr, xf, compile=False, with_info=True)
    _, expected = fastdat.reference.dat_step(D, xr, xf, with_info=True)
    for found, right in zip(ours.aux, expected.aux, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    if further == "own":
        fastdat.dat_step(D, xr, xf, compile=False, microbatch=2)
    else:
        with pytest.raises(ValueError, match="microbatch needs a D that treats its samples independently"):
            fastdat.dat_step(D, xr, xf, compile=False, microbatch=2)


class AlikeConv(Conv):
    """Any two of them compare as equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AlikeConv)

    def __hash__(self) -> int:
        return 1


@pytest.mark.slow
def test_discriminators_that_compare_as_equal_are_two() -> None:
    a, b, (xr, xf, _) = AlikeConv(), AlikeConv(), batch("conv", dtype=torch.float32)
    with torch.no_grad():
        b.head.bias += 5
    for D in (a, b, a):
        expected = fastdat.reference.dat_step(D, xr, xf)
        torch.testing.assert_close(fastdat.dat_step(D, xr, xf), expected, rtol=1e-5, atol=1e-6)


class WithPrototypes(Conv):
    """Its logits depend on how near a sample is to all prototypes (p, 8)."""

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        h = self.features(x)
        return self.head(h).squeeze(1) + (h @ prototypes.T).tanh().sum(1)


@pytest.mark.parametrize("count", [5, 6, 7])
def test_an_argument_for_all_samples_with_any_number_of_rows(count: int) -> None:
    """There are 6 samples: 6 rows are not one for each."""
    D, (xr, xf, _) = WithPrototypes().double(), batch("conv")
    prototypes = torch.randn(count, 8, dtype=torch.float64)
    args = {"args_real": (prototypes,), "args_fake": (prototypes + 0.1,)}
    assert_step_matches(D, xr, xf, DATConfig(eps=30.0), "gan", tolerance=1e-9, **args)
    if count == len(xr):
        with pytest.raises(ValueError, match="microbatch needs a D that treats its samples independently"):
            fastdat.dat_step(D, xr, xf, compile=False, microbatch=2, **args)


def test_a_flag_that_couples_the_samples_later() -> None:
    """An eager engine made for one value must not serve another."""

    class Optional(Conv):
        def forward(self, x: Tensor, minibatch_std: bool) -> Tensor:
            h = self.features(x)
            return self.head(h * (1 + h.std(0)) if minibatch_std else h).squeeze(1)

    D, (xr, xf, _) = Optional().double(), batch("conv")
    for flag in (False, True, False):
        args = {"args_real": (flag,), "args_fake": (flag,)}
        ours = fastdat.dat_step(D, xr, xf, DATConfig(eps=30.0), "gan", compile=False, **args)
        expected = fastdat.reference.dat_step(D, xr, xf, DATConfig(eps=30.0), "gan", **args)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)


def test_a_real_number_that_changes_in_every_step_needs_one_inspection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FadedIn(Conv):
        def forward(self, x: Tensor, weight: float) -> Tensor:
            return super().forward(x) * weight

    found: list[object] = []
    monkeypatch.setattr(compile, "inspect", lambda *args: found.append(args) or inspect(*args))
    D, (xr, xf, _) = FadedIn().double(), batch("conv")
    for weight in (0.25, 0.5, 0.75):
        fastdat.dat_step(D, xr, xf, compile=False, args_real=(weight,), args_fake=(weight,))
    assert len(found) == 1


def test_numbers_that_part_later_are_not_joined() -> None:
    """An engine made for equal numbers on both sides must not serve unequal ones."""

    class Scaled(Conv):
        def forward(self, x: Tensor, scale: float) -> Tensor:
            return super().forward(x) * scale

    D = Scaled().double()
    xr, xf, _ = batch("conv")
    for fake in (2.0, 3.0, 2.0):
        args = {"args_real": (2.0,), "args_fake": (fake,)}
        assert_step_matches(D, xr, xf, DATConfig(eps=30.0), "gan", tolerance=1e-9, **args)
        ours = fastdat.dat_step(D, xr, xf, loss="gan", compile=False, **args)  # one D, so one set of engines
        torch.testing.assert_close(ours, fastdat.reference.dat_step(D, xr, xf, loss="gan", **args))


def test_outputs_that_cannot_be_joined() -> None:
    class WithGlobal(Conv):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), self.head.weight.sum()

    D = WithGlobal()
    xr, xf, _ = batch("conv", dtype=torch.float32)
    assert traits_of(D, Batch(xr, xf)) == Traits(True, False, ())
    _, info = fastdat.dat_step(D, xr, xf, compile=False, with_info=True)
    torch.testing.assert_close(info.aux[0][0], D.head.weight.sum().detach())


def test_dropout() -> None:
    """Random layers run, and the inspection draws nothing from the user's generator."""

    class Dropout(Conv):
        def features(self, x: Tensor) -> Tensor:
            return F.dropout(super().features(x), 0.5, self.training)

    D, (xr, xf, _) = Dropout(), batch("conv", dtype=torch.float32)
    losses = []
    for _ in range(2):  # the first call inspects, the second does not
        torch.manual_seed(3)
        losses.append(fastdat.dat_step(D, xr, xf, compile=False).detach())
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
