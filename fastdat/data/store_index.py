"""What ``store.json`` must contain: each entry with its type. Code that reads an index later relies on this check."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from typing import Any

from fastdat.data import image_set
from fastdat.data.image_layout import shard_unit
from fastdat.data.registry import SPLITS

_Entry = tuple[Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 300  # True is an int too; products can still be shown


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_item, value))


def _for_splits(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and len(value) > 0
        and value.keys() <= {*SPLITS}
        and all(map(is_item, value.values()))
    )


def _is_pair(value: Any) -> bool:
    return _list_of(_is_text)(value) and len(value) == 2


_COUNT: _Entry = (_is_count, "a positive integer")
_TEXT: _Entry = (_is_text, "a text")
_DIGEST: _Entry = (_is_digest, "64 hexadecimal digits")
_NAMES = " and ".join(SPLITS)

_INDEX: dict[str, _Entry] = {
    "format": _COUNT,
    "dataset": _TEXT,
    "resolution": _COUNT,
    "channels": _COUNT,
    "resize": _TEXT,
    "source": _TEXT,
    "items": (_for_splits(_is_count), f"a positive integer for each split of {_NAMES}"),
    "identity": (_for_splits(_is_digest), f"64 hexadecimal digits for each split of {_NAMES}"),
    "classes": (_list_of(_is_text), "a list of texts"),
    "splits": (_for_splits(lambda value: isinstance(value, dict)), f"an object for each split of {_NAMES}"),
}
_SPLIT: dict[str, _Entry] = {
    "count": _COUNT,
    "items": _COUNT,
    "skipped": (_list_of(_is_pair), "a list of [name, reason]"),
    "blocks": (_list_of(_is_digest), "a list of 64 hexadecimal digits each"),
    "labels": _DIGEST,
    "shard_images": (lambda value: value is None or _is_count(value), "a positive integer, or null"),
    "fingerprint": _DIGEST,
}


def check_index(index: dict[str, Any]) -> None:
    """Check every entry that is read later.

    Raises:
        ValueError: an entry is missing, has another type, or does not fit the others; the message names it.
    """
    _check(index, "", _INDEX)
    unit = shard_unit(index["channels"] * index["resolution"] ** 2)
    for split, facts in index["splits"].items():
        _check(facts, f"splits.{split}.", _SPLIT)
        count, items, skipped = facts["count"], facts["items"], len(facts["skipped"])
        if items != count + skipped:
            raise ValueError(
                f"splits.{split}.count: expected {items - skipped} ({items} items, {skipped} skipped), got {count}"
            )
        blocks = -(-count // image_set.BLOCK)
        if len(facts["blocks"]) != blocks:
            raise ValueError(
                f"splits.{split}.blocks: expected {blocks} for {count} images, got {len(facts['blocks'])}"
            )
        if (facts["shard_images"] or 0) % unit:
            raise ValueError(
                f"splits.{split}.shard_images: expected a multiple of {unit}, got {facts['shard_images']}"
            )


def _check(found: dict[str, Any], where: str, entries: dict[str, _Entry]) -> None:
    for key, (is_right, expected) in entries.items():
        if key not in found:
            raise ValueError(f"{where}{key} is missing; expected {expected}")
        if not is_right(found[key]):
            raise ValueError(f"{where}{key}: expected {expected}, got {reprlib.repr(found[key])}")
