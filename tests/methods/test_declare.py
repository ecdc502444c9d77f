"""Parameters as data: validation, the text form, and the register of methods."""

from __future__ import annotations

import math
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmerge import InputError, methods
from dcmerge.methods import method
from dcmerge.methods.declare import Choice, Declared, Flag, Number
from dcmerge.methods.origins import RESERVED
from dcmerge.methods.registry import merging_method

ALL = [(slug, declared) for slug, one in methods().items() for declared in one.parameters.values()]
every_parameter = pytest.mark.parametrize(("slug", "declared"), ALL, ids=[f"{s}.{d.name}" for s, d in ALL])


def text_of(value: Any) -> str:
    """How a user writes a value on the command line."""
    if value is None or isinstance(value, bool):  # a 0 equals False, but is not it
        return {None: "auto", True: "on", False: "off"}[value]
    return repr(value) if isinstance(value, float) else str(value)


@every_parameter
def test_the_default_is_valid_and_survives_its_text_form(slug: str, declared: Declared) -> None:
    assert declared.constraint.check(declared.name, declared.default) == declared.default
    parsed = method(slug).parse({declared.name: text_of(declared.default)})[declared.name]
    assert parsed == declared.default and type(parsed) is type(declared.default)


@every_parameter
def test_every_invalid_value_is_refused_in_one_sentence(slug: str, declared: Declared) -> None:
    assert declared.constraint.invalid()
    for value in declared.constraint.invalid():
        with pytest.raises(InputError) as refused:
            method(slug).check({declared.name: value})
        text = str(refused.value)
        assert text == f"{declared.name}: expected {declared.constraint.expected}, got {value!r}"


@every_parameter
def test_what_a_user_reads_is_there(slug: str, declared: Declared) -> None:
    constraint = declared.constraint
    assert constraint.title and constraint.help.strip().endswith((".", "!")) and len(constraint.help) > 15
    if isinstance(constraint, Number):
        assert constraint.low < (constraint.soft_high or constraint.high) <= constraint.high and constraint.step > 0
        assert declared.default is None or declared.default <= (constraint.soft_high or constraint.high)


@pytest.mark.parametrize("slug", methods())
def test_a_catalogue_entry_is_complete(slug: str) -> None:
    one = method(slug)
    assert one.slug == slug and one.title and one.idea.endswith(".") and one.formula and one.source
    assert one.function.__doc__ and set(one.needs) and one.usual_scale > 0
    assert not RESERVED & set(one.parameters), "merge(..., scale=…) and its like could not pass them on"


#: The order in which interfaces list the methods: from the simplest, baselines before what builds on them.
CATALOGUE = """
    average task_arithmetic ties dare breadcrumbs consensus_ta pcb emr model_stock slerp karcher fisher regmean
    tsv_m iso_c iso_cts knots wudi dc_merge lot cat opcm doge adamerging concrete adarank surgery intervmerge
    robustmerge rmm perturb_and_merge
""".split()  # noqa: SIM905  (a table of 31 quoted lines is harder to read)


def test_methods_stand_in_the_order_of_the_catalogue() -> None:
    assert list(methods()) == [slug for slug in CATALOGUE if slug in methods()]


NUMBER = Number("n", "A number.", 0, 1, 0.1)
COUNT = Number("n", "A count.", 1, 10, 1, integer=True, auto="half")


@pytest.mark.parametrize(("value", "wanted"), [(1, 1), (10, 10), (3.0, 3), (None, None)])
def test_counts(value: Any, wanted: Any) -> None:
    found = COUNT.check("n", value)
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize("value", [0, 11, 2.5, True, "3", math.nan, math.inf, -math.inf, 10**400, [1], 1j])
def test_bad_counts(value: Any) -> None:
    with pytest.raises(InputError, match=r"n: expected an integer in \[1, 10\] or auto, got "):
        COUNT.check("n", value)


@given(st.floats(allow_nan=True) | st.integers() | st.text() | st.none() | st.booleans())
def test_a_number_is_in_range_or_refused(value: Any) -> None:
    try:
        checked = NUMBER.check("n", value)
    except InputError:
        return
    assert type(checked) is float and 0 <= checked <= 1 and checked == value


@given(st.floats(0, 1))
def test_numbers_survive_their_text_form(value: float) -> None:
    assert NUMBER.parse("n", repr(value)) == value


@pytest.mark.parametrize("text", ["", "half", "1,5", "2", "nan", "inf", "1e999", "auto", "9" * 5000])
def test_bad_number_texts(text: str) -> None:
    with pytest.raises(InputError, match=r"n: expected a number in \[0, 1\], got "):
        NUMBER.parse("n", text)


@pytest.mark.parametrize("text", ["", "2.5", "0", "one", "9" * 400, "9" * 5000])
def test_bad_count_texts(text: str) -> None:
    with pytest.raises(InputError, match="n: expected an integer in"):
        COUNT.parse("n", text)


def test_auto_in_any_spelling() -> None:
    assert COUNT.parse("n", "auto") is COUNT.parse("n", "None") is COUNT.parse("n", "AUTO") is None


def test_flags_and_choices() -> None:
    flag, choice = Flag("f", "A flag."), Choice("c", "A choice.", ("one", "two"))
    assert [flag.parse("f", text) for text in ("on", "True", "1", "YES")] == [True] * 4
    assert [flag.parse("f", text) for text in ("off", "false", "0", "no")] == [False] * 4
    assert choice.parse("c", "two") == "two"
    for constraint, text in ((flag, "maybe"), (choice, "One"), (choice, "")):
        with pytest.raises(InputError, match="expected"):
            constraint.parse("p", text)


def test_unknown_methods_and_parameters_are_named() -> None:
    with pytest.raises(InputError, match=r"method: expected one of average, .*dc_merge.*, got 'mean'"):
        method("mean")
    for refuse in (lambda: method("ties").check({"k": 1}), lambda: method("ties").parse({"k": "1"})):
        with pytest.raises(InputError, match="ties: expected density, aggregate, trim, got the unknown parameter 'k'"):
            refuse()
    with pytest.raises(InputError, match="average: expected no parameters, got the unknown parameter 'rho'"):
        method("average").check({"rho": 5})


def test_registering_returns_the_function_and_refuses_a_slug_twice() -> None:
    def function(layer: Any) -> Any:
        """Nothing."""

    with pytest.raises(InputError, match="two methods are called 'average'"):
        merging_method("average", title="t", idea="i", formula="f", source="s")(function)


def undeclared(layer: Any, *, rho: float = 1.0) -> Any: ...


def without_default(layer: Any, *, rho: Annotated[float, NUMBER]) -> Any: ...


@pytest.mark.parametrize("function", [undeclared, without_default])
def test_a_parameter_declares_itself_or_is_refused(function: Any) -> None:
    with pytest.raises(InputError, match="new: parameter rho needs one Number, Choice or Flag and a default"):
        merging_method("new", title="t", idea="i", formula="f", source="s")(function)
    assert "new" not in methods()
