"""Writes a report page and parses it with html.parser, so that tests can ask what is on it."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from fastdat.report import write_report

_VOID = {"meta", "link", "img", "input"}
Attributes = dict[str, str | None]


class Page(HTMLParser):
    """The page's tags with their attributes, its tables as rows of text, and its text outside of style and script.

    Raises:
        AssertionError: the elements are not properly nested and closed.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, Attributes]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def find(self, tag: str, **wanted: str) -> Iterator[Attributes]:
        """Attributes of every ``tag`` whose attributes include ``wanted``."""
        for name, attributes in self.tags:
            if name == tag and all(attributes.get(key.rstrip("_")) == value for key, value in wanted.items()):
                yield attributes

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the only table whose caption contains ``caption``."""
        (found,) = (rows for rows, said in zip(self.tables, self.captions, strict=True) if caption in said)
        return found

    def row(self, caption: str, heading: str) -> list[str]:
        """The cells of the only row whose heading starts with ``heading``."""
        (found,) = (row[1:] for row in self.table(caption) if row[0].startswith(heading))
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.captions.append("")
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small":
            self.handle_data(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> stands inside <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self._open or "script" in self._open:
            return
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data
        elif "caption" in self._open:
            self.captions[-1] += data


def report(folder: Path, *runs: Path) -> Page:
    """Write the report on ``runs`` as ``folder / "report.html"`` and parse it."""
    out = folder / "report.html"
    write_report(runs, out)
    return Page(out)
