"""Compare: methods side by side, on the same images, with what they cost."""

from dcmerge.ui.compare_results import results_cards
from dcmerge.ui.compare_setup import setup_card
from dcmerge.ui.shell import start_page

page = start_page(
    "Compare",
    "Every method merges the same experts, gets its own **α on validation** images and is measured once on **test** images. The "
    "comparison runs in the background and goes on when you leave the page. Each row appears as soon as it is ready.",
    with_layer=False,
)

setup_card(page)
results_cards(page)
