"""Merge: choose a method, tune it live, and read the accuracy on every task."""

import streamlit as st

from dcmerge.ui.choice import choice_of_method
from dcmerge.ui.full_evaluation import full_evaluation_card
from dcmerge.ui.history import history_card
from dcmerge.ui.live import live_card
from dcmerge.ui.mixing import mixer_card
from dcmerge.ui.saving import save_card
from dcmerge.ui.sequel import sequel_card
from dcmerge.ui.shell import start_page

page = start_page(
    "Merge",
    "The merged model is **base + α · merged task vector**. Every change merges again and shows the accuracy on a few validation "
    "images. The test images are used only when you ask for it.",
    with_layer=False,
    with_smoothing=False,
)

place = st.container()
page = mixer_card(page)
with place:
    choice = choice_of_method(page)
look = live_card(page, choice)
sequel_card(page, choice)
full_evaluation_card(page, choice, look)
history_card(page)
save_card(page, choice)
