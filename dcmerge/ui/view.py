"""What a person has chosen (set, layer, smoothing, α …): kept across pages, and in the address bar so that a link restores it.

Streamlit drops a widget's value when another page is shown, and its own ``bind="query-params"`` forgets values that came
with the link at the first change of page (1.67). So the choices live here, as the texts that the address bar shows.

What a link asks for and this app does not have is told in a box and stays in the address: whoever follows a colleague's link must
not read other numbers without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from dcmerge.ui.text import plain

_CHOICES, _ADOPTED, _PAGE, _PUBLISHED = "view.choices", "view.adopted", "view.page", "view.published"
#: Texts of the widgets' values as they were last drawn, and whether a callback has chosen one since.
_DRAWN, _CHOSEN = "view.drawn", "view.chosen"
#: The defaults with which widgets were drawn last, of those that follow theirs.
_FOLLOWED = "view.followed"
#: Texts that were asked for and mean nothing here, by key; the place for the boxes that tell it, and what this run told.
_UNKNOWN, _BOX, _TOLD = "view.unknown", "view.box", "view.told"


def arrive(page: str) -> None:
    """Called first on every page: takes over a new address (a link, Back, Forward), else restores it after a change of page."""
    state, address = st.session_state, st.query_params.to_dict()
    choices = state.setdefault(_CHOICES, {})
    changed_page, moved = state.get(_PAGE) != page, _moved()
    if address and address != state.get(_PUBLISHED) and not moved:
        choices.clear()
        choices.update(address)
        state[_ADOPTED], state[_UNKNOWN] = set(), {}
    elif changed_page:
        state[_ADOPTED] = set()
    state[_PAGE], state[_TOLD] = page, set()
    _publish()


def place_for_unknown() -> None:
    """Where on the page the boxes come that tell what a link asked for and is not known here."""
    st.session_state[_BOX] = st.container()


def asked_for(key: str) -> str | None:
    """The text that the address, or the visitor, asks for under a key."""
    return st.session_state.get(_CHOICES, {}).get(key)


def unknown(key: str) -> str | None:
    """The text that was asked for under a key and means nothing here; None where there is no such."""
    return st.session_state.get(_UNKNOWN, {}).get(key)


def _moved() -> bool:
    """Whether a widget was moved just now. Then an unexpected address is no link, and must not undo the move.

    It is an old one of our own: a busy browser sends the next value before it has heard of the last address.
    """
    state = st.session_state
    drawn = state.setdefault(_DRAWN, {})
    return state.pop(_CHOSEN, False) or any(key in state and _encoded(state[key]) != drawn[key] for key in drawn)


def remembered(
    widget: Callable[..., Any],
    label: str,
    *,
    key: str,
    default: Any,
    options: Sequence[Any] | None = None,
    replaced: bool = True,
    follows: bool = False,
    **arguments: Any,
) -> Any:
    """Draw a keyed widget whose value is restored from, and written to, the address bar; values equal to the default are not.

    For a value in the address that is not one of ``options``, or outside min_value .. max_value, the default is drawn and a box
    says so; unless ``replaced``, nothing is chosen then, and the caller says it. The address keeps it until another is chosen.
    ``follows``: a widget at its default takes the new one where the default changes, as with another set.
    """
    if follows:
        _follow(key, default)
    _adopt(key, default, default if replaced else None, options, arguments)
    value = widget(label, key=key, **({"options": options} if options is not None else {}), **arguments)
    _remember(key, value, default)
    if replaced and unknown(key) is not None:
        shown = arguments.get("format_func", str)(value)
        _tell(key, f"{label}: {unknown(key)} was asked for, which is not possible here. {shown} is shown instead.")
    return value


def newest(label: str, titles: Mapping[str, str], *, key: str, help: str = "Newest first.") -> str:
    """One of several things by its id, at first the newest. ``titles`` by id, the newest first; at least one."""
    options, first = list(titles), next(iter(titles))
    return remembered(st.selectbox, label, key=key, default=first, options=options, format_func=titles.get, help=help)


def _follow(key: str, default: Any) -> None:
    state = st.session_state
    before = state.setdefault(_FOLLOWED, {}).get(key, default)
    if before != default and state.get(key) == before:
        choose(key, default)
    state[_FOLLOWED][key] = default


def _adopt(key: str, default: Any, fallback: Any, options: Sequence[Any] | None, limits: dict[str, Any]) -> None:
    """Set a widget's value before it is drawn: from the address, as it was, or ``fallback`` where that is not to be had."""
    state = st.session_state
    adopted, lost = state.setdefault(_ADOPTED, set()), state.setdefault(_UNKNOWN, {})
    if key in lost and state.get(key, fallback) != fallback:
        del lost[key]  # somebody chose another one
    asked = state[_CHOICES].get(key)
    if key in adopted and key in state and key not in lost:
        if options is None or _among(state[key], options):
            return
        # Another set has other layers and methods: who changed it need not be told, but for the set itself.
        asked = None if fallback == default else _encoded(state[key])
    adopted.add(key)
    try:
        state[key] = _decoded(asked, default, options, limits)
        lost.pop(key, None)
    except ValueError:
        state[key], lost[key] = fallback, asked


