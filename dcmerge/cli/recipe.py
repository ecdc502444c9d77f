"""``dcmerge recipe``: what a merged file was made of, as YAML; for mergekit too."""

from __future__ import annotations

import argparse
import sys

from dcmerge.cli.options import Commands, Parser, add_command
from dcmerge.cli.output import print_json, printable
from dcmerge.cli.plugins import add_plugins
from dcmerge.errors import InputError
from dcmerge.merging.mergekit import to_mergekit
from dcmerge.merging.running import Source, read_source


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "recipe", run, example="merged.safetensors")
    parser.add_argument("recipe", metavar="FILE", help="a merged .safetensors file; a recipe; a mergekit configuration")
    add_plugins(parser)
    parser.add_argument("--mergekit", action="store_true", help="as a mergekit configuration, where mergekit has the method")


def run(args: argparse.Namespace) -> int:
    if args.mergekit and args.json:
        raise InputError("expected --mergekit, which is YAML, or --json, got both")
    source = read_source(args.recipe)
    if args.mergekit:
        print(to_mergekit(source.recipe), end="")
        return 0
    return show(source, as_json=args.json)


def show(source: Source, *, as_json: bool) -> int:
    """The recipe on stdout, notes on it on stderr."""
    for note in source.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    print_json(source.recipe.to_data()) if as_json else print(source.recipe.to_yaml(), end="")
    return 0
