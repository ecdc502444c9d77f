"""``dcmerge report``: what was measured as one HTML file or as JSON, and as pass or fail against given bounds."""

from __future__ import annotations

import argparse
from pathlib import Path

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.cli.options import Commands, Parser, add_bench, add_command, add_model_set, open_models, set_title
from dcmerge.cli.output import Progress, print_json
from dcmerge.errors import InputError
from dcmerge.reports import Bound, Report, as_html, bounds, judged, report_of
from dcmerge.reports.of_set import report_of_set
from dcmerge.sets.model_sets import ModelSet

#: Exit code where a bound does not hold.
FAILED = 3


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "report", run, example='--zoo demo --out demo.html --require "conflict<1"')
    parser.add_argument("ids", nargs="*", metavar="ID", help="a job, or runs, the first of which the others are compared to")
    add_model_set(parser)
    add_bench(parser)
    parser.add_argument("--out", metavar="FILE.html", help="where to write it; it opens without a server or the net")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="NAME>=NUMBER",
        help=f"a bound on one of the values, as in mean>=0.7; once for each. Exit code {FAILED} where one does not hold",
    )


def run(args: argparse.Namespace) -> int:
    asked = bounds(args.require)
    if not (args.out or args.json or asked):
        raise InputError("expected --out FILE.html, --json or --require, got none of them")
    if args.out is not None:
        check_text_target(Path(args.out))
    found = _report(args)
    results = judged(found, asked)
    if args.out is not None:
        write_text(Path(args.out), as_html(found))
    if args.json:
        told = [{"bound": bound.text, "value": value, "holds": holds} for bound, value, holds in results]
        print_json({**found.to_data(), "bounds": told})
    else:
        print("\n".join(_lines(args, found, results)))
    return 0 if all(holds for *_, holds in results) else FAILED


def _report(args: argparse.Namespace) -> Report:
    """Of the ids, or of the models that the options name."""
    named = bool(args.zoo or args.folder or args.expert)
    if bool(args.ids) == named:
        raise InputError(f"expected ids of runs or of a job, or a set of models, got {'both' if named else 'neither'}")
    if args.ids:
        return report_of(args.ids)
    with Progress() as progress:
        vectors, bench = open_models(args, progress)
        models = ModelSet(set_title(args), set_title(args), vectors, bench)
        return report_of_set(models, f"python -m dcmerge inspect {_named(args)} --verdict", progress)


def _named(args: argparse.Namespace) -> str:
    return f"--zoo {args.zoo}" if args.zoo else f"--from {args.folder}" if args.folder else "--base BASE --expert NAME=PATH"


def _lines(args: argparse.Namespace, found: Report, results: list[tuple[Bound, float, bool]]) -> list[str]:
    lines = [found.title, *(f"  {name}: {value:.4g}" for name, value in found.values.items())]
    lines += [f"{'holds' if holds else 'fails'}: {bound.text}, it is {value:.4g}" for bound, value, holds in results]
    return [*lines, *([f"Written: {args.out}"] if args.out else [])]
