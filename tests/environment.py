"""Where tests and benchmarks keep what torch.compile and Triton build. Imported before torch."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def use_cache_folder(folder: Path = REPOSITORY / ".cache") -> None:
    """Keep compiled graphs and kernels in `folder`, so that a second run starts warm; the user's setting wins."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
