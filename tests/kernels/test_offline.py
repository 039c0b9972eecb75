"""Every kernel compiles for GPUs that are not there, and none spills."""

from __future__ import annotations

import importlib.util

import pytest

from fastdat.kernels import offline
from fastdat.kernels.dispatch import INTERPRETED

VARIANTS = offline.variants() if importlib.util.find_spec("triton") else ()


# All for the newest, the first of each kernel for the others: `make kernel-resources` shows them all.
FIRST = {variant.kernel: variant for variant in reversed(VARIANTS)}.values()
CASES = [
    (variant, arch)
    for arch in offline.ARCHITECTURES
    for variant in (VARIANTS if arch == max(offline.ARCHITECTURES) else FIRST)
]


@pytest.mark.parametrize(("variant", "arch"), CASES, ids=str)
def test_nothing_spills_and_all_is_rounded(
    variant: offline.Variant, arch: int, compiler: None, record_property
) -> None:
    found = offline.compile_variant(variant, arch)
    record_property("resources", str(found))
    assert not found.spills, found
    assert found.inexact == ()
    assert 0 < found.registers <= 128, found
    assert found.shared_bytes <= 16 * 1024, found


def test_variants_have_names_of_their_own() -> None:
    assert len(set(map(str, VARIANTS))) == len(VARIANTS)


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


@pytest.mark.skipif(not (INTERPRETED and VARIANTS), reason="needs TRITON_INTERPRET=1 (make test does that)")
def test_interpreter_objects_are_refused() -> None:
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        offline.compile_variant(VARIANTS[0], 90)
