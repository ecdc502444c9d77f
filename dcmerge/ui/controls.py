"""Widgets made from a method's declared parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.methods import Method
from dcmerge.methods.declare import Choice, Declared, Flag, Number
from dcmerge.studies.glossary import found_term
from dcmerge.ui.view import asked_for, remembered

#: A range that is this wide gets a slider by ratios, with these steps in each decade.
_DECADES, _DIGITS = 100, (1, 1.5, 2, 3, 5, 7)
#: Numbers below this step are shown with enough decimals to see one step.
_FORMATS = ((1e-3, "%.4f"), (0.1, "%.2f"), (1.0, "%.1f"))


def parameter_control(declared: Declared, *, key: str, follows: bool = False) -> Any:
    """One widget for one declared parameter, its value kept in the address bar under ``key``. ``follows``: see ``remembered``."""
    constraint, default = declared.constraint, declared.default
    common = {"key": key, "default": default, "help": _help(constraint), "follows": follows}
    if isinstance(constraint, Flag):
        return remembered(st.toggle, constraint.title, **common)
    if isinstance(constraint, Choice):
        return remembered(st.selectbox, constraint.title, options=list(constraint.options), **common)
    return _number(constraint, common)


def _help(constraint: Number | Choice | Flag) -> str:
    """What the method says of the parameter, after what the glossary says of the term that it is called by."""
    found = found_term(constraint.title)
    return f"{found.explained}\n\n{constraint.help}" if found else constraint.help


def _number(constraint: Number, common: dict[str, Any]) -> float | int | None:
    if _spans_decades(constraint):
        return _by_ratio(constraint, common)
    cast = int if constraint.integer else float
    high = constraint.high if constraint.soft_high is None else constraint.soft_high
    limits = {"min_value": cast(constraint.low), "max_value": cast(high), "step": cast(constraint.step)}
    number_format = "%d" if constraint.integer else next((text for step, text in _FORMATS if constraint.step < step), "%.1f")
    if constraint.auto:
        told: dict[str, Any] = {**common, "help": f"{_help(constraint)} Auto: {constraint.auto}."}
        return remembered(st.number_input, constraint.title, placeholder="auto", **limits, **told)
    return remembered(st.slider, constraint.title, format=number_format, **limits, **common)


def _spans_decades(constraint: Number) -> bool:
    low, high = constraint.usual_range
    return constraint.log and low > 0 and high / low >= _DECADES


def _by_ratio(constraint: Number, common: dict[str, Any]) -> float | None:
    """A slider whose steps are ratios; "auto" stands before the numbers. A value that was asked for is among them."""
    low, high = constraint.usual_range
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = {float(f"{digit}e{decade}") for decade in decades for digit in _DIGITS}
    values = {value for value in (*steps, low, high) if low <= value <= high}
    other = {value for value in (asked_number(constraint, common["key"]), common["default"]) if value is not None}
    return remembered(
        st.select_slider,
        constraint.title,
        options=[*([None] if constraint.auto else []), *sorted(values | other)],
        format_func=lambda value: "auto" if value is None else f"{value:g}",
        **({**common, "help": f"{common['help']} Auto: {constraint.auto}."} if constraint.auto else common),
    )


def asked_number(constraint: Number, key: str) -> float | None:
    """The value that the address, or a point of a sweep, asks for; None where it is none of this parameter's."""
    try:
        return constraint.parse(key, asked_for(key) or "auto")
    except InputError:
        return None


def method_controls(method: Method, shared: Mapping[str, Any], columns: int = 4) -> dict[str, Any]:
    """A widget for every parameter of a method; those that the sidebar already has are taken from it.

    A plugin's parameter of the same name is another one.
    """
    shared = {} if method.origin else shared
    own = [declared for name, declared in method.parameters.items() if name not in shared]
    values = {name: value for name, value in shared.items() if name in method.parameters}
    for place, column in zip(range(len(own)), st.columns(columns) * len(own), strict=False):
        with column:
            values[own[place].name] = parameter_control(own[place], key=f"{method.slug}.{own[place].name}")
    return method.check(values)
