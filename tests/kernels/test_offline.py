"""Every kernel compiles for GPUs that are not there, and none spills."""

from __future__ import annotations

import importlib.util

import pytest

from fastdat.kernels import offline
from fastdat.kernels.dispatch import INTERPRETED

VARIANTS = offline.variants() if importlib.util.find_spec("triton") else ()


# All for sm_90, the first of each kernel for the others: `make kernel-resources` shows them all.
FIRST = {variant.kernel: variant for variant in reversed(VARIANTS)}.values()
CASES = [(variant, arch) for arch in offline.ARCHITECTURES for variant in (VARIANTS if arch == 90 else FIRST)]


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


@pytest.mark.skipif(not (INTERPRETED and VARIANTS), reason="needs TRITON_INTERPRET=1 (make test does that)")
def test_interpreter_objects_are_refused() -> None:
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        offline.compile_variant(VARIANTS[0], 90)
