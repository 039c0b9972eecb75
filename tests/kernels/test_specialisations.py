"""Launches are noted as they are made, and Triton compiles of them what it would on a GPU."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.kernels import ops
from fastdat.kernels.dispatch import AVAILABLE, INTERPRETED
from fastdat.kernels.formulas import Limits
from fastdat.kernels.offline import Resources
from tests.kernels import recording, specialisations
from tests.kernels.recording import Launch, Pointer, recorded

triton = pytest.importorskip("triton")
tl = triton.language


@triton.jit
def _sums_halves(out, n):
    """Runs in the interpreter; to Triton's compiler ``total`` changes its type in the loop."""
    total = 0
    for _ in range(n):
        total = total + 0.5
    tl.store(out, total)


def launch(pointer: Any, size: int = 64) -> Launch:
    """Of a kernel that copies `size` elements a sample; all its tensors are `pointer`."""
    limits = (("DELTA_CLIP", None), ("LOW", None), ("HIGH", None))
    options = (*limits, ("WITH_STATS", False), ("BLOCK", 1024), ("num_warps", 4))
    arguments = (*[pointer] * 4, None, size, 0)
    return Launch("fastdat.kernels.perturb_clip", "perturb_clip_kernel", arguments, options)


def dot_launch(*pointers: Any) -> Launch:
    """Of a kernel that takes its tensors in tuples, one element a layer."""
    from fastdat.kernels.multi_tensor import SOME, Layer, table, work_of

    layers, n = [Layer(4, 8, 1, 0)] * len(pointers), len(pointers)
    rows = table(layers, [1] * n, [True] * n, work_of(layers)[0])
    options = (("LAYERS", rows), ("BLOCK", 64), ("STAGES", 2), ("ACC", tl.float32), ("WIDE", SOME.value))
    arguments = (pointers, pointers, Pointer(torch.float32))
    return Launch("fastdat.kernels.spectral_norm_backward", "_dot_kernel", arguments, options)


def unaligned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros that begin one element after a multiple of 16 bytes."""
    return torch.zeros(torch.Size(shape).numel() + 1, dtype=dtype)[1:].view(shape)


# --- recording ----------------------------------------------------------------------------------------------------


@pytest.fixture
def launches() -> Iterator[dict[str, Launch]]:
    if not (INTERPRETED and AVAILABLE):
        pytest.skip("notes launches in the interpreter: needs TRITON_INTERPRET=1 (make test does that)")
    with recorded() as found:
        yield found


def test_a_launch_is_noted_as_it_is(launches: dict[str, Launch]) -> None:
    ops.perturb_clip(unaligned(3, 8), torch.zeros(3, 8, dtype=torch.bfloat16), torch.ones(3), Limits(0.3))
    pointers = (Pointer(torch.float32, 4), Pointer(torch.bfloat16), *[Pointer(torch.float32)] * 2)
    assert list(launches.values()) == [
        Launch(
            "fastdat.kernels.perturb_clip",
            "perturb_clip_kernel",
            (*pointers, None, 8, 0),
            (
                ("DELTA_CLIP", 0.3),
                ("LOW", None),
                ("HIGH", None),
                ("WITH_STATS", False),
                ("BLOCK", 1024),
                ("num_warps", 4),
            ),
        )
    ]


def test_equal_launches_are_noted_once(launches: dict[str, Launch]) -> None:
    for size, fill in ((8, 0.0), (8, 1.0), (16, 0.0)):
        ops.perturb_clip(*[torch.full((3, size), fill)] * 2, torch.ones(3), Limits(0.3))
    assert [found.arguments[5] for found in launches.values()] == [8, 16]


def test_a_failed_launch_is_not_noted(launches: dict[str, Launch]) -> None:
    from fastdat.kernels.perturb_clip import perturb_clip_kernel

    with pytest.raises(TypeError, match="missing"):
        perturb_clip_kernel[1,](torch.zeros(3))
    assert not launches


def test_nothing_is_noted_afterwards(launches: dict[str, Launch]) -> None:
    with recorded() as inner:
        pass
    ops.perturb_clip(*[torch.zeros(3, 8)] * 2, torch.ones(3), Limits(0.3))
    assert not inner
    assert len(launches) == 1


def test_the_plugin_writes_what_the_tests_launch(launches: dict[str, Launch], tmp_path: Path) -> None:
    options = {"launches": tmp_path / "launches"}
    run = recording.pytest_runtestloop(SimpleNamespace(config=SimpleNamespace(getoption=options.get)))
    next(run)
    ops.perturb_clip(*[torch.zeros(3, 8)] * 2, torch.ones(3), Limits(0.3))
    with pytest.raises(StopIteration):
        run.send(True)
    assert pickle.loads(options["launches"].read_bytes()) == list(launches.values())


def test_tensors_in_tuples_are_noted() -> None:
    given = ((torch.zeros(4), unaligned(4, dtype=torch.float64)), None, 1.5)
    noted = ((Pointer(torch.float32), Pointer(torch.float64, 8)), None, 1.5)
    assert recording.without_memory(given) == noted


def test_numbers_of_other_types_are_other_launches() -> None:
    assert len({str(launch(Pointer(torch.float32), size)) for size in (1, 1.0, True)}) == 3


# --- compiling ----------------------------------------------------------------------------------------------------


@pytest.fixture
def driver(compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own is there again afterwards, for which Triton has no function where there is no GPU."""
    monkeypatch.setattr(triton.runtime.driver, "_active", specialisations.CompilingDriver())


