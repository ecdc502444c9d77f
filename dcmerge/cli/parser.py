"""The parser of the command line and what needs nothing else: ``--help`` answers before torch is read from the disk."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dcmerge.errors import InputError

#: Every command, in the order of the help, with its line there. ``dcmerge/cli/NAME.py`` adds it.
COMMANDS = {
    "methods": "list the merging methods with their parameters and sources",
    "inspect": "say what lies in a folder, and whether a base and its experts fit together",
    "spectra": "show the singular values of the deltas, raw and smoothed",
    "convert": "read the tensors of a pickled module or an old file, without running it, into a safetensors file",
    "merge": "merge experts into one model and save it with its recipe",
    "run": "make a merged file from its recipe, or from a mergekit configuration",
    "recipe": "print the recipe in a merged file, or in a recipe's own file",
    "evaluate": "measure one merge, or a saved model, on every task of a set",
    "compare": "compare methods on a set: α on validation, accuracies on test, seconds",
    "sweep": "vary a method's parameters and α, find the best on validation images, look at it once on test",
    "damage": "show which matrices of a merge cost or give each task how much, by putting them back one at a time",
    "lost": "tell which images an expert gets right and its merge wrong, and the reverse, or on which images two runs differ",
    "layers": "show all matrices in one table: norm, effective rank, top share, overlap; of a merge DirSim, drift and damage",
    "tells": "show which measures tell without labels how accurate a merge is, over many merges of one set",
    "report": "write what was measured as one HTML file, or as JSON, and hold it against bounds",
    "zoo": "the facts of a set with images, which decide what merging methods can do on it",
    "runs": "list, show, compare, name, note, star, pin, export, import, publish or delete what was measured",
    "jobs": "list, show, cancel or resume background jobs (compare --background starts one)",
    "cache": "show or clear the cache of factors on disk",
    "verify": "read a merged file again: is it what its recipe says, and does it load? Exit code 3 where something is off",
    "app": "start the dashboard",
}
Commands = Any  # argparse's sub-parsers have no public type


def printable(text: object) -> str:
    """The text with everything escaped that does not print: names come from files and could move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are bad input like any other: one line, exit code 2. Its help ends with ``examples``."""

    def __init__(self, examples: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})
        self.examples = tuple(examples)

    def format_help(self) -> str:
        """argparse would fill the lines of an epilog like those of a paragraph; a command to copy stands on one."""
        heading = "example" if len(self.examples) == 1 else "examples"
        lines = [f"\n{heading}:\n", *(f"  {example}\n" for example in self.examples)] if self.examples else []
        return super().format_help() + "".join(lines)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


#: Tells all of a long error.
ALL = "--all"
#: More threads than this only wait for each other, and of many thousands the system has none left.
_MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))


def common_options() -> Parser:
    """What every command has; absent options leave alone what stood before the command's name."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("output and speed")
    group.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    group.add_argument(ALL, dest="show_all", action="store_true", help="tell every name of a long error message")
    add_threads(group)
    return parser


def add_threads(parser: argparse._ActionsContainer) -> None:
    """``--threads``, before or after the command's name."""
    parser.add_argument(
        "--threads", type=whole_number(1, _MOST_THREADS), metavar="N", help="torch threads (default: torch's own)"
    )


def add_command(commands: Commands, common: Parser, name: str, run: Callable[..., int], *, example: str) -> Parser:
    """One of ``COMMANDS`` with the common options; its line there heads its help.

    example: what follows the command's name in the example at the end of its help.
    """
    about = COMMANDS[name]
    parser = commands.add_parser(name, parents=[common], help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.examples = (f"{parser.prog} {example}",)
    parser.set_defaults(run=run)
    return parser


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """An integer of at least ``low`` (and at most ``high``), for ``type=``."""
    expected = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


def number(text: str) -> float:
    """A finite number, for ``type=``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return value


def pair(form: str) -> Callable[[str], tuple[str, str]]:
    """Two texts around the first ``=``, none of them empty, for ``type=``; ``form`` is what an error shows."""

    def parse(text: str) -> tuple[str, str]:
        left, equals, right = text.partition("=")
        if not (equals and left.strip() and right.strip()):
            raise argparse.ArgumentTypeError(f"expected {form}, got {text!r}")
        return left.strip(), right

    return parse
