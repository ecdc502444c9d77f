"""The errors that a user can cause, kept apart from the bugs that only a developer can."""

from __future__ import annotations

from collections.abc import Iterable

#: How a note begins that tells of something wrong.
WARNING = "warning: "


#: So many items, and so many characters of each, are told in a sentence; the others are counted.
_LISTED, _LONGEST = 8, 100


def listed(items: Iterable[object], between: str = ", ") -> str:
    """Items in a row, for a sentence: the first ones, then how many there are besides ("a, b and 412 more")."""
    texts = [str(item) for item in items]
    told = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)" for text in texts[:_LISTED]]
    rest = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return between.join(told) + rest


class InputError(ValueError):
    """Bad input: the message is one sentence for the user, saying what was expected and what came.

    The command line prints it and exits with 2; the app shows it in a box. It never carries a traceback. ``remedy`` is the
    way out where the two faces offer different ones, and each says it in its own words: "base" (name the base),
    "different_bases" (confirm them), "download"
    (allow it), "inputs" (say where a recipe's input is); empty where the message says all.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class IncompatibleSet(InputError):
    """A base and its experts cannot be merged; ``report`` holds every reason, the message lists them all."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class Cancelled(Exception):
    """The user stopped a long computation; nothing was written."""


class PickledObject(InputError):
    """A file holds a pickled object, which would run code when opened: it must be converted first."""
