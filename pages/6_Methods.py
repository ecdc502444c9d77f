"""Methods: the catalogue, with what each method needs, does and scores."""

from dcmerge.ui.catalogue import catalogue_cards
from dcmerge.ui.shell import start_page

page = start_page(
    "Methods",
    "Every merging method: its idea, its formula, what it needs, what its controls do, and what papers report of it beside our "
    "own numbers on the demo. All methods need experts of one base. Look first at what a method needs besides.",
    with_layer=False,
)

catalogue_cards(page)
