"""``dcmerge cache``: what the cache of factors holds on disk, and how to empty it."""

from __future__ import annotations

import argparse
import sys

from dcmerge.checkpoints.leftovers import remove_leftovers
from dcmerge.cli.options import Commands, Parser, add_command
from dcmerge.cli.output import print_json, size
from dcmerge.errors import InputError
from dcmerge.vectors.cache import default_store
from dcmerge.vectors.cache.disk import FOLDER_VARIABLE


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "cache", run, example="clear")
    parser.add_argument("action", nargs="?", choices=("show", "clear"), default="show", help="default: show")


def run(args: argparse.Namespace) -> int:
    store = default_store()
    if store is None:
        raise InputError(f"expected a cache to {args.action}, got none: {FOLDER_VARIABLE} is off")
    if left := remove_leftovers(store.folder).note(store.folder):
        print(f"note: {left}", file=sys.stderr)
    found = store.clear() if args.action == "clear" else store.usage()
    if args.json:
        facts = {"folder": str(store.folder), "max_bytes": store.max_bytes}
        print_json({**facts, "action": args.action, "entries": found.entries, "bytes": found.nbytes})
    elif args.action == "clear":
        print(f"removed {found.entries} entries ({size(found.nbytes)}) from {store.folder}")
    else:
        print(f"{found.entries} entries, {size(found.nbytes)} of at most {size(store.max_bytes)}, in {store.folder}")
    return 0
