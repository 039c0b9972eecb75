"""``fastdat.capture``: what it replays, with a tape in the place of CUDA graphs, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

import fastdat
from fastdat.engine.capture import Captured, CaptureError
from fastdat.engine.fixed import capturable
from tests.tape import Tape

N, NZ = 5, 3
Loop = Callable[..., Any]


def nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(NZ, 6), nn.BatchNorm1d(6), nn.Tanh())
    D = nn.Sequential(fastdat.spectral_norm(nn.Linear(6, 7)), nn.ReLU(), nn.Linear(7, 1), nn.Flatten(0))
    return G, D


def fused(net: nn.Module, **settings: Any) -> Adam:
    """An Adam as for a GPU: its rate is a tensor there."""
    return Adam(
        net.parameters(), **{"lr": torch.tensor(1e-2, dtype=torch.float64), "fused": True, **settings}
    )


class Case:
    """A user's loop: one D step and one G step."""

    def __init__(self, make: Callable[[nn.Module], Optimizer] = fused) -> None:
        self.G, self.D = nets()
        self.optG, self.optD = make(self.G), make(self.D)

    def iteration(self, xr: Tensor, z: Tensor) -> dict[str, Tensor]:
        loss_d = fastdat.dat_step(self.D, xr, self.G(z).detach(), compile=False)
        self.optD.zero_grad()
        loss_d.backward()
        self.optD.step()
        loss_g = -self.D(self.G(z)).mean()
        self.optG.zero_grad()
        loss_g.backward()
        self.optG.step()
        return {"d": loss_d, "g": loss_g}

    def captured(self, tape: Tape | None = None, function: Loop | None = None, **settings: Any) -> Loop:
        nets, optimizers = (self.G, self.D), (self.optG, self.optD)
        return Captured(function or self.iteration, nets, optimizers, recorder=tape, **settings)

    def state(self) -> list[Tensor]:
        states = [value for opt in (self.optG, self.optD) for s in opt.state.values() for value in s.values()]
        return [*self.G.state_dict().values(), *self.D.state_dict().values(), *states]


def inputs(step: int, n: int = N) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(n, 6, generator=generator) * 2 - 1, torch.randn(n, NZ, generator=generator)


def test_replays_equal_plain_calls() -> None:
    """With a rate that a scheduler moves, and results that outlive the next call."""
    plain, taped, tape = Case(), Case(), Tape()
    found = []
    for case, iterate in ((plain, plain.iteration), (taped, taped.captured(tape))):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(case.optD, 0.5)
        losses = []
        for step in range(7):
            losses.append(iterate(*inputs(step)))
            scheduler.step()
        found.append([x for each in losses for x in (each["d"].detach(), each["g"].detach())])
    assert all(map(torch.equal, *found))
    assert all(map(torch.equal, plain.state(), taped.state()))
    assert len(tape.operations) == 1


def test_the_public_function_runs_as_it_is_on_the_cpu() -> None:
    plain, case = Case(), Case()
    iterate = fastdat.capture(case.iteration, modules=[case.G, case.D], optimizers=[case.optG, case.optD])
    for step in range(6):
        ours, theirs = iterate(*inputs(step)), plain.iteration(*inputs(step))
        assert ours["d"].equal(theirs["d"])
        assert not ours["d"].requires_grad
    assert all(map(torch.equal, plain.state(), case.state()))
    assert iterate.graphs == 0


def smaller(case: Case, iterate: Loop) -> None:
    iterate(*inputs(9, n=4))


def other_rate(case: Case, iterate: Loop) -> None:
    case.optD.param_groups[0]["lr"] = 0.5
    iterate(*inputs(9))


def other_betas(case: Case, iterate: Loop) -> None:
    case.optG.param_groups[0]["betas"] = (0.5, 0.9)
    iterate(*inputs(9))


def moved(case: Case, iterate: Loop) -> None:
    weight = next(case.G.parameters())
    weight.data = weight.data.clone()
    iterate(*inputs(9))


def replaced(case: Case, iterate: Loop) -> None:
    case.D[2].weight = nn.Parameter(case.D[2].weight.detach().clone())  # type: ignore[index]
    iterate(*inputs(9))


def loaded(case: Case, iterate: Loop) -> None:
    case.D.load_state_dict(copy.deepcopy(case.D.state_dict()))
    iterate(*inputs(9))  # in place
    rates = [group["lr"] for group in case.optD.param_groups]
    case.optD.load_state_dict(copy.deepcopy(case.optD.state_dict()))
    for group, rate in zip(case.optD.param_groups, rates, strict=True):
        group["lr"] = rate
    iterate(*inputs(9))


def evaluated(case: Case, iterate: Loop) -> None:
    case.G[1].eval()  # type: ignore[index]
    iterate(*inputs(9))


