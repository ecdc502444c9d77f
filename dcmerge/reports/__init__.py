"""Reports: what was measured as one HTML file that opens without a server or the net, as JSON, and against given bounds."""

from dcmerge.reports.bounds import Bound, bounds, judged
from dcmerge.reports.found import report_of
from dcmerge.reports.html import as_html
from dcmerge.reports.model import Figure, Report, Section

__all__ = ["Bound", "Figure", "Report", "Section", "as_html", "bounds", "judged", "report_of"]
