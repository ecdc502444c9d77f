"""Tune: parameters and α varied, the accuracy against them with its intervals, and why."""

from dcmerge.ui.shell import start_page
from dcmerge.ui.tune_results import results_cards
from dcmerge.ui.tune_setup import setup_card

page = start_page(
    "Tune",
    "A **sweep** merges with many values of the parameters, gives each merge its own best **α**, and shows the accuracy on "
    "**validation** images with its 95 % interval. It runs in the background and goes on when you leave the page. The best point "
    "is looked at once on **test**.",
)

setup_card(page)
results_cards(page)
