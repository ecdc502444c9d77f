"""Methods: the catalogue, with what each method needs, does and scores."""

import streamlit as st

from dcmerge.ui.catalogue import method_card, overview_card
from dcmerge.ui.shell import start_page

page = start_page(
    "Methods",
    "Every merging method that is built in: its idea, its formula, what it needs, what its controls do, and what papers report "
    "of it beside our own numbers on the demo. All experts must share a base; what a method asks for besides is the first "
    "thing to look at.",
    with_layer=False,
)

shown = overview_card(page)
if shown:
    st.header("One by one")
for method in shown:
    method_card(page, method)
