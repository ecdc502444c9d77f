"""The merge on the page as texts to copy: a command, a Python script, a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.merging import snippets
from dcmerge.merging.recipe import ADAPTER, Recipe, inputs_of, qkv_of
from dcmerge.ui.choice import Choice
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain


def copies(page: Page, choice: Choice, what: Mapping[str, Any], *, small: bool) -> None:
    """Three tabs with the same merge, of which ``what`` (fields of a recipe) is saved.

    ``small`` sets are hashed at once for the recipe, others when they are asked for.
    """
    command, python, recipe = st.tabs(["As command", "As Python", "As recipe"])
    out = snippets.OUT if what["content"] != ADAPTER else "merged-adapter"
    with command:
        _code(lambda: snippets.command(_recipe(page, choice, what, hashed=False), out), "bash")
    with python:
        _code(lambda: snippets.python(_recipe(page, choice, what, hashed=False), out), "python")
    with recipe:
        hashed = small or st.toggle(
            "With hashes of the inputs",
            key="save.hashed",
            help="The recipe then names the exact content of every input. Reads every input once.",
        )
        _code(lambda: _recipe(page, choice, what, hashed=hashed).to_yaml(), "yaml", height=400)
        st.caption("Save this as `recipe.yaml`. Then `python -m dcmerge run recipe.yaml` writes the same file, byte for byte.")


def _code(make: Callable[[], str], language: str, height: int | Literal["content"] = "content") -> None:
    """A text with its copy button; where there is none (a task's name that no option can hold), why."""
    try:
        st.code(make(), language=language, wrap_lines=True, height=height)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/info:")


def _recipe(page: Page, choice: Choice, what: Mapping[str, Any], *, hashed: bool) -> Recipe:
    vectors = page.models.vectors
    return Recipe.of(
        {
            "inputs": inputs_of(vectors, hashed=hashed),
            "zoo": vectors.zoo,
            "method": choice.method.slug,
            "parameters": choice.parameters,
            "scale": choice.scale.value,
            "scale_origin": choice.scale.origin,
            "tolerance": vectors.tolerance,
            "qkv": qkv_of(vectors),
            "mix": vectors.mix.to_data(),
            **what,
        }
    )
