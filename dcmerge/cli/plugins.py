"""Methods from outside on the command line: the option that loads them, and what is told of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from dcmerge.methods import methods


def add_plugins(parser: argparse._ActionsContainer) -> None:
    """``--plugin``; ``main`` loads what it names before the command runs."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="a Python file with methods of your own, which is run; once for each file",
    )


def plugins_of(slugs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Name and hash of the plugins of those methods that are not built in, by slug."""
    known = methods()
    return {slug: origin.to_dict() for slug in slugs if slug in known and (origin := known[slug].origin)}


def plugin_lines(slugs: Iterable[str]) -> list[str]:
    """The same in words, a line a method."""
    return [f"{slug}: from {one['name']}, sha256 {one['sha256']}" for slug, one in plugins_of(slugs).items()]
