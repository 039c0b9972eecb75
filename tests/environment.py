"""Where tests and benchmarks keep what torch.compile and Triton build. Imported before torch."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def let_cublas_be_deterministic() -> None:
    """Have cuBLAS give equal bits for equal inputs, which it decides once, from this; the user's setting wins.

    Not for benchmarks: it also leaves cuBLAS less memory to work in.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def use_cache_folder(folder: Path = REPOSITORY / ".cache", *, always: bool = False) -> None:
    """Keep compiled graphs and kernels in `folder`, so that a second run starts warm; the user's setting wins, unless
    it is `always` this folder."""
    for name, kind in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        if always or name not in os.environ:
            os.environ[name] = str(folder / kind)
