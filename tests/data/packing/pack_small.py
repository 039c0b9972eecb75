"""Pack a folder in small pieces, in a process of its own that a test may kill. Prints the progress after each piece."""

from __future__ import annotations

import argparse
import resource
import time
from pkgutil import resolve_name
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("dest")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to wait after each piece")
    parser.add_argument("--file-limit", type=int, help="largest file that this process may write, in bytes")
    parser.add_argument("--shards", action="store_true", help="in shards of 16 images")
    options = parser.parse_args()
    if options.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_limit, options.file_limit))

    from fastdat.data import pack
    from tests.data.helpers import SMALL_PIECES, SMALL_SHARDS

    for name, value in (SMALL_PIECES | (SMALL_SHARDS if options.shards else {})).items():
        module, _, attribute = name.rpartition(".")
        setattr(resolve_name(module), attribute, value)

    def progress(*arguments: Any) -> None:
        print(*arguments, flush=True)
        time.sleep(options.pause)

    pack("folder", options.source, options.dest, resolution=32, workers=0, progress=progress)


if __name__ == "__main__":
    main()
