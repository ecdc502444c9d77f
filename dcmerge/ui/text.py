"""Text for the screen."""

from __future__ import annotations

from dcmerge.evaluation import Difference


def plain(text: str) -> str:
    """Text from files or users, with Markdown's signs made harmless."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+-!|<>$~:" else sign for sign in text)


def percent(value: float | None) -> str:
    """0.123 as "12.3 %"."""
    return "–" if value is None else f"{100 * value:.1f} %"


def hundredfold(share: float | None) -> float | None:
    """In percent, for a column of numbers; None where an expert is right on no image, which leaves its ratio without meaning."""
    return None if share is None else 100 * share


def interval(difference: Difference) -> str:
    """ "+0.8 [−0.2, +1.9]" in percentage points."""
    value, low, high = (f"{100 * share:+.1f}".replace("-", "−") for share in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"


def duration(seconds: float) -> str:
    """125 as "2 min"; below a minute in steps of 5 s, so that it does not flicker."""
    return f"{max(5, 5 * round(seconds / 5))} s" if seconds < 60 else f"{round(seconds / 60)} min"
