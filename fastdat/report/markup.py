"""HTML as values: whatever is not :class:`Markup` is escaped where it is put in, so nothing from a file is code."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = frozenset({"img", "input", "link", "meta"})


class Markup(str):
    """HTML that is safe to put into a page as it is. Made by this module only, or from constants."""

    __slots__ = ()


Child = str | int | float


def element(tag: str, /, *children: Child, **attributes: Child | bool | None) -> Markup:
    """``<tag attributes>children</tag>``; children that are not :class:`Markup` are text and escaped.

    ``class_`` is the attribute class, other underscores are hyphens; True is an attribute without value, False and
    None are none.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Child], between: str = "") -> Markup:
    """Children one after the other, text among them escaped."""
    return Markup(text(between).join(text(child) for child in children))


def text(value: Child) -> Markup:
    """``value`` as text of a page; :class:`Markup` stays as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def table(
    caption: Child, head: Sequence[Child], rows: Iterable[tuple[Child, Sequence[Child], bool]]
) -> Markup:
    """A table with header cells for its columns and rows, in a box that scrolls sideways where it is too wide.

    Args:
        caption: says what it is.
        head: column headings, the first above the row headings.
        rows: heading, cells, and whether to highlight the row.
    """
    columns = element("tr", *(element("th", cell, scope="col") for cell in head))
    lines = [
        element(
            "tr",
            element("th", heading, scope="row"),
            *(element("td", cell) for cell in cells),
            class_="differs" if marked else None,
        )
        for heading, cells, marked in rows
    ]
    content = element(
        "table", element("caption", caption), element("thead", columns), element("tbody", *lines)
    )
    name = "Table, scrolls sideways"
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def _attribute(key: str, value: Child | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'
