"""The matrix of pairs: every pair once, under its word or its number."""

from __future__ import annotations

import pytest

from dcmerge.plots.drawn import drawn
from dcmerge.plots.verdicts import NUMBERS, WORD, pair_matrix
from dcmerge.studies.verdict import Verdict, verdict
from tests.builders import full_set, random_tensors

TITLES = {"a": "Ants", "b": "Bees", "c": "Cats"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    first, third = random_tensors(1), random_tensors(2)
    deltas = {"a": first, "b": {name: -value for name, value in first.items()}, "c": third}
    return verdict(full_set(tmp_path_factory.mktemp("set"), deltas))


def test_a_square_a_pair_by_word(found: Verdict) -> None:
    figure = pair_matrix(found, TITLES, WORD, chosen=("a", "b"))
    series = {record["series"]: (record["expert"], record["expert (upwards)"]) for record in drawn(figure)[:1]}
    assert series == {"in conflict": ("Ants", "Bees")}
    assert len(drawn(figure)) == 3 and list(figure.data[0].marker.line.width) == [3]
    assert "1 in conflict" in figure.layout.title.text and "2 independent" in figure.layout.title.text


@pytest.mark.parametrize("shown", list(NUMBERS))
def test_a_square_a_pair_by_number(found: Verdict, shown: str) -> None:
    records = drawn(pair_matrix(found, TITLES, shown))
    number, form = NUMBERS[shown]
    assert [record[shown] for record in records] == [number(one.whole) for one in found.pairs]
    values, inks = [number(one.whole) for one in found.pairs], pair_matrix(found, TITLES, shown).data[0].textfont.color
    assert len(set(values)) == 1 or inks[values.index(max(values))] == "#000000"
    assert list(pair_matrix(found, TITLES, shown).data[0].text) == [format(number(one.whole), form) for one in found.pairs]