def test_alignment_makes_two_specialisations(driver: None) -> None:
    aligned, *others = (launch(Pointer(torch.float32, offset)) for offset in (0, 4, 8))
    assert specialisations.distinct([aligned, *others]) == [aligned, others[0]]
    sizes = [launch(Pointer(torch.float32), size) for size in (64, 65, 67, 128)]
    assert specialisations.distinct(sizes) == sizes[:2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_pointers_stand_for_tensors(dtype: torch.dtype, driver: None) -> None:
    tensors = torch.zeros(64, dtype=dtype), unaligned(64, dtype=dtype)
    pointers = recording.without_memory(tensors)
    keys = []
    for make in (launch, dot_launch):
        for tensor, pointer in zip(tensors, pointers, strict=True):
            keys.append(specialisations.specialisation(make(tensor)))
            assert keys[-1] == specialisations.specialisation(make(pointer))
    assert len(set(keys)) == 4


def test_alignment_reaches_the_compiler(driver: None) -> None:
    together = []
    for offset in (0, 4):
        given = launch(Pointer(torch.float32, offset))
        found = specialisations.compile_launch(given)
        assert isinstance(found, Resources), found
        assert found.registers > 0
        together.append("ld.global.v4" in specialisations._bind(given).asm["ptx"])
    assert together == [True, False]


def test_a_launch_with_tuples_compiles(driver: None) -> None:
    found = specialisations.compile_launch(dot_launch(Pointer(torch.float32), Pointer(torch.float32, 4)))
    assert isinstance(found, Resources), found


def test_a_kernel_that_does_not_compile_is_reported(driver: None, capsys: pytest.CaptureFixture[str]) -> None:
    both = [Launch(__name__, "_sums_halves", (Pointer(torch.float32), 3), ()), launch(Pointer(torch.float32))]
    outcomes = [specialisations.compile_launch(each) for each in both]
    assert specialisations.report(both, outcomes) == 1
    printed = capsys.readouterr().out
    assert "_sums_halves(float32@0, 3) does not compile" in printed
    assert "CompilationError" in printed
    assert "error: 1 of 2 specialisations do not compile for sm_90" in printed


def test_spills_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    both = [launch(Pointer(torch.float32)), launch(Pointer(torch.float64))]
    assert specialisations.report(both, [Resources(40, 0, 0, 16), Resources(255, 8, 12, 16)]) == 0
    table, last = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert "2             255         1" in table
    assert "float64@0" in table
    assert "float32@0" not in table
    assert last == "2 specialisations that tests/kernels launches compile for sm_90; 1 of them spilling"


@pytest.mark.parametrize(
    ("status", "message"), [(1, "(?s)1 failed.*failed .status 1"), (0, "launched no kernel")]
)
def test_a_run_that_tells_nothing_is_an_error(
    status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert env["TRITON_INTERPRET"] == "1"
        Path(command[-1].removeprefix("--launches=")).write_bytes(pickle.dumps([]))
        return subprocess.CompletedProcess(command, status, stdout="1 failed", stderr="")

    monkeypatch.setattr(specialisations.subprocess, "run", run)
    with pytest.raises(SystemExit, match=message):
        specialisations.record_tests()
