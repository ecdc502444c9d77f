"""What a person chose as text of an address, and back."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dcmerge.methods import methods
from dcmerge.methods.declare import Number
from dcmerge.ui.view import _decoded, _encoded

LIMITS = {"min_value": 1.0, "max_value": 20.0, "step": 0.5}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.0, "7"),
        (0.0001, "0.0001"),
        (0.35, "0.35"),
        (3, "3"),
        (True, "True"),
        (False, "False"),
        ("linear", "linear"),
        (["average", "ties"], "average,ties"),
    ],
)
def test_values_are_short_texts_and_come_back(value: Any, text: str) -> None:
    assert _encoded(value) == text
    options = value if isinstance(value, list) else None
    assert _decoded(text, type(value)(), options, {}) == value


def declared_numbers() -> list[Any]:
    return [
        pytest.param(declared.constraint, declared.default, id=f"{slug}.{name}")
        for slug, method in methods().items()
        for name, declared in method.parameters.items()
        if isinstance(declared.constraint, Number)
    ]


@pytest.mark.parametrize(("constraint", "default"), declared_numbers())
def test_every_value_that_a_slider_can_take_comes_back(constraint: Number, default: float | int | None) -> None:
    cast = int if constraint.integer else float
    limits = {"min_value": cast(constraint.low), "max_value": cast(constraint.high), "step": cast(constraint.step)}
    grid = [cast(constraint.low + i * constraint.step) for i in range(50)] + [cast(constraint.high)]
    for value in (v for v in grid if v <= constraint.high):
        found = _decoded(_encoded(value), default, None, limits)
        assert found == pytest.approx(value, abs=constraint.step / 1000)
        assert type(found) is cast


@pytest.mark.parametrize("text", ["0.5", "20.5", "-3", "nan", "inf", "seven", "", "1,5", "7; drop", "1e999"])
def test_a_number_that_makes_no_sense_is_none_of_the_sliders(text: str) -> None:
    with pytest.raises(ValueError):
        _decoded(text, 5.0, None, LIMITS)


def test_an_automatic_number_takes_its_type_from_the_step() -> None:
    limits = {"min_value": 1, "max_value": 100, "step": 1}
    assert _decoded("12", None, None, limits) == 12
    with pytest.raises(ValueError):
        _decoded("12.5", None, None, limits)
    assert _decoded(None, None, None, limits) is None


@pytest.mark.parametrize(("text", "default"), [("steep", "auto"), ("yes", True), ("1", False), ("average,x", ["average"])])
def test_an_option_that_does_not_exist_is_none(text: str, default: Any) -> None:
    options = None if isinstance(default, bool) else ["auto", "average", "linear"]
    with pytest.raises(ValueError):
        _decoded(text, default, options, {})


def two_pages() -> None:
    import streamlit as st

    from dcmerge.ui.view import arrive, choose, place_for_unknown, remembered

    page = st.radio("page", ["first", "second"])
    arrive(page)
    place_for_unknown()
    if page == "first":
        value = remembered(st.slider, "ρ", key="rho", default=5.0, min_value=1.0, max_value=20.0, step=0.5)
        remembered(st.multiselect, "methods", key="methods", default=["a"], options=["a", "b"])
        st.button("Pick", on_click=choose, args=("rho", 9.0))
        st.text(f"{value:g}")


def test_values_come_from_the_address_and_go_there() -> None:
    app = AppTest.from_function(two_pages, default_timeout=30)
    app.query_params["rho"] = "7"
    app.query_params["methods"] = "a,b"
    app.run()
    assert app.slider(key="rho").value == 7 and app.multiselect(key="methods").value == ["a", "b"]
    app.slider(key="rho").set_value(8.0).run()
    assert app.query_params["rho"] == "8"
    app.slider(key="rho").set_value(5.0).run()
    assert "rho" not in app.query_params  # the default needs no words


def test_values_outlive_a_page_that_does_not_draw_them() -> None:
    app = AppTest.from_function(two_pages, default_timeout=30).run()
    app.slider(key="rho").set_value(8.0).run()
    app.radio[0].set_value("second").run()
    assert app.query_params["rho"] == "8"
    app.radio[0].set_value("first").run()
    assert app.slider(key="rho").value == 8


def test_a_late_address_does_not_undo_what_was_just_moved() -> None:
    """A browser that is still drawing sends the next value with the address of the last but one."""
    app = AppTest.from_function(two_pages, default_timeout=30).run()
    for value in (7.0, 8.0):
        app.slider(key="rho").set_value(value).run()
    app.query_params["rho"] = "7"
    app.slider(key="rho").set_value(9.0).run()
    assert app.slider(key="rho").value == 9 and app.query_params["rho"] == "9"
    app.query_params["rho"] = "8"
    app.button[0].click().run()  # chooses 9 in a callback
    assert app.slider(key="rho").value == 9 and app.query_params["rho"] == "9"


def test_going_back_restores_an_earlier_address() -> None:
    app = AppTest.from_function(two_pages, default_timeout=30).run()
    for value in (7.0, 8.0):
        app.slider(key="rho").set_value(value).run()
    app.query_params["rho"] = "7"
    app.run()
    assert app.slider(key="rho").value == 7 and app.query_params["rho"] == "7"


def test_a_callback_can_choose() -> None:
    app = AppTest.from_function(two_pages, default_timeout=30).run()
    app.button[0].click().run()
    assert app.text[0].value == "9" and app.query_params["rho"] == "9"


@pytest.mark.parametrize("text", ["700", "seven"])
def test_what_a_link_cannot_have_is_told_and_stays_in_the_address(text: str) -> None:
    app = AppTest.from_function(two_pages, default_timeout=30)
    app.query_params["rho"] = text
    app.run()
    assert app.slider(key="rho").value == 5
    assert [box.value for box in app.warning] == [f"ρ\\: {text} was asked for, which is not possible here. 5.0 is shown instead."]
    app.multiselect(key="methods").set_value(["b"]).run()  # another control: the address keeps what was asked for
    assert app.query_params["rho"] == text and app.query_params["methods"] == "b" and len(app.warning) == 1
    app.slider(key="rho").set_value(8.0).run()
    assert app.query_params["rho"] == "8" and not app.warning
    app.slider(key="rho").set_value(5.0).run()
    assert "rho" not in app.query_params and not app.warning


def test_a_callback_ends_what_was_unknown() -> None:
    app = AppTest.from_function(two_pages, default_timeout=30)
    app.query_params["methods"] = "a,colleagues"
    app.query_params["rho"] = "0"
    app.run()
    assert len(app.warning) == 2 and app.multiselect(key="methods").value == ["a"]
    app.button[0].click().run()
    assert app.query_params["rho"] == "9" and len(app.warning) == 1


def test_what_becomes_possible_is_taken() -> None:
    app = AppTest.from_function(growing, default_timeout=30)
    app.query_params["set"] = "new"
    app.run()
    assert app.selectbox(key="set").value is None and app.query_params["set"] == "new"
    app.checkbox[0].check().run()
    assert app.selectbox(key="set").value == "new" and app.text[0].value == "None"
    app.checkbox[0].uncheck().run()  # it is gone again
    assert app.selectbox(key="set").value is None and app.text[0].value == "new" and app.query_params["set"] == "new"


def growing() -> None:
    import streamlit as st

    from dcmerge.ui.view import arrive, remembered, unknown

    more = st.checkbox("more")
    arrive("page")
    remembered(st.selectbox, "set", key="set", default="old", options=["old", "new"] if more else ["old"], replaced=False)
    st.text(str(unknown("set")))
