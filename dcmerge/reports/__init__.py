"""Reports: what was measured as one HTML file that opens without a server or the net, as JSON, and against given bounds."""

from dcmerge.reports.bounds import Bound, bounds, judged
from dcmerge.reports.found import report_of, report_of_job
from dcmerge.reports.html import as_html
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.reports.of_runs import report_of_runs
from dcmerge.reports.of_set import report_of_set
from dcmerge.reports.of_tells import report_of_study

__all__ = [
    "Bound",
    "Figure",
    "Report",
    "Section",
    "as_html",
    "bounds",
    "judged",
    "report_of",
    "report_of_job",
    "report_of_runs",
    "report_of_set",
    "report_of_study",
]
