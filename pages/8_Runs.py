"""Runs: everything that was measured, found again, compared, pinned and taken along."""

from dcmerge.ui.runs import runs_cards
from dcmerge.ui.shell import start_page_without_set

start_page_without_set(
    "Runs",
    "Every live look, every row of a comparison, every point of a sweep and every evaluation is kept here, with its settings and "
    "with which images were right. Nothing is lost when you reload a page or start again.",
)

runs_cards()
