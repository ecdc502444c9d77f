"""Diagnose: which parts of a merge hurt which task."""

from dcmerge.ui.damage_results import results_cards
from dcmerge.ui.damage_setup import setup_card
from dcmerge.ui.shell import start_page

page = start_page(
    "Diagnose",
    "A **damage map** puts every part of a merged model back, one at a time, and measures what each task gains or loses by it, "
    "on the same **validation** images. So you see where the merge hurts, and where it helps.",
    with_layer=False,
    with_smoothing=False,
)

setup_card(page)
results_cards(page)