def _tell(key: str, text: str) -> None:
    """A box on top of the page, once in a run: a fragment that draws itself again would add another one."""
    told = st.session_state.setdefault(_TOLD, set())
    if key not in told and _BOX in st.session_state:
        told.add(key)
        st.session_state[_BOX].warning(plain(text), icon=":material/link_off:")


def choose(key: str, value: Any) -> None:
    """Set a remembered widget's value from a callback, before it is drawn."""
    st.session_state[key] = value
    st.session_state[_CHOSEN] = True
    st.session_state.setdefault(_UNKNOWN, {}).pop(key, None)
    st.session_state.setdefault(_CHOICES, {})[key] = _encoded(value)


def forget(prefix: str) -> None:
    """For a callback: all widgets whose keys begin so take their defaults."""
    choices, state = st.session_state.setdefault(_CHOICES, {}), st.session_state
    for key in {str(key) for key in (*choices, *state) if str(key).startswith(prefix)}:
        choices.pop(key, None)
        state.pop(key, None)
    state[_CHOSEN] = True


def is_any_chosen(prefix: str) -> bool:
    """Whether a widget whose key begins so is not at its default, as far as the address tells."""
    return any(key.startswith(prefix) for key in st.session_state.get(_CHOICES, {}))


def choose_for_next_page(key: str, value: Any) -> None:
    """The same from a page on which the widget is drawn already: it takes the value when the next page is opened."""
    st.session_state.setdefault(_CHOICES, {})[key] = _encoded(value)


def _among(value: Any, options: Sequence[Any]) -> bool:
    return all(item in options for item in value) if isinstance(value, list) else value in options


def _remember(key: str, value: Any, default: Any) -> None:
    choices = st.session_state[_CHOICES]
    st.session_state.setdefault(_DRAWN, {})[key] = _encoded(value)
    if (asked := unknown(key)) is not None:
        choices[key] = asked
    elif value == default or value is None:
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
    """The text of an address as the type of the default, which no text stands for; ValueError where it makes no sense."""
    if text is None:
        return default
    if options is not None and not isinstance(default, list):
        for option in options:
            if option is not None and _encoded(option) == text:
                return option
        raise ValueError(f"expected one of the options, got {text!r}")
    if isinstance(default, bool):
        value: Any = text == "True"
        fits = text in ("True", "False")
    elif default is None or isinstance(default, (int, float)):
        value = type(limits.get("step", default))(text)
        fits = limits.get("min_value", value) <= value <= limits.get("max_value", value)
    else:
        value = text.split(",") if isinstance(default, list) else text
        fits = options is None or _among(value, options)
    if not fits:
        raise ValueError(f"expected a value of this widget, got {text!r}")
    return value
