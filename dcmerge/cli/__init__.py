"""The command line: everything that the pages do, for scripts and for people in a terminal.

Exit codes: 0 success; 1 a method that breaks a promise (``methods --check``), or a fault of this program; 2 bad input, with one
line on stderr (of an incompatible set every reason, one a line); 3 what was looked at is not as it should be: a merged file
(``verify``), a pair of experts (``inspect --verdict``); 130 stopped with Ctrl-C; 141 nobody reads the output any more. Text is
for people, ``--json`` prints one JSON document.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch

from dcmerge import __version__
from dcmerge.cli import (
    app,
    cache,
    compare,
    convert,
    damage,
    evaluate,
    inspect,
    jobs,
    layers,
    lost,
    merge,
    methods,
    recipe,
    run,
    runs,
    spectra,
    sweep,
    tells,
    verify,
    zoo,
)
from dcmerge.cli.options import ALL, Parser, add_threads, common_options
from dcmerge.cli.output import printable
from dcmerge.cli.unforeseen import foreseen, report
from dcmerge.errors import IncompatibleSet, InputError, shortened
from dcmerge.methods import load_plugin

COMMANDS = (
    methods,
    inspect,
    spectra,
    convert,
    merge,
    run,
    recipe,
    evaluate,
    compare,
    sweep,
    tells,
    damage,
    lost,
    layers,
    zoo,
    runs,
    jobs,
    cache,
    verify,
    app,
)

EXAMPLES = (
    "dcmerge app                               # the dashboard, in your browser",
    "dcmerge compare --zoo demo --quick        # every method on the demo, side by side",
    "dcmerge merge --from FOLDER --method dc_merge --out merged.safetensors",
)
FAULT, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def build_parser() -> Parser:
    """The parser of every command; each command's module adds its own with ``add_to(commands, common)``."""
    about = "See why a model merge keeps or loses knowledge, and tune it."
    parser = Parser(prog="dcmerge", description=about, examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"dcmerge {__version__}")
    add_threads(parser)
    parser.set_defaults(json=False, threads=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    common = common_options()
    for command in COMMANDS:
        command.add_to(commands, common)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` without the program's name, default ``sys.argv[1:]``."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show α shows an escape instead of ending the program.
        if reconfigure := getattr(stream, "reconfigure", None):
            with suppress(ValueError):
                reconfigure(errors="backslashreplace")
    whole = ALL in (sys.argv[1:] if argv is None else argv)
    try:
        with _quiet():
            return _run(argv)
    except InputError as error:
        return _told(error_lines(error, whole=whole), BAD_INPUT)
    except KeyboardInterrupt:
        return _told(["stopped"], INTERRUPTED)
    except BrokenPipeError:
        # As Python's manual advises: otherwise the interpreter complains when it flushes at its end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # the outermost rule: a sentence, and never a bare traceback
        known = foreseen(error)
        return _told([printable(f"error: {known or report(error)}")], BAD_INPUT if known else FAULT)


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    for path in getattr(args, "plugin", ()):
        load_plugin(path)
    code = args.run(args)
    sys.stdout.flush()
    return code


@contextmanager
def _quiet() -> Iterator[None]:
    """Libraries' warnings are for developers: they do not reach stderr, unless Python's -W asks for them."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


def _told(lines: Sequence[str], code: int) -> int:
    print("\n".join(lines), file=sys.stderr)
    return code


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


def error_lines(error: InputError, *, whole: bool = False) -> list[str]:
    """One line; for an incompatible set the message's first line and every reason. Nothing in it moves the cursor.

    At most ``LONGEST`` characters unless ``whole``.
    """
    text = told_with_remedy(error)
    lines = text.splitlines() if isinstance(error, IncompatibleSet) else [text]
    if not whole:
        lines = shortened(lines, f" ({ALL} shows them all)")
    return [printable(line if place else f"error: {line}") for place, line in enumerate(lines)]
