"""The table of kernels compiled for GPUs that are not there: names of variants, what ptxas says, and what fails."""

from __future__ import annotations

import itertools
import re

import pytest

from fastdat.kernels import offline
from tests.kernels.test_offline import VARIANTS


def test_variants_have_names_of_their_own() -> None:
    assert len(set(map(str, VARIANTS))) == len(VARIANTS)
    types = {kind for variant in VARIANTS for kind in re.findall(r"\S*\d\d", variant.name)}
    assert types == {"bf16", "fp16", "fp32", "fp64"}
    pairs = [re.findall(r"(\S+) grad (\S+?),", variant.name) for variant in VARIANTS]
    assert any(pairs)
    assert all(of_x != of_grad for found in pairs for of_x, of_grad in found)


@pytest.mark.parametrize(("stores", "loads", "spills"), [(0, 0, False), (1, 0, True), (0, 1, True)])
def test_one_byte_is_a_spill(stores: int, loads: int, spills: bool) -> None:
    assert offline.Resources(20, stores, loads, 4096).spills == spills


@pytest.mark.parametrize("spilling", [None, 1, 2])
def test_the_table_fails_where_one_spills(
    spilling: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one() -> None: ...

    monkeypatch.setattr(offline, "ARCHITECTURES", (80, 90))
    made = [offline.Variant(one, name, {}, {}) for name in ("fp32", "bf16")]
    found = [offline.Resources(31 + i, 0, 8 * (i == spilling), 512) for i in range(4)]
    monkeypatch.setattr(offline, "variants", lambda: tuple(made))
    left = iter(found)
    monkeypatch.setattr(offline, "compile_variant", lambda variant, arch: next(left))
    assert offline.main() == (spilling is not None)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["one", name, f"sm_{arch}", str(each.registers), "0", str(each.spill_loads), "512"]
        for (name, arch), each in zip(itertools.product(("fp32", "bf16"), (80, 90)), found, strict=True)
    ]


def test_pointers_inside_tuples_are_aligned() -> None:
    variant = offline.Variant(
        None, "", {"Ws": ("*fp32", "i32", "*fp32"), "n": "i32", "k": "i32"}, {}, aligned=("k",)
    )
    assert list(offline._aligned(variant)) == [(0, 0), (0, 2), (2,)]


@pytest.mark.parametrize(
    ("ptx", "found"),
    [
        ("div.full.f32 %f1, %f2, %f3;\n\tdiv.full.ftz.f32 %f4, %f5, %f6;", ["div.full.f32", "div.full.ftz.f32"]),
        ("sqrt.approx.ftz.f32 %f1, %f2;", ["sqrt.approx.ftz.f32"]),
        ("div.rn.f32 %f1, %f2, %f3; sqrt.rn.f32 %f1, %f2; div.s32 %r1, %r2, 3; ex2.approx.f32 %f1, %f2;", []),
    ],
)  # fmt: skip
def test_inexact_instructions_are_seen(ptx: str, found: list[str]) -> None:
    assert offline.INEXACT.findall(ptx) == found


def test_ptxas_that_says_something_else_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="printed no registers"):
        offline._read("ptxas info: hello", 0)
