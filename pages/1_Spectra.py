"""Spectra: singular values of every task vector, raw, smoothed and aligned."""

from dcmerge.ui.shell import start_page
from dcmerge.ui.spectra import concentration_card, cumulative_card, figures_card, overview_card, spectrum_card

page = start_page(
    "Spectra",
    "A **task vector** is expert minus base. The singular values of one of its matrices are its **spectrum**. A few large values "
    "usually hold most of the energy, so weak directions vanish in a merge. **Smoothing** makes the kept values more equal and "
    "leaves their sum as it is. Change it in the sidebar and watch.",
)

spectrum_card(page)  # first: it is what a moved ρ changes, and both are to be seen at once
overview_card(page)
cumulative_card(page)
figures_card(page)
concentration_card(page)
