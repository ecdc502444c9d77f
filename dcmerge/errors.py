"""The errors that a user can cause, kept apart from the bugs that only a developer can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


#: A refusal has at most so many characters.
LONGEST = 600
_LEAST = 120


def shortened(lines: Sequence[str], hint: str = "") -> list[str]:
    """The lines of a refusal in at most about ``LONGEST`` characters.

    Long lists end in "and 412 more", and where there are many lines the last one counts the rest.
    """
    if sum(map(len, lines)) <= LONGEST:
        return list(lines)
    share, told, used = max(_LEAST, LONGEST // max(1, len(lines))), [], 0
    for place, line in enumerate(lines):
        if used >= LONGEST - _LEAST and place < len(lines):
            told.append(f"and {len(lines) - place} more{hint}")
            return told
        told.append(_cut(line, share, hint))
        used += len(told[-1])
    return told


def _cut(line: str, limit: int, hint: str) -> str:
    if len(line) <= limit:
        return line
    room = max(40, limit - len(hint) - 30)
    head, comma, _ = line[:room].rpartition(", ")
    if comma:
        return f"{head} and {line[len(head) :].count(', ')} more{hint}"
    return f"{line[:room]}... ({len(line)} characters{hint})"


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
