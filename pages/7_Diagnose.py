"""Diagnose: why a merge keeps or loses what its experts know."""

from dcmerge.ui.diagnose import diagnosis
from dcmerge.ui.shell import start_page

page = start_page(
    "Diagnose",
    "See **why** a merge keeps or loses what its experts know. Choose a question.",
    with_layer=False,
    with_smoothing=False,
)

diagnosis(page)
