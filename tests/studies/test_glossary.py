"""The glossary: what its file holds, and the page that is made from it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from dcmerge.studies.glossary import as_markdown, explained, found_term, term, terms
from tools.glossary import PAGE


def test_every_term_is_one_to_three_whole_sentences() -> None:
    wrong = [name for name, one in terms().items() if not re.fullmatch(r"[A-Z].*\.", one.text) or len(one.text) > 330]
    assert not wrong


def test_no_name_has_two_explanations() -> None:
    names = Counter(known.casefold() for one in terms().values() for known in {one.name, *one.also})
    assert [name for name, count in names.items() if count > 1] == []


def test_a_term_is_found_by_any_of_its_names() -> None:
    assert found_term("Elect signs") == found_term("sign election") == terms()["sign election"]
    assert found_term("no such term") is None


def test_an_explanation_holds_text_formula_and_paper() -> None:
    told = term("aligned delta")
    assert "in the cover basis" in told and "M_t = C_Uᵀ D̄_t C_V" in told and "arXiv 2603.06242" in told


def test_several_terms_make_a_paragraph_each() -> None:
    assert explained("base", "expert").split("\n\n") == [f"**base**: {term('base')}", f"**expert**: {term('expert')}"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="no term 'covered base'"):
        term("covered base")


def test_the_page_of_the_documentation_says_the_same() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), "run python -m tools.glossary"
