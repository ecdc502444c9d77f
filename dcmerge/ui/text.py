"""Text for the screen."""

from __future__ import annotations


def plain(text: str) -> str:
    """Text from files or users, with Markdown's signs made harmless."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+-!|<>$~:" else sign for sign in text)


def percent(value: float | None) -> str:
    """0.123 as "12.3 %"."""
    return "–" if value is None else f"{100 * value:.1f} %"