def frozen(case: Case, iterate: Loop) -> None:
    next(case.D.parameters()).requires_grad_(False)
    iterate(*inputs(9))


def under_autocast(case: Case, iterate: Loop) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        iterate(*inputs(9))


def with_gradient(case: Case, iterate: Loop) -> None:
    xr, z = inputs(9)
    iterate(xr.requires_grad_(), z)


CHANGES = [
    (
        smaller,
        "Argument [0][0] was float32 of shape (5, 6) on cpu, strides (6, 1) then, and is float32 of shape (4, 6)",
    ),
    (other_rate, "optimizers[1].param_groups[0]['lr'] is another tensor, or a number"),
    (other_betas, "optimizers[0].param_groups[0]['betas'] is (0.5, 0.9), and was (0.9, 0.999)"),
    (moved, "modules[0].0.weight lies elsewhere in memory"),
    (replaced, "modules[1].2.weight is another tensor"),
    (loaded, "optimizers[1]'s step is another tensor"),
    (evaluated, "modules[0].1.training is False, and was True"),
    (frozen, "requires_grad is False, and was True"),
    (under_autocast, "another autocast or gradient mode"),
    (with_gradient, "pass it with .detach()"),
]


@pytest.mark.parametrize("recorded", [True, False], ids=["taped", "on the CPU"])
@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_what_may_not_change(change: Callable[[Case, Loop], None], words: str, recorded: bool) -> None:
    case = Case()
    iterate = case.captured(Tape() if recorded else None)
    for step in range(4):
        iterate(*inputs(step))
    before = [tensor.clone() for tensor in case.state()]
    with pytest.raises(CaptureError) as error:
        change(case, iterate)
    assert words in str(error.value)
    if change not in (loaded, replaced):
        assert all(map(torch.equal, before, case.state())), "nothing was computed"


def test_graphs_are_made_anew_after_a_reset() -> None:
    plain, case, tape = Case(), Case(), Tape()
    iterate: Any = case.captured(tape, warmup=1)
    for step in range(8):
        if step == 4:
            for each in (plain, case):
                each.optD.load_state_dict(copy.deepcopy(each.optD.state_dict()))
            iterate.reset()
        plain.iteration(*inputs(step))
        iterate(*inputs(step))
    assert all(map(torch.equal, plain.state(), case.state()))
    assert len(tape.operations) == 2


def test_kinds_have_graphs_of_their_own() -> None:
    """A number and two shapes, in turn; a third kind is too many."""
    G, D = nets()

    def function(x: Tensor, by: dict[str, float]) -> Tensor:
        with torch.no_grad():
            D[2].bias += by["by"] * x.sum()  # type: ignore[index, operator]
        return x * 2

    tape = Tape()
    captured = Captured(function, (G, D), (), kinds=3, warmup=1, recorder=tape)
    expected = D[2].bias.detach().clone()  # type: ignore[index, operator]
    for step in range(9):
        n, by = [(2, 1.0), (2, 2.0), (4, 1.0)][step % 3]
        x = torch.full((n,), float(step + 1))
        result = captured(x, {"by": by})
        assert result.equal(x * 2)
        expected += by * x.sum()
    assert torch.equal(D[2].bias.detach(), expected)  # type: ignore[index, arg-type]
    assert captured.graphs == len(tape.operations) == 3
    with pytest.raises(CaptureError, match=r"Argument \[0\]\[1\]\['by'\] was 1.0 then, and is 3.0 now"):
        captured(torch.ones(4), {"by": 3.0})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda net: Adam(net.parameters(), 1e-3), "waits for the device in each step, which no graph can"),
        (
            lambda net: Counting(net.parameters(), {"lr": 1e-3}),
            "n is the Python number 3, which a replayed step",
        ),
    ],
)
def test_optimizers_that_a_graph_cannot_step(make: Callable[[nn.Module], Optimizer], words: str) -> None:
    case = Case(make)
    iterate = case.captured(Tape())
    for step in range(3):
        iterate(*inputs(step))
    with pytest.raises(CaptureError, match=words):
        iterate(*inputs(3))


class Counting(Optimizer):
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["n"] = self.state[parameter].get("n", 0) + 1


def of_backward_alone(case: Case) -> Callable[[Tensor], None]:
    return lambda x: case.D(x).mean().backward()


def test_gradients_can_be_read_and_stepped_outside() -> None:
    """A replay writes gradients; .grad is what the optimizer outside finds."""
    plain, taped = Case(), Case()
    functions = [of_backward_alone(plain), taped.captured(Tape(), of_backward_alone(taped), warmup=2)]
    for case, function in zip((plain, taped), functions, strict=True):
        for step in range(6):
            case.optD.zero_grad()
            function(inputs(step)[0])
            case.optD.step()
    assert all(map(torch.equal, plain.state(), taped.state()))


