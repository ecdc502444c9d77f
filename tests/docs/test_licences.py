"""The page of licences names every package of the lists of requirements, with its licence."""

from __future__ import annotations

import pytest

from tests.docs.pages import text_of
from tools import licences


def test_every_requirement_is_listed_with_its_licence_and_its_lists() -> None:
    text = text_of("docs/licences.md")
    listed = {
        cells[1]: (cells[2], cells[3]) for line in text.splitlines() if len(cells := [c.strip() for c in line.split("|")]) == 5
    }
    for name, lists in licences.requirements().items():
        licence, where = listed[name]
        assert where == ", ".join(f"`{one}`" for one in lists)
        assert licence and licence != "not stated" and "not installed" not in licence, name
    assert "torch" in listed and "optuna" in listed


def test_what_a_requirement_brings_with_it_is_listed() -> None:
    text = text_of("docs/licences.md")
    # NVIDIA's libraries come on some machines alone.
    lacking = [name for name in licences.needed(iter(["streamlit", "optuna", "open-clip-torch"])) if f"| {name} |" not in text]
    assert lacking == []


@pytest.mark.parametrize(("name", "told"), [("Open_CLIP.torch", "open-clip-torch"), ("PyYAML", "pyyaml")])
def test_names_are_compared_as_registries_do(name: str, told: str) -> None:
    assert licences.normalised(name) == told


def test_a_page_that_was_written_keeps_what_is_not_installed_here() -> None:
    assert licences.row("no-such-package", "x", {"no-such-package": "MIT"}) == "| no-such-package | MIT | x |"
