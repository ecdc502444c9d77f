"""``dcmerge verify``: reads a merged file again and says whether it holds what its recipe says."""

from __future__ import annotations

import argparse

from dcmerge.cli.options import Commands, Parser, add_command, collected
from dcmerge.cli.output import Progress, paragraph, print_json
from dcmerge.cli.plugins import add_plugins
from dcmerge.cli.run import add_inputs
from dcmerge.merging.verify import Verified, verify

#: Exit code where something is off.
OFF = 3
_MARKS = {True: "ok", False: "OFF", None: "note"}


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "verify", run, example="merged.safetensors --search checkpoints")
    parser.add_argument("merged", metavar="MERGED", help="a .safetensors file or a folder that dcmerge wrote")
    add_inputs(parser)
    add_plugins(parser)
    parser.add_argument("--no-loading", action="store_true", help="do not load the folder with transformers or PEFT and run it")


def run(args: argparse.Namespace) -> int:
    given = collected(args.input, "--input")
    with Progress() as progress:
        found = verify(args.merged, given, args.search, forward=not args.no_loading, download=args.download, progress=progress)
    print_json(found.to_dict()) if args.json else print(as_text(found))
    return 0 if found.sound else OFF


def as_text(found: Verified) -> str:
    """A line a check, then the verdict."""
    lines = [paragraph(f"{_MARKS[check.ok]:4} {check.what}: {check.text}", hanging=5) for check in found.checks]
    verdict = "Nothing is off." if found.sound else "Something is off."
    return "\n".join([*lines, verdict])