def test_gradients_that_are_added_up_keep_their_memory() -> None:
    plain, taped = Case(), Case()
    functions = [of_backward_alone(plain), taped.captured(Tape(), of_backward_alone(taped), warmup=1)]
    for case, function in zip((plain, taped), functions, strict=True):
        for step in range(8):
            function(inputs(step)[0])
            if step % 4 == 3:
                case.optD.step()
                case.optD.zero_grad(set_to_none=False)
    assert all(map(torch.equal, plain.state(), taped.state()))
    taped.optD.zero_grad()
    with pytest.raises(CaptureError, match=r"the gradient of a parameter of shape .* is another tensor"):
        functions[1](inputs(9)[0])


def test_a_second_kind_is_watched_too() -> None:
    """It is the first one to step G's optimizer."""
    case = Case()

    def function(x: Tensor, both: bool) -> None:
        for net, opt in ((case.D, case.optD), (case.G, case.optG))[: 1 + both]:
            opt.zero_grad()
            net(x[:, : 6 if net is case.D else NZ]).mean().backward()
            opt.step()

    iterate = case.captured(Tape(), function, warmup=1, kinds=2)
    for both in (False, False, True, True):
        iterate(inputs(0)[0], both)
    rates = case.optG.param_groups[0]["lr"]
    case.optG.load_state_dict(copy.deepcopy(case.optG.state_dict()))
    case.optG.param_groups[0]["lr"] = rates
    with pytest.raises(CaptureError, match=r"optimizers\[0\]'s step is another tensor"):
        iterate(inputs(0)[0], True)


class Counts(nn.Module):
    """Makes a new buffer in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return x * self.count


def test_a_net_that_replaces_its_buffers() -> None:
    net = Counts()
    iterate = Captured(lambda x: net(x), (net,), (), warmup=1, recorder=Tape())
    iterate(torch.ones(2))
    with pytest.raises(
        CaptureError, match=r"makes new tensors where it should change those .* modules\[0\].count"
    ):
        iterate(torch.ones(2))


def test_the_cure_that_an_optimizer_has() -> None:
    case = Case(lambda net: torch.optim.RMSprop(net.parameters(), 1e-3))
    iterate = case.captured(Tape(), warmup=1)
    iterate(*inputs(0))
    with pytest.raises(CaptureError, match="make it with capturable=True"):
        iterate(*inputs(1))


def test_groups_are_marked_only_while_they_are_recorded() -> None:
    """torch refuses to capture the step of others, and warns where a marked one steps uncaptured."""
    case, seen = Case(), []

    def function(x: Tensor) -> None:
        seen.append([group["capturable"] for opt in (case.optG, case.optD) for group in opt.param_groups])

    iterate = case.captured(Tape(), function, warmup=1)
    iterate(torch.ones(2))
    iterate(torch.ones(2))
    assert seen == [[False, False], [True, True]]
    assert len(capturable([case.optG, case.optD])) == 2


def waits(x: Tensor) -> Tensor:
    return x * 2 if x.sum().item() > 0 else x


def selects(x: Tensor) -> Tensor:
    return x[x > 0].sum()


def draws(x: Tensor) -> Tensor:
    return torch.randn(3)


def returns_a_number(x: Tensor) -> Any:
    return {"loss": x.sum(), "rate": 0.1}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            waits,
            "waits cannot be captured as a CUDA graph: NotRecordableError: aten._local_scalar_dense.default waits",
        ),
        (selects, "selects cannot be captured"),
        (draws, "aten.randn.default draws random numbers"),
        (returns_a_number, "must return tensors or None, got float"),
    ],
)
def test_functions_that_cannot_be_captured(function: Loop, words: str) -> None:
    captured = Captured(function, (nets()[0],), (), warmup=1, recorder=Tape())

    def call() -> None:
        captured(torch.ones(4))
        captured(torch.ones(4))

    with pytest.raises(CaptureError, match=words):
        call()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"modules": "G"}, TypeError, "modules must be one torch Module or a list of them, got str"),
        ({"optimizers": [1]}, TypeError, "optimizers must be one torch Optimizer or a list of them"),
        ({"warmup": 0}, ValueError, "warmup must be an integer >= 1, got 0"),
        ({"kinds": True}, ValueError, "kinds must be an integer >= 1, got True"),
        ({"function": 3}, TypeError, "function must be a function of tensors, got int"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fastdat.capture(**{"function": waits, "modules": nets()[0], **settings})


def test_arguments_that_cannot_be_compared() -> None:
    captured = fastdat.capture(lambda x, y: x, modules=nets()[0])
    with pytest.raises(CaptureError, match="must be tensors and hashable values"):
        captured(torch.ones(2), {1, 2})
