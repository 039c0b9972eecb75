"""YAML of settings, from a file that may come from anywhere.

PyYAML's safe loader executes nothing. It may still take hours for a kilobyte: an alias stands for what its anchor
marks, so that thirty lines can describe a billion entries, which merging (``<<``) or a later walk visits one by one.
And it answers some texts with an error of Python instead of its own, the date 2026-99-99 for one.
"""

from __future__ import annotations

import re
from typing import Any

# YAML 1.2 and --set read 1e-4 as a number. To PyYAML, which follows YAML 1.1, it is text.
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Of settings: the ``floats`` of :func:`loads`."""
MOST_BYTES = 1 << 16
"""Of a file of settings; those that fastdat writes have 3,000."""
MOST_ENTRIES = 20_000
"""Of a file of settings, an alias counted as what it stands for."""
MOST_LEVELS = 32
"""Of brackets in each other; a thousand of them take PyYAML seconds."""


class PlainYamlError(ValueError):
    """The text is no YAML, or no settings of a sensible size."""


def loads(text: str, floats: Any = None) -> Any:
    """The value that ``text`` describes: dicts, lists, texts, numbers, dates.

    Args:
        text: of the whole file.
        floats: a pattern of further texts that are numbers, such as 1e-4; None leaves PyYAML's own.

    Raises:
        PlainYamlError: it is no YAML, too long, nested too deeply, or its aliases stand for too much.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level == MOST_LEVELS:
                raise PlainYamlError(f"it has more than {MOST_LEVELS} brackets in each other")
            super().fetch_flow_collection_start(token)

    if floats is not None:
        Loader.add_implicit_resolver("tag:yaml.org,2002:float", floats, list("-+.0123456789"))
    if len(text) > MOST_BYTES:
        raise PlainYamlError(f"it has {len(text):,} characters; settings have {MOST_BYTES:,} at most")
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            entries = _entries(node, {})
            if entries > MOST_ENTRIES:
                raise PlainYamlError(
                    f"its aliases stand for more than {MOST_ENTRIES:,} entries: write out those that are meant"
                )
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise PlainYamlError("it is nested too deeply, beyond the recursion limit") from error
    except yaml.YAMLError as error:
        raise PlainYamlError(str(error)) from error
    except PlainYamlError:
        raise
    except (
        Exception
    ) as error:  # !!int x, 2026-99-99, 0x, a number of 5,000 digits: ValueError, KeyError, IndexError ...
        raise PlainYamlError(f"a value in it is not of its type: {error or type(error).__name__}") from error


def _entries(node: Any, known: dict[Any, int | None]) -> int:
    """How many nodes there are when every alias is written out; more than :data:`MOST_ENTRIES` is all the same."""
    if node in known:
        counted = known[node]
        if counted is None:
            raise PlainYamlError("an entry contains itself")
        return counted
    known[node] = None
    below = node.value if isinstance(node.value, list) else []
    total = 1
    for entry in below:
        for inner in entry if isinstance(entry, tuple) else (entry,):
            total += _entries(inner, known)
    known[node] = min(total, MOST_ENTRIES + 1)
    return min(total, MOST_ENTRIES + 1)
