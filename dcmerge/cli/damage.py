"""``dcmerge damage``: what every matrix of a merge costs or gives each task, by putting it back."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.checkpoints.regrouped import STORED
from dcmerge.cli.evaluate import AUTO, notes_of, scale_of, tell_of_weak_experts
from dcmerge.cli.jobs import submitted
from dcmerge.cli.merging_at import merged_at
from dcmerge.cli.options import (
    Commands,
    Parser,
    add_bench,
    add_command,
    add_method,
    add_model_set,
    method_parameters,
    opened_bench,
    set_title,
    whole_number,
)
from dcmerge.cli.output import Progress, paragraph, percent, print_json, table
from dcmerge.cli.plugins import add_plugins
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.merging.recipe import check_scale
from dcmerge.studies.damage import BLOCKS, CHANGES, MATRICES, Change, DamageMap, Plan
from dcmerge.studies.damage.measuring import damage
from dcmerge.studies.damage.plan import LIMIT
from dcmerge.studies.damage.tables import as_csv, label_of, to_data


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "damage", run, example="--zoo demo --method dc_merge --scale 2 --limit 25")
    add_model_set(parser)
    add_bench(parser)
    what = parser.add_argument_group("what is looked at")
    add_method(what, required=True)
    add_plugins(what)
    what.add_argument("--scale", type=scale_of, metavar="A|auto", help="α; auto (the default): chosen on the same images")
    what.add_argument(
        "--changes",
        default="expert,base",
        metavar="A,B",
        help="; ".join(f"{name}: {text}" for name, text in CHANGES.items()) + " (default: expert,base)",
    )
    what.add_argument("--by", choices=(MATRICES, BLOCKS), default=MATRICES, help=f"the parts of the model (default: {MATRICES})")
    what.add_argument(
        "--limit", type=whole_number(2), default=LIMIT, metavar="N", help=f"validation images a task (default {LIMIT})"
    )
    parser.add_argument(
        "--background", action="store_true", help="run it as a job that outlives this terminal; prints its id (with --zoo)"
    )
    parser.add_argument("--csv", metavar="FILE", help="write every cell as CSV as well")


def run(args: argparse.Namespace) -> int:
    changes = tuple(part.strip() for part in args.changes.split(","))
    plan = Plan.of(args.method, method_parameters(args), changes, args.by, args.limit)
    given = None if args.scale in (None, AUTO) else check_scale(args.scale)
    if args.csv is not None:
        check_text_target(Path(args.csv))
    if args.background:
        return _submit(args, plan, given)
    with Progress() as progress:
        bench = opened_bench(args, progress)
        tell_of_weak_experts(bench.weak_experts(limit=plan.limit))
        merged, scale = merged_at(bench, plan.slug, plan.parameters, given, plan.limit, progress)
        found = damage(bench, plan, scale, merged=merged, progress=progress)
    if args.csv is not None:
        write_text(Path(args.csv), as_csv(found))
    if args.json:
        print_json({"set": set_title(args), "plan": asdict(plan), **to_data(found)})
    else:
        print("\n".join(as_text(args, bench, plan, found)))
    return 0


def _submit(args: argparse.Namespace, plan: Plan, scale: float | None) -> int:
    """The same as a job; it goes on when this command has ended."""
    if not args.zoo or args.folder or args.csv or args.qkv != STORED:
        raise InputError("expected --background with --zoo NAME, without --from, --csv and --qkv: a job opens its set by name")
    return submitted(args, {"kind": "damage", "set": args.zoo, "plan": asdict(plan), "scale": scale})


def as_text(args: argparse.Namespace, bench: Bench, plan: Plan, found: DamageMap) -> Iterator[str]:
    """A table for each change, the sums beside all at once, and what repairing the best parts gains and costs."""
    yield paragraph(f"Damage map of {plan.method.title} on {set_title(args)}, α = {found.scale:g} ({found.scale_origin}).")
    yield from (paragraph(note) for note in notes_of(bench))
    yield paragraph(
        f"Accuracy after a change minus before, in percentage points, on the same {found.images} validation images a task. "
        "A star marks changes beyond noise (the 95 % interval of the paired images leaves out 0)."
    )
    for change in found.changed:
        yield "\n" + paragraph(f"Each part {CHANGES[change]}.")
        yield _table(found, change)
    if found.repaired:
        yield "\n" + paragraph(
            "Repair: the parts that gain most become each task's own expert's, which then must be kept beside the merged model. "
            "They are chosen on the first half of the images and measured on the second."
        )
        rows = [[len(one.parts), percent(one.mean), one.extra, f"{100 * one.share:.0f} %"] for one in found.repaired]
        yield table(["parts", "mean accuracy", "extra numbers", "of the model"], rows)


def _table(found: DamageMap, change: str) -> str:
    rows: list[list[object]] = [
        [
            label_of(unit),
            *(_cell(found.cell(change, unit, task)) for task in found.tasks),
            _cell(found.over_tasks(change, unit)),
        ]
        for unit in found.units
    ]
    rows.append(["sum of the single changes", *(_points(found.singles(change, task)) for task in found.tasks), None])
    joint = {task: found.joint(change, task) for task in found.tasks}
    if all(joint.values()):
        rows.append(["all at once", *(_cell(one) for one in joint.values() if one), None])
    return table(["part", *found.tasks, "mean"], rows)


def _cell(change: Change) -> str:
    return _points(change.value) + ("*" if change.excludes_zero else " ")


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
