"""The command line: everything that the pages do, for scripts and for people in a terminal.

Exit codes: 0 success; 1 a method that breaks a promise (``methods --check``); 2 bad input, with one line on stderr (of an
incompatible set every reason, one a line); 130 stopped with Ctrl-C; 141 nobody reads the output any more. Text is for
people, ``--json`` prints one JSON document.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch

from dcmerge import __version__
from dcmerge.cli import (
    app,
    cache,
    compare,
    convert,
    evaluate,
    inspect,
    jobs,
    merge,
    methods,
    recipe,
    run,
    runs,
    spectra,
    sweep,
    zoo,
)
from dcmerge.cli.options import Parser, add_threads, common_options
from dcmerge.cli.output import printable
from dcmerge.errors import IncompatibleSet, InputError
from dcmerge.methods import load_plugin

COMMANDS = (methods, inspect, spectra, convert, merge, run, recipe, evaluate, compare, sweep, zoo, runs, jobs, cache, app)

EXAMPLES = (
    "dcmerge app                               # the dashboard, in your browser",
    "dcmerge compare --zoo demo --quick        # every method on the demo, side by side",
    "dcmerge merge --from FOLDER --method dc_merge --out merged.safetensors",
)
BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def build_parser() -> Parser:
    """The parser of every command; each command's module adds its own with ``add_to(commands, common)``."""
    about = "See why a model merge keeps or loses knowledge, and tune it."
    parser = Parser(prog="dcmerge", description=about, examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"dcmerge {__version__}")
    add_threads(parser)
    parser.set_defaults(json=False, threads=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for command in COMMANDS:
        command.add_to(commands, common_options())
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` without the program's name, default ``sys.argv[1:]``."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show α shows an escape instead of ending the program.
        if reconfigure := getattr(stream, "reconfigure", None):
            with suppress(ValueError):
                reconfigure(errors="backslashreplace")
    try:
        args = build_parser().parse_args(argv)
        if args.threads is not None:
            torch.set_num_threads(args.threads)
        for path in getattr(args, "plugin", ()):
            load_plugin(path)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        print("\n".join(error_lines(error)), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # As Python's manual advises: otherwise the interpreter complains when it flushes at its end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


#: What a user of the command line can do about an error, by the error's ``remedy``.
REMEDIES = {
    "base": "Name it with --base FILE.",
    "download": "Allow it with --download.",
    "different_bases": "If they are one base under two names, merge them with --different-bases.",
    "inputs": "Name the file with --input NAME=PATH, or a folder to search with --search FOLDER.",
}


def told_with_remedy(error: InputError) -> str:
    """The message, and what can be done about it."""
    hint = REMEDIES.get(error.remedy, "")
    return f"{str(error).rstrip('.')}. {hint}" if hint else str(error)


def error_lines(error: InputError) -> list[str]:
    """One line; for an incompatible set the message's first line and every reason. Nothing in it moves the cursor."""
    text = told_with_remedy(error)
    lines = text.splitlines() if isinstance(error, IncompatibleSet) else [text]
    return [printable(line if place else f"error: {line}") for place, line in enumerate(lines)]
