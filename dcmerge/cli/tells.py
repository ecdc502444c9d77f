"""``dcmerge tells``: whether measures that need no labels say which merge is accurate, over many merges of one set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.checkpoints.regrouped import STORED
from dcmerge.cli.jobs import submitted
from dcmerge.cli.options import (
    Commands,
    Parser,
    add_bench,
    add_command,
    add_model_set,
    opened_bench,
    set_title,
    whole_number,
)
from dcmerge.cli.output import Progress, paragraph, percent_with_interval, print_json, table
from dcmerge.cli.plugins import add_plugins
from dcmerge.errors import InputError
from dcmerge.jobs.telling import study
from dcmerge.studies.tells import MEASURES, SCOPES, Correlation, Plan, Regret, Study
from dcmerge.studies.tells.found import SILENT, sentence
from dcmerge.studies.tells.plan import FACTORS, LIMIT, MERGES, UNLABELED
from dcmerge.studies.tells.tables import as_csv, to_data


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "tells", run, example="--zoo demo --merges 40 --limit 50")
    add_model_set(parser)
    add_bench(parser)
    what = parser.add_argument_group("which merges; each is kept, and the same command goes on where it was stopped")
    what.add_argument("--merges", type=whole_number(3), default=MERGES, metavar="N", help=f"how many (default {MERGES})")
    add_plugins(what)
    what.add_argument("--methods", default="", metavar="A,B", help="slugs (default: all quick ones that merge the weights alone)")
    what.add_argument(
        "--factors",
        default=",".join(f"{one:g}" for one in FACTORS),
        metavar="A,B",
        help="multiples of each method's usual α; 1 must be among them (default %(default)s)",
    )
    what.add_argument("--subsets", action="store_true", help="make every second merge of some of the experts, drawn")
    what.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the drawn parameters (default 0)")
    what.add_argument(
        "--limit", type=whole_number(2), default=LIMIT, metavar="N", help=f"validation images a task (default {LIMIT})"
    )
    what.add_argument(
        "--unlabeled",
        type=whole_number(2),
        default=UNLABELED,
        metavar="N",
        help=f"other validation images a task, looked at without their labels (default {UNLABELED})",
    )
    parser.add_argument(
        "--background", action="store_true", help="run it as a job that outlives this terminal; prints its id (with --zoo)"
    )
    parser.add_argument("--csv", metavar="FILE", help="write every merge, α and task as CSV as well")


def run(args: argparse.Namespace) -> int:
    plan = Plan.of(
        _names(args.methods),
        _factors(args.factors),
        merges=args.merges,
        limit=args.limit,
        unlabeled=args.unlabeled,
        subsets=args.subsets,
        seed=args.seed,
    )
    if args.csv is not None:
        check_text_target(Path(args.csv))
    if args.background:
        return _submit(args, plan)
    with Progress() as progress:
        found = study(opened_bench(args, progress), plan, set_title(args), progress=progress)
    if args.csv is not None:
        write_text(Path(args.csv), as_csv(found))
    if args.json:
        print_json({"set": set_title(args), **to_data(found)})
    else:
        print("\n".join(as_text(found)))
    return 0


def _submit(args: argparse.Namespace, plan: Plan) -> int:
    """The same as a job; it goes on when this command has ended."""
    if not args.zoo or args.folder or args.csv or args.qkv != STORED:
        raise InputError("expected --background with --zoo NAME, without --from, --csv and --qkv: a job opens its set by name")
    return submitted(args, {"kind": "tells", "set": args.zoo, "plan": asdict(plan)})


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _names(text))
    except ValueError:
        raise InputError(f"factors: expected numbers with commas between them, got {text!r}") from None


def as_text(found: Study) -> Iterator[str]:
    """What tells in a sentence, then a table for each question, then the tasks."""
    plan = found.plan
    yield paragraph(
        f"Does it tell? {len(found.merged)} merges on {found.title}, {plan.limit} validation images a task with labels and "
        f"{plan.unlabeled} others without."
    )
    for look in found.looks:
        if look.error:
            yield paragraph(f"Left out: {look.setting.label}: {look.error}.")
    yield paragraph(
        "Correlation: Spearman's with the mean normalised accuracy, 95 % interval over resampled merges. Shuffled: the middle "
        "95 % when the merges' accuracies are shuffled. Regret: points of normalised accuracy that choosing by the measure costs "
        "against the best by labels."
    )
    for scope, question in SCOPES.items():
        chance = found.chance(scope)
        yield "\n" + paragraph(f"{question[0].upper()}{question[1:]}. A blind choice costs {_regret(chance)} points.")
        yield table(["measure", "correlation [95 %]", "shuffled", "regret [95 %]", ""], [*_rows(found, scope)])
        yield paragraph(sentence(found, scope))
    yield "\nCorrelation by task, every merge at every α:"
    yield table(
        ["measure", *found.tasks], [[name, *(_task(found, name, task) for task in found.tasks)] for name in found.measures]
    )
    yield ""
    yield from (paragraph(f"{name}: {MEASURES[name].about}", indent=2) for name in found.measures)


def _rows(found: Study, scope: str) -> Iterator[list[object]]:
    for name in found.measures:
        one = found.correlation(name, None, scope)
        null = one and f"[{one.null[0]:+.2f}, {one.null[1]:+.2f}]"
        yield [name, _correlation(one), null, _regret(found.regret(name, scope)), one and one.word]


def _correlation(one: Correlation | None) -> str | None:
    return one and f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _task(found: Study, name: str, task: str) -> str | None:
    one = found.correlation(name, task)
    return one and f"{one.value:+.2f}{' ' if one.word == SILENT else '*'}"


def _regret(one: Regret | None) -> str | None:
    return one and percent_with_interval(one.value, (one.low, one.high))
