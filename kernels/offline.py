"""Compiles kernels without a GPU and prints the resources they need: ``python -m fastdat.kernels.offline``.

Triton compiles to PTX for any architecture. Its own ptxas, which reports registers and spills, makes the machine code.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fastdat.kernels.dispatch import INTERPRETED

MODULES = ("perturb_clip", "attack_coefficients", "spectral_passes", "spectral_norm_backward")
"""The kernel files, each with a tuple ``OFFLINE`` of its variants."""

INEXACT = re.compile(r"\b(?:div\.(?:full|approx)|sqrt\.approx|rsqrt\.approx)[.\w]*\.f32\b")
"""In PTX; ``rounding`` has what takes their place."""

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities: A100, H100 and H200, B200."""


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel.

    Args:
        kernel: what ``triton.jit`` made.
        name: distinguishes the variant from others of its kernel.
        signature: type of each argument in order: "*fp32", "i32", "constexpr", or a tuple of types for a tuple.
        constexprs: value of each argument of type "constexpr".
        num_warps: warps a program.
        aligned: integer arguments that are multiples of 16, as Triton finds out at a launch; pointers always are.
    """

    kernel: Any
    name: str
    signature: Mapping[str, str | tuple[str, ...]]
    constexprs: Mapping[str, Any]
    num_warps: int = 4
    aligned: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kernel.__name__}[{self.name}]"


@dataclass(frozen=True)
class Resources:
    """What one variant takes: registers a thread, bytes of spills a thread, bytes of shared memory a program.

    ``inexact``: its instructions that divide or take a square root without rounding to the nearest, as torch does.
    """

    registers: int
    spill_stores: int
    spill_loads: int
    shared_bytes: int
    inexact: tuple[str, ...] = ()

    @property
    def spills(self) -> bool:
        return self.spill_stores > 0 or self.spill_loads > 0


def compile_variant(variant: Variant, arch: int) -> Resources:
    """Compile ``variant`` for compute capability ``arch`` (90 for sm_90); no GPU needed.

    Raises:
        RuntimeError: under TRITON_INTERPRET=1, or where ptxas refuses the PTX.
    """
    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET is set, so kernels are not compilable objects: unset it")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        fn=variant.kernel,
        signature=dict(variant.signature),
        constexprs={
            (variant.kernel.arg_names.index(name),): value for name, value in variant.constexprs.items()
        },
        attrs={path: [["tt.divisibility", 16]] for path in _aligned(variant)},
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", arch, 32), options={"num_warps": variant.num_warps}
    )
    return resources_of(compiled, arch)


def resources_of(compiled: Any, arch: int) -> Resources:
    """What Triton's ``compiled`` kernel takes of a GPU of compute capability ``arch``, which it was compiled for.

    Raises:
        RuntimeError: where ptxas refuses the PTX.
    """
    ptx = compiled.asm["ptx"]
    inexact = sorted(set(INEXACT.findall(ptx)))
    return replace(_read(_assemble(ptx, arch), compiled.metadata.shared), inexact=tuple(inexact))


def _aligned(variant: Variant) -> Iterator[tuple[int, ...]]:
    """Arguments that are multiples of 16, as paths of Triton: (argument,), or (argument, element) in a tuple."""
    for i, (name, kind) in enumerate(variant.signature.items()):
        if isinstance(kind, tuple):
            yield from ((i, j) for j, element in enumerate(kind) if element.startswith("*"))
        elif kind.startswith("*") or name in variant.aligned:
            yield (i,)


def _assemble(ptx: str, arch: int) -> str:
    """What ``ptxas -v`` says of ``ptx``."""
    import triton.backends.nvidia

    programs = Path(triton.backends.nvidia.__path__[0]) / "bin"
    newer = programs / "ptxas-blackwell"  # of Triton's PTX for these GPUs, which its ptxas does not read
    ptxas = newer if arch >= 100 and newer.is_file() else programs / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        target = f"sm_{arch}a" if arch >= 90 else f"sm_{arch}"  # as Triton's own PTX asks
        command = [str(ptxas), "-v", f"--gpu-name={target}", str(path), "-o", str(path.with_suffix(".cubin"))]
        outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise RuntimeError(f"ptxas failed for {target}:\n{outcome.stderr}")
    return outcome.stderr + outcome.stdout


def _read(log: str, shared_bytes: int) -> Resources:
    registers = re.search(r"Used (\d+) registers", log)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if registers is None or spills is None:
        raise RuntimeError(f"ptxas -v printed no registers or spills, which this reads:\n{log}")
    return Resources(int(registers[1]), int(spills[1]), int(spills[2]), shared_bytes)


def variants() -> tuple[Variant, ...]:
    """Those of all kernel files."""
    return tuple(v for name in MODULES for v in import_module(f"fastdat.kernels.{name}").OFFLINE)


def main() -> int:
    """Print a table of all variants. Returns 1 where one spills."""
    row = "{:<32}{:<36}{:>6}{:>11}{:>14}{:>13}{:>9}"
    print(row.format("kernel", "variant", "arch", "registers", "spill stores", "spill loads", "shared"))
    failed = False
    for variant in variants():
        for arch in ARCHITECTURES:
            found = compile_variant(variant, arch)
            failed |= found.spills
            print(
                row.format(
                    variant.kernel.__name__, variant.name, f"sm_{arch}",
                    found.registers, found.spill_stores, found.spill_loads, found.shared_bytes,
                )
            )  # fmt: skip
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
