"""Features of real images, computed once and cached under a key of data, choice of images and extractor."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdat.data.image_set import ImageSet
from fastdat.metrics.extractors import Extractor
from fastdat.metrics.scores import Statistics
from fastdat.util import sealed_json

_FORMAT = 2  # of the cache; another number invalidates all entries
_KEY, _FEATURES, _STATISTICS = "key.json", "features.npy", "statistics.npz"
_LOGGER = logging.getLogger("fastdat")


@dataclass(frozen=True)
class Reals:
    """Features (n, d) float32 of real images, with their mean and covariance."""

    features: Tensor
    statistics: Statistics


def default_cache() -> Path:
    """The cache folder: ``$FASTDAT_CACHE``, or else ``fastdat`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FASTDAT_CACHE") or Path(base, "fastdat"))


def real_features(
    data: ImageSet,
    count: int,
    seed: int,
    extractor: Extractor,
    device: torch.device,
    batch_size: int,
    cache: Path,
    progress: Callable[[int, int], bool | None] = lambda done, total: None,
) -> Reals | None:
    """Features of ``count`` images of ``data`` chosen by ``seed`` (all where it has fewer), from ``cache`` if there.

    None, and nothing is kept, where ``progress(done, total)`` returns False. A damaged entry of the cache is computed
    again, with a warning of the logger ``fastdat``.
    """
    key = {
        "format": _FORMAT,
        "data": data.fingerprint,
        "count": min(count, len(data)),
        "seed": seed if count < len(data) else None,  # using all images needs no seed
        "extractor": extractor.name,
        "weights": extractor.sha256,
        "resize": extractor.resize,
    }
    folder = cache / "reals" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    found = _read(folder, key)
    if found is None:
        chosen = _choose(len(data), count, seed)
        parts = []
        for rows in chosen.split(batch_size):
            parts.append(extractor(data.images[rows].to(device))[0])
            if progress(sum(map(len, parts)), len(chosen)) is False:
                return None
        features = torch.cat(parts)
        found = Reals(features, Statistics.of(features))
        _write(folder, key, found)
    return found


def _choose(size: int, count: int, seed: int) -> Tensor:
    """Sorted indices of the images: all, or ``count`` at random without replacement."""
    if count >= size:
        return torch.arange(size)
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
    return chosen.sort().values  # sorted, since a memory-mapped set is read fastest in order


def _read(folder: Path, key: dict[str, Any]) -> Reals | None:
    """The cached entry, or None if it is missing or damaged."""
    if not os.path.lexists(folder):
        return None
    try:
        entry = sealed_json.read(folder / _KEY)
        if entry["key"] != key:
            return None
        with _checked(folder / _FEATURES, entry) as file:
            features = torch.from_numpy(np.load(file))
        with _checked(folder / _STATISTICS, entry) as file, np.load(file) as statistics:
            return Reals(features, Statistics(statistics["mu"], statistics["sigma"]))
    except Exception as error:  # whatever is wrong with a cache, the run can do without it
        _LOGGER.warning(
            "the cached features of reals in %s are damaged and are computed anew: %s", folder, error
        )
        return None


def _checked(path: Path, entry: dict[str, Any]) -> io.BufferedReader:
    """The file, open for reading; its bytes are those that were written.

    Raises:
        ValueError: they are not.
    """
    file = path.open("rb")
    if hashlib.file_digest(file, "sha256").hexdigest() != entry["files"][path.name]:
        file.close()
        raise ValueError(f"{path.name} has changed since it was written")
    file.seek(0)
    return file


def _write(folder: Path, key: dict[str, Any], reals: Reals) -> None:
    """Write the entry whole or not at all. A cache that cannot be written costs time, but does not stop the run."""
    features, statistics = io.BytesIO(), io.BytesIO()
    np.save(features, reals.features.numpy())
    np.savez(statistics, mu=reals.statistics.mu, sigma=reals.statistics.sigma)
    # The checksums are those of the memory, not of what a disk has made of it.
    content = {_FEATURES: features.getbuffer(), _STATISTICS: statistics.getbuffer()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
            new = Path(scratch, "entry")
            new.mkdir()
            for name, data in content.items():
                (new / name).write_bytes(data)
            sealed_json.write(new / _KEY, {"key": key, "files": digests})
            shutil.rmtree(folder, ignore_errors=True)  # an existing entry is damaged, since it was not used
            new.rename(folder)
    except OSError:
        return
