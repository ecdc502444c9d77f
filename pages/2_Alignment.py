"""Alignment: where the experts overlap, and what the cover basis does about it."""

from dcmerge.ui.alignment import aligned_card, blocks_card, consistency_card, overlap_card
from dcmerge.ui.shell import start_page

page = start_page(
    "Alignment",
    "Experts that use the same directions disturb each other when they are added. **Whitening** replaces their singular vectors "
    "by the nearest orthogonal ones. These are the **cover basis**, in which every task owns a block. DC-Merge merges there, so "
    "that the merged model still points where each expert pointed.",
)

overlap_card(page)
aligned_card(page)
blocks_card(page)
consistency_card(page)
