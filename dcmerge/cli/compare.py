"""``dcmerge compare``: methods side by side on every task of a set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.checkpoints.regrouped import STORED
from dcmerge.cli.engines import add_engine, engine_of
from dcmerge.cli.evaluate import (
    JOINT,
    about_images,
    add_evaluated,
    notes_of,
    tell_of_lost_runs,
    tell_of_weak_experts,
    val_limit,
)
from dcmerge.cli.jobs import submitted
from dcmerge.cli.mixing import add_depth, chosen_mix
from dcmerge.cli.options import Commands, Parser, add_command, collected, opened_bench, pair, set_name, set_title
from dcmerge.cli.output import Progress, paragraph, percent, percent_with_interval, print_json, seconds, table
from dcmerge.cli.plugins import add_plugins, plugin_lines, plugins_of
from dcmerge.errors import WARNING, InputError
from dcmerge.evaluation import Bench
from dcmerge.methods import fitting_methods, method, methods
from dcmerge.runs import COMPARISON
from dcmerge.studies.comparison import AVERAGE, Comparison, compare
from dcmerge.studies.exports import as_csv, as_markdown
from dcmerge.studies.measuring import PAPERS, SETTING, TASK_ARITHMETIC, VARIANTS, Row, parameters_of, slug_of
from dcmerge.studies.recording import keep_rows, new_group
from dcmerge.vectors.mix import Mix
from dcmerge.zoo import ZOOS, kept_edition

ALL = "all"
#: Test and validation images a task with --quick.
QUICK_IMAGES = 40
STDOUT = "-"


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "compare", run, example="--zoo demo --methods ties,tsv_m --quick")
    add_evaluated(parser)
    add_depth(parser)
    add_engine(parser)
    add_plugins(parser)
    parser.add_argument(
        "--methods",
        default=ALL,
        metavar="A,B,C",
        help="slugs, or all that can merge this set (default); averaging always runs. adamerging-test and adarank-test adapt to "
        "the unlabeled test images, as in their papers. ties#2 is a second row of TIES, with settings of its own",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=pair("SLUG.KEY=VALUE"),
        metavar="SLUG.KEY=VALUE",
        help="a parameter of one of the methods; once for each parameter",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a first look: {QUICK_IMAGES} images a task and split where no limit is given, and fewer steps "
        "of methods that learn",
    )
    parser.add_argument(
        "--background",
        action="store_true",
        help="run it as a job that outlives this terminal; prints its id (see the command jobs)",
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="DirSim and feature drift by depth of every method too (in --json and --csv)"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV as well; - prints it instead of the text")
    parser.add_argument("--markdown", metavar="FILE", help="the same as a Markdown table")


def run(args: argparse.Namespace) -> int:
    slugs = chosen_methods(args.methods)
    parameters, mix, (engine, opener) = given_parameters(args, slugs), chosen_mix(args), engine_of(args)
    check_exports(args)
    if args.background and not args.zoo:
        raise InputError("expected --background with --zoo NAME, got files: a job opens its set by name")
    if args.quick:
        args.limit = QUICK_IMAGES if args.limit is None else args.limit
        rows = dict.fromkeys((AVERAGE, *map(slug_of, slugs), *(slug for slug in slugs if slug not in VARIANTS)))
        parameters = {row: {**method(slug_of(row)).quick, **parameters.get(row, {})} for row in rows}
    with Progress() as progress:
        bench = opened_bench(args, progress)
        skipped = fitting_methods(bench.vectors, bench)[1] if args.methods == ALL else {}
        slugs = [slug for slug in slugs if slug not in skipped]
        if args.background:
            return _submit(args, slugs, parameters, mix)
        tell_of_weak_experts(bench.weak_experts(limit=val_limit(args)))
        found = compare(
            bench,
            slugs,
            parameters,
            limit=args.limit,
            val_limit=val_limit(args),
            diagnosed=args.diagnose,
            on_row=kept(bench, args),
            mix=mix,
            progress=progress,
            engine=engine,
            opener=opener,
        )
    if export(args, found):
        return 0
    if args.json:
        print_json(
            {
                "zoo": args.zoo,
                "edition": kept_edition() if args.zoo in ZOOS else None,
                **found.to_dict(),
                "skipped": skipped,
                "notes": list(bench.notes),
                "logit_scale": asdict(bench.logit_scale),
                "qkv": bench.vectors.qkv,
                "qkv_stored": bench.vectors.qkv_stored,
                "plugins": plugins_of(row.slug for row in found.rows),
            }
        )
    else:
        left_out = (f"{slug} was left out: it {reason}." for slug, reason in skipped.items())
        print("\n".join([as_text(set_title(args), found, notes_of(bench)), *left_out]))
    return 0


def kept(bench: Bench, args: argparse.Namespace) -> Callable[[Row], None]:
    """Keeps each row as a run as soon as it is ready: whoever stops the command has what it found by then."""
    group, told = new_group("compare"), set[str]()

    def keep(row: Row) -> None:
        problem = keep_rows(bench, set_name(args), COMPARISON, [row], group)
        if problem not in told:  # a store that cannot be used is named once
            tell_of_lost_runs(problem)
            told.add(problem)

    return keep


def given_parameters(args: argparse.Namespace, slugs: list[str]) -> dict[str, dict[str, Any]]:
    """``--set ties.density=0.5``: parameters by slug, validated; raises InputError where a method is not compared."""
    texts: dict[str, dict[str, str]] = {}
    for name, value in collected(args.set, "--set").items():
        slug, _, key = name.partition(".")
        if slug not in (AVERAGE, *slugs, *map(slug_of, slugs)) or slug in VARIANTS:
            raise InputError(f"--set: expected SLUG.KEY=VALUE of a method that is compared, got {name!r}")
        texts.setdefault(slug, {})[key] = value
    return {slug: method(slug_of(slug)).parse(own) for slug, own in texts.items()}


def check_exports(args: argparse.Namespace) -> None:
    """Files that cannot be written are refused before the work, and so are two documents for one stdout."""
    if [args.csv, args.markdown].count(STDOUT) + args.json > 1:
        raise InputError("expected at most one of --json, --csv - and --markdown - to print, got several")
    if args.background and (args.csv or args.markdown):
        raise InputError("expected --csv and --markdown without --background, which has no table yet, got both")
    for path in (args.csv, args.markdown):
        if path not in (None, STDOUT):
            check_text_target(Path(path))


def export(args: argparse.Namespace, found: Comparison) -> bool:
    """Write the tables that were asked for; whether one of them went to stdout in place of the text."""
    printed = False
    for path, form in ((args.csv, as_csv), (args.markdown, as_markdown)):
        if path == STDOUT:
            sys.stdout.write(form(found))
            printed = True
        elif path is not None:
            write_text(Path(path), form(found))
    return printed


def _submit(args: argparse.Namespace, slugs: list[str], parameters: dict[str, dict[str, Any]], mix: Mix) -> int:
    """The same comparison as a job; it goes on when this command has ended."""
    if args.folder:
        raise InputError("expected --background with --zoo alone, got --from")
    if args.qkv != STORED:
        raise InputError(f"expected --background without --qkv, got --qkv {args.qkv}: a job merges q, k and v as they are stored")
    chosen = [{"slug": slug_of(name), "parameters": parameters_of(name, parameters)} for name in dict.fromkeys(slugs)]
    return submitted(
        args,
        {
            "kind": "compare",
            "set": args.zoo,
            "methods": chosen,
            "limit": args.limit,
            "val_limit": val_limit(args),
            "mix": mix.to_data(),
            "diagnosed": args.diagnose,
        },
    )


def chosen_methods(text: str) -> list[str]:
    """Slugs of a comma-separated list; raises InputError for an unknown one or none."""
    if text == ALL:
        return list(methods())
    slugs = [part.strip() for part in text.split(",") if part.strip()]
    if not slugs:
        raise InputError(f"methods: expected slugs separated by commas, or all, got {text!r}")
    for slug in slugs:
        method(slug_of(slug))
        number = slug.partition(SETTING)[2]
        if slug not in VARIANTS and SETTING in slug and not (number.isdecimal() and int(number) > 1):
            raise InputError(f"methods: expected a further setting as in {slug_of(slug)}{SETTING}2, got {slug!r}")
    return slugs


def as_text(title: str, found: Comparison, notes: Sequence[str] = ()) -> str:
    """Absolute accuracies, normalised ones, then what each method gained and cost."""
    measured = [row for row in found.rows if row.evaluation]
    failed = [row for row in found.rows if row.error]
    tasks = list(measured[0].measured.tasks)
    scales = {row.name: row.scale for row in measured if row.scale}
    searched = {scale.origin for scale in scales.values() if scale.curve}
    parts = [
        f"{title[0].upper()}{title[1:]}. Top-1 accuracy in percent on the {found.measured_on}.",
        *about_images(measured[0].measured, notes),
        *([paragraph(f"In every merge: {mix.text}.")] if (mix := found.rows[1].mix) else []),
        *(paragraph(f"Method {line}.") for line in plugin_lines(row.slug for row in found.rows)),
        *(f"α: chosen on the {origin}." for origin in sorted(searched)),
        *(f"α of {name}: {scale.origin}." for name, scale in scales.items() if not scale.curve),
        "",
        table(["", "α", *tasks, "mean", "joint"], [_absolute(row) for row in measured]),
        JOINT,
        "",
        "Normalised: divided by the accuracy of each task's own expert; the mean is that of the ratios.",
        table(["", *tasks, "mean"], [_normalised(row) for row in measured]),
        "",
        "Difference to plain averaging in points, paired bootstrap over images [95 %], and seconds taken. Over TA 0.3 and over",
        "TA: difference to Task Arithmetic at the papers' α of 0.3 and at the α chosen on validation.",
        "Methods share the experts' singular vectors: the first one that needs them takes the time.",
        table(
            ["", "difference", "over TA 0.3", "over TA", "worst task", "merge", "α search", "evaluation"],
            [_costs(row) for row in found.rows if not row.is_reference],
            left=(0, 4),
        ),
        *(paragraph(f"{note}.") for note in found.notes),
        *(paragraph(f"{row.name}: {note}.") for row in measured for note in row.notes if note.startswith(WARNING)),
        *(paragraph(f"{row.name} failed: {row.error}") for row in failed),
    ]
    return "\n".join(parts)


def _absolute(row: Row) -> list[object]:
    measured = row.measured
    accuracies = [percent(task.accuracy) for task in measured.tasks.values()]
    scale = f"{row.scale.value:g}" if row.scale else None
    return [row.name, scale, *accuracies, percent(measured.mean), percent(measured.joint_mean)]


def _normalised(row: Row) -> list[object]:
    ratios = [percent(task.normalised) for task in row.measured.tasks.values()]
    return [row.name, *ratios, percent(row.measured.mean_normalised)]


def _costs(row: Row) -> list[object]:
    if row.evaluation is None:
        return [row.name, "failed", *[None] * 6]
    worst, gain = row.evaluation.worst, row.difference
    difference = percent_with_interval(gain.value, (gain.low, gain.high), signed=True) if gain else None
    durations = [seconds(value) for value in (row.took.merge, row.took.scale, row.took.evaluation)]
    gains = [f"{100 * row.gains[name].value:+.1f}" if name in row.gains else None for name in (PAPERS, TASK_ARITHMETIC)]
    return [row.name, difference, *gains, f"{worst.task} {percent(worst.accuracy)}", *durations]
