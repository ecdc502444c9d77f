"""Refusals stay short: lists end in a count, and of many lines the rest is counted."""

from __future__ import annotations

from dcmerge.errors import LONGEST, listed, shortened


def test_short_texts_stay_as_they_are() -> None:
    assert shortened(["one, two", "three"]) == ["one, two", "three"]


def test_a_long_list_ends_in_a_count() -> None:
    names = [f"layers.{i}.weight" for i in range(500)]
    (told,) = shortened([f"lacks 500 parameters: {', '.join(names)}"], " (--all shows them all)")
    assert len(told) <= LONGEST and told.startswith("lacks 500 parameters: layers.0.weight, ")
    shown = told.count("layers.")
    assert told.endswith(f" and {500 - shown} more (--all shows them all)")


def test_one_long_name_is_cut() -> None:
    (told,) = shortened(["x" * 10_000])
    assert len(told) <= LONGEST and told.endswith("... (10000 characters)")


def test_many_lines_are_counted() -> None:
    told = shortened([f"- reason {i}: {'a, ' * 100}" for i in range(100)], "!")
    assert sum(map(len, told)) <= LONGEST + 60 and told[-1] == f"and {100 - len(told) + 1} more!"


def test_listed_names_the_first_and_counts_the_rest() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert listed(["y" * 200]) == "y" * 100 + "... (200 characters)"
