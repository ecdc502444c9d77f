"""``dcmerge run``: a recipe in, the merged file out."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dcmerge.cli.engines import add_workers, workers_of
from dcmerge.cli.merge import as_text, report_of
from dcmerge.cli.options import Commands, Parser, add_command, collected, pair
from dcmerge.cli.output import Progress, print_json, printable
from dcmerge.cli.plugins import add_plugins
from dcmerge.cli.recipe import show
from dcmerge.cli.targets import SUFFIX, refuse_inputs, target_of
from dcmerge.errors import InputError
from dcmerge.merging.recipe import ADAPTER, Recipe
from dcmerge.merging.running import prepare, read_source


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "run", run, example="recipe.yaml --out merged.safetensors")
    parser.add_argument("recipe", metavar="RECIPE", help="YAML or JSON; a merged .safetensors file, whose recipe it repeats")
    parser.add_argument(
        "--out", metavar="PATH", help=f"the file to write, *{SUFFIX}, or a folder (default: beside RECIPE, with its name)"
    )
    add_inputs(parser)
    add_plugins(parser)
    parser.add_argument("--show", action="store_true", help="print the recipe as YAML and merge nothing")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    add_workers(parser)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """``--input`` and ``--search``: a merged file knows its inputs by name and hash alone."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=pair("NAME=PATH"),
        metavar="NAME=PATH",
        help="where an input of the recipe lies (base or a task); once for each",
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder below which missing inputs are found by their hash; once for each",
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch inputs that are models of the hub (default: fetch nothing)"
    )


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    source = read_source(args.recipe)
    if args.show:
        return show(source, as_json=args.json)
    target = target_of(_target(args, source.recipe), source.recipe.content, source.recipe.adapter_rank, force=args.force)
    given, workers = collected(args.input, "--input"), workers_of(args)
    with Progress() as progress:
        ready = prepare(source, given, args.search, progress, download=args.download)
        refuse_inputs(target.path, ready.vectors)
        written = ready.run(target.path, replace=args.force, progress=progress, workers=workers)
    # Not before: bad input gets one line.
    for note in ready.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    report = report_of(written, ready.recipe, ready.vectors, started) | {"notes": [*ready.notes, *written.notes]}
    print_json(report) if args.json else print(as_text(report))
    return 0


def _target(args: argparse.Namespace, recipe: Recipe) -> str:
    if args.out is not None:
        return args.out
    path = Path(args.recipe)
    if path.suffix == SUFFIX:
        raise InputError(f"out: expected --out FILE, as {path} itself is the merged file, got none")
    return str(path.with_suffix("" if recipe.content == ADAPTER else SUFFIX))
