"""Features of real images, computed once and cached under a key of data, choice of images and extractor."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdat.data.image_set import ImageSet
from fastdat.metrics.extractors import Extractor
from fastdat.metrics.in_turns import in_turns
from fastdat.metrics.scores import Statistics
from fastdat.util import sealed_json
from fastdat.util.ranks import ONE_PROCESS, Ranks

_FORMAT = 2  # of the cache; another number invalidates all entries
_KEY, _FEATURES, _STATISTICS = "key.json", "features.npy", "statistics.npz"
_LOOKED_AT, _ROUNDING = 4, 0.02
"""Images whose features in the cache are compared with those of now, and by how much of their norm they may differ."""
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
    ranks: Ranks = ONE_PROCESS,
) -> Reals | None:
    """Features of ``count`` images of ``data`` chosen by ``seed`` (all where it has fewer), from ``cache`` if there.

    A damaged entry of the cache is computed again, with a warning of the logger ``fastdat``.

    Args:
        data: the images.
        count, seed: which of them.
        extractor: computes the features, on ``device``.
        device: where.
        batch_size: images at a time.
        cache: folder of entries; rank 0 alone reads and writes it.
        progress: called with how many images are done and how many there are; returns False to stop.
        ranks: share out the batches if the cache does not have the features.

    Returns:
        The features on rank 0, which alone holds them; None on the other ranks.

    Raises:
        StopAskedError: ``progress`` returned False on some rank; nothing is kept.
    """
    folder, key = ranks.by_first(lambda: _entry(data, count, seed, extractor, cache))
    chosen = _choose(len(data), count, seed)

    def cached() -> Reals | None:
        found = _read(folder, key) if ranks.first else None
        if found is None:
            return None
        return found if _is_of(found, extractor, data.images[chosen[:_LOOKED_AT]].to(device)) else None

    found = ranks.together(cached)
    if ranks.any(found is not None):
        return found
    mine = chosen.split(batch_size)[ranks.rank :: ranks.size]
    parts = in_turns(
        (data.images[rows] for rows in mine),
        lambda images: extractor(images.to(device))[0],
        lambda done: progress(done, len(chosen)),
        len(chosen),
        ranks,
    )
    return ranks.together(lambda: _kept(torch.cat(parts), folder, key) if ranks.first else None)


def _is_of(found: Reals, extractor: Extractor, images: Tensor) -> bool:
    """Whether ``extractor`` still gives these features: its name and weights do not tell if its code has changed.

    Other devices and batches change a feature by its rounding, 1e-3 of it with TF32, and another network by far more.
    """
    now, then = extractor(images)[0].float().cpu(), found.features[: len(images)]
    same = now.shape == then.shape and bool((now - then).norm() <= _ROUNDING * then.norm())
    if not same:
        _LOGGER.warning(
            "the extractor %s gives other features than those of real images in the cache, under the same name and "
            "weights: they are computed again. Scores of the two cannot be compared; give the new one another name",
            extractor.name,
        )
    return same


def _entry(
    data: ImageSet, count: int, seed: int, extractor: Extractor, cache: Path
) -> tuple[Path, dict[str, Any]]:
    """The folder of the features in the cache, and all that they depend on."""
    key = {
        "format": _FORMAT,
        "data": data.fingerprint,
        "count": min(count, len(data)),
        "seed": seed if count < len(data) else None,  # using all images needs no seed
        "extractor": extractor.name,
        "weights": extractor.sha256,
        "resize": extractor.resize,
    }
    return cache / "reals" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32], key


def _kept(features: Tensor, folder: Path, key: dict[str, Any]) -> Reals:
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
            features = np.load(file)
        with _checked(folder / _STATISTICS, entry) as file:
            _refuse_compressed(file)
            with np.load(file) as statistics:
                mu, sigma = statistics["mu"], statistics["sigma"]
        _refuse_other_shapes(features, mu, sigma, key["count"])
        return Reals(torch.from_numpy(features), Statistics(mu, sigma))
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


def _refuse_compressed(file: io.BufferedReader) -> None:
    """Raises ValueError for an archive whose members are larger than it is: they would take memory without bound."""
    with zipfile.ZipFile(file) as archive:
        needed = sum(member.file_size for member in archive.infolist())
    if needed > file.seek(0, os.SEEK_END):
        raise ValueError(f"{_STATISTICS} unpacks to {needed:,} bytes, more than it has")
    file.seek(0)


def _refuse_other_shapes(features: Any, mu: Any, sigma: Any, count: int) -> None:
    """Raises ValueError where these are not features (count, d), their mean (d,) and their covariance (d, d)."""
    shapes = [array.shape for array in (features, mu, sigma)]
    size = features.shape[-1] if features.ndim == 2 else 0
    if shapes != [(count, size), (size,), (size, size)] or not size:
        raise ValueError(f"features, mean and covariance have the shapes {shapes}, for {count} images")
    if features.dtype != np.float32 or mu.dtype.kind != "f" or sigma.dtype != np.float64:
        raise ValueError(f"features are {features.dtype}, mean {mu.dtype}, covariance {sigma.dtype}")


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
