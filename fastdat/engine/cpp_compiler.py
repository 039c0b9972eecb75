"""The C++ compiler's preparations, begun before the first kernel asks for them.

Before inductor compiles a first kernel for the CPU, it tries which vector instructions the compiler knows, once a
cache, and precompiles a header of torch's, once a machine. That takes three and nine seconds on two cores, and nothing
else happens meanwhile. Both are the same for all kernels, so an empty one is compiled as soon as a step is to be: the
compiler then works while Python traces, on another core.
"""

from __future__ import annotations

import contextlib
import threading
from functools import cache

_EMPTY_KERNEL = """\
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C" void kernel() {}
"""


@cache
def prepare() -> threading.Thread:
    """Begin, in a thread, once in a process. A failure is left to inductor, which meets it again and reports it."""
    thread = threading.Thread(target=_prepare, name="fastdat: C++ compiler", daemon=True)
    thread.start()
    return thread


def _prepare() -> None:
    with contextlib.suppress(Exception):
        _compile_empty_kernel()


def _compile_empty_kernel() -> None:
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    CppPythonBindingsCodeCache.load_pybinding([], _EMPTY_KERNEL)
