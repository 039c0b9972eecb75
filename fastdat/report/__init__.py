"""One HTML page about one or several training runs; it needs nothing beside itself, no network and no torch."""

from fastdat.report.page import write_report
from fastdat.util.errors import ReportError

__all__ = ["ReportError", "write_report"]
