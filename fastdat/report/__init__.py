"""One self-contained HTML page about one or several training runs. It is written without torch and without a network.

:mod:`~fastdat.report.page` fills in the templates. Each ``*_section`` module prepares the data of one section, which
the template of the same section turns into HTML.
"""

from fastdat.report.page import write_report
from fastdat.util.errors import ReportError

__all__ = ["ReportError", "write_report"]
