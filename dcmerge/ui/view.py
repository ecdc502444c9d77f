"""What a person has chosen (set, layer, smoothing, α …): kept across pages, and in the address bar so that a link restores it.

Streamlit drops a widget's value when another page is shown, and its own ``bind="query-params"`` forgets values that came
with the link at the first change of page (1.67). So the choices live here, as the texts that the address bar shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

_CHOICES, _ADOPTED, _PAGE, _PUBLISHED = "view.choices", "view.adopted", "view.page", "view.published"
#: Texts of the widgets' values as they were last drawn, and whether a callback has chosen one since.
_DRAWN, _CHOSEN = "view.drawn", "view.chosen"


def arrive(page: str) -> None:
    """Called first on every page: takes over a new address (a link, Back, Forward), else restores it after a change of page."""
    state, address = st.session_state, st.query_params.to_dict()
    choices = state.setdefault(_CHOICES, {})
    changed_page, moved = state.get(_PAGE) != page, _moved()
    if address and address != state.get(_PUBLISHED) and not moved:
        choices.clear()
        choices.update(address)
        state[_ADOPTED] = set()
    elif changed_page:
        state[_ADOPTED] = set()
    state[_PAGE] = page
    _publish()


def _moved() -> bool:
    """Whether a widget was moved just now. Then an unexpected address is no link, and must not undo the move.

    It is an old one of our own: a busy browser sends the next value before it has heard of the last address.
    """
    state = st.session_state
    drawn = state.setdefault(_DRAWN, {})
    return state.pop(_CHOSEN, False) or any(key in state and _encoded(state[key]) != drawn[key] for key in drawn)


def remembered(
    widget: Callable[..., Any], label: str, *, key: str, default: Any, options: Sequence[Any] | None = None, **arguments: Any
) -> Any:
    """Draw a keyed widget whose value is restored from, and written to, the address bar; values equal to the default are not.

    A value in the address that is not one of ``options``, or outside min_value .. max_value, counts as the default.
    """
    state = st.session_state
    adopted = state.setdefault(_ADOPTED, set())
    if key not in adopted or key not in state:
        state[key] = _decoded(state[_CHOICES].get(key), default, options, arguments)
        adopted.add(key)
    elif options is not None and not _among(state[key], options):
        state[key] = default
    value = widget(label, key=key, **({"options": options} if options is not None else {}), **arguments)
    _remember(key, value, default)
    return value


def choose(key: str, value: Any) -> None:
    """Set a remembered widget's value from a callback, before it is drawn."""
    st.session_state[key] = value
    st.session_state[_CHOSEN] = True
    st.session_state.setdefault(_CHOICES, {})[key] = _encoded(value)


def choose_for_next_page(key: str, value: Any) -> None:
    """The same from a page on which the widget is drawn already: it takes the value when the next page is opened."""
    st.session_state.setdefault(_CHOICES, {})[key] = _encoded(value)


def _among(value: Any, options: Sequence[Any]) -> bool:
    return all(item in options for item in value) if isinstance(value, list) else value in options


def _remember(key: str, value: Any, default: Any) -> None:
    choices = st.session_state[_CHOICES]
    st.session_state.setdefault(_DRAWN, {})[key] = _encoded(value)
    if value == default or value is None:
        choices.pop(key, None)
    else:
        choices[key] = _encoded(value)
    _publish()


def _publish() -> None:
    choices = dict(st.session_state[_CHOICES])
    if st.query_params.to_dict() != choices:
        st.query_params.from_dict(choices)
    st.session_state[_PUBLISHED] = choices


def _encoded(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decoded(text: str | None, default: Any, options: Sequence[Any] | None, limits: dict[str, Any]) -> Any:
    """The text of an address as the type of the default; the default where it makes no sense."""
    if text is None:
        return default
    try:
        if isinstance(default, bool):
            value: Any = {"True": True, "False": False}[text]
        elif default is None or isinstance(default, (int, float)):
            value = type(limits.get("step", default))(text)
            low, high = limits.get("min_value", value), limits.get("max_value", value)
            return value if low <= value <= high else default
        else:
            value = text.split(",") if isinstance(default, list) else text
    except (ValueError, KeyError):
        return default
    return value if options is None or _among(value, options) else default
