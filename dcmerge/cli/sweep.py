"""``dcmerge sweep``: parameters of a method and α varied, the best found on validation and looked at once on test."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.checkpoints.regrouped import STORED
from dcmerge.cli.engines import add_engine, engine_of
from dcmerge.cli.evaluate import add_evaluated, notes_of, tell_of_weak_experts, val_limit
from dcmerge.cli.jobs import submitted
from dcmerge.cli.mixing import add_depth, chosen_mix
from dcmerge.cli.options import (
    Commands,
    Parser,
    add_command,
    add_method,
    collected,
    number,
    opened_bench,
    set_title,
    whole_number,
)
from dcmerge.cli.output import Progress, paragraph, percent_with_interval, print_json, seconds, table
from dcmerge.cli.plugins import add_plugins, plugin_lines
from dcmerge.cli.targets import check_recipe_target
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.merging.recipe import package_versions, recipe_of
from dcmerge.methods import method
from dcmerge.runs import SetId, images_of
from dcmerge.runtime.engines import Engine
from dcmerge.runtime.locks import locked
from dcmerge.runtime.state_files import jobs_folder
from dcmerge.studies.elsewhere import Opener
from dcmerge.studies.sweep import OBJECTIVES, SAMPLERS, TRIALS, Found, Plan, described
from dcmerge.studies.sweep.tables import as_csv, rows, to_data
from dcmerge.vectors.mix import Mix

if TYPE_CHECKING:
    from dcmerge.studies.sweep.recording import Recorder

#: How many points the text shows; ``--json`` and ``--csv`` have all.
_SHOWN = 20
FOLDER = "sweeps"


def add_to(commands: Commands, common: Parser) -> None:
    example = "--zoo demo --method dc_merge --set smoothing=linear --over rho=1:20 --trials 8 --limit 50"
    parser = add_command(commands, common, "sweep", run, example=example)
    add_evaluated(parser)
    add_plugins(parser)
    _add_search(parser.add_argument_group("what is varied, and how"))
    parser.add_argument(
        "--recipe", metavar="FILE", help="write the best point's recipe, *.yaml or *.json; the command run takes it"
    )
    parser.add_argument(
        "--background",
        action="store_true",
        help="run it as a job that outlives this terminal; prints its id (see the command jobs)",
    )
    parser.add_argument("--workers", type=whole_number(1), default=1, metavar="N", help="processes of a job (default 1)")
    add_engine(parser)
    parser.add_argument("--csv", metavar="FILE", help="write all points as CSV as well")
    parser.add_argument("--force", action="store_true", help="replace an existing recipe")


def _add_search(group: argparse._ActionsContainer) -> None:
    add_method(group, required=True)
    group.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="NAME[=VALUES]",
        help="a parameter to vary, scale for α, weight.EXPERT, or depth.first and depth.last (α at the first and the last "
        "block); once for each. rho=1:20, rho=1:20:log, rho=1:20:8 (eight values of a grid) or smoothing=none,linear; without "
        "values the declared range, on its declared scale",
    )
    add_depth(group)
    group.add_argument("--sampler", choices=SAMPLERS, default=SAMPLERS[0], help="how points are chosen (default: grid)")
    group.add_argument("--trials", type=whole_number(1), default=TRIALS, metavar="N", help=f"at most N points (default {TRIALS})")
    group.add_argument(
        "--objective",
        default="mean",
        metavar="A,B",
        help="; ".join(f"{name}: {text}" for name, text in OBJECTIVES.items()) + ". Several give a front (default: mean)",
    )
    group.add_argument("--scale", type=number, metavar="A", help="the α of every point (default: each point's own best)")
    group.add_argument("--no-early-stop", action="store_true", help="let every point and α see all images")
    group.add_argument("--no-test", action="store_true", help="do not look at the test images")
    group.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the samplers (default 0)")


def plan_of(args: argparse.Namespace) -> Plan:
    """What the options say; raises InputError for anything that a sweep could not run with."""
    given = method(args.method)
    assignments = collected(args.set, "--set")
    parsed = given.parse(assignments)
    return Plan.of(
        args.method,
        args.over,
        parameters={name: parsed[name] for name in assignments},
        sampler=args.sampler,
        trials=args.trials,
        objectives=tuple(part.strip() for part in args.objective.split(",")),
        scale=args.scale,
        limit=val_limit(args),
        early=not args.no_early_stop,
        test=not args.no_test,
        test_limit=args.limit,
        seed=args.seed,
        mix=chosen_mix(args).to_data(),
    )


def run(args: argparse.Namespace) -> int:
    plan, spread = plan_of(args), engine_of(args)
    if args.recipe is not None:
        check_recipe_target(args.recipe, force=args.force)
    if args.csv is not None:
        check_text_target(Path(args.csv))
    if args.background:
        return _submit(args, plan)
    if args.workers > 1:
        raise InputError(f"workers: expected several with --background alone, got --workers {args.workers} without it")
    with Progress() as progress:
        bench = opened_bench(args, progress)
        plan.check(bench.vectors, bench)
        tell_of_weak_experts(bench.weak_experts(limit=plan.limit))
        found, path = _swept(args, plan, bench, progress, spread)
    _write(args, bench, found)
    print_json({"study": str(path), **to_data(found)}) if args.json else print(as_text(args, bench, found, path))
    return 0


def _submit(args: argparse.Namespace, plan: Plan) -> int:
    """The same sweep as a job; it goes on when this command has ended."""
    if not args.zoo or args.folder:
        raise InputError("expected --background with --zoo NAME alone, got files: a job opens its set by name")
    if args.recipe or args.csv or args.qkv != STORED:
        raise InputError("expected --background without --recipe, --csv and --qkv, got one of them")
    return submitted(args, {"kind": "sweep", "set": args.zoo, "plan": asdict(plan), "workers": args.workers})


def _swept(
    args: argparse.Namespace, plan: Plan, bench: Bench, progress: Progress, spread: tuple[Engine | None, Opener | None]
) -> tuple[Found, Path]:
    """The sweep, going on where the same one ended before; its study's file."""
    from dcmerge.studies.sweep.running import sweep  # Optuna takes half a second, which no other command should
    from dcmerge.studies.sweep.store import Store

    key = _key(plan, bench)
    path = jobs_folder() / FOLDER / f"{key}.sqlite3"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")) as mine:
        if mine is None:
            raise InputError(f"sweep: expected one process to run this sweep, got another one that does: {path}")
        store = Store(path, plan)
        try:
            engine, opener = spread
            recorder = _recorder(args, bench, key)
            return sweep(bench, plan, store, recorder=recorder, progress=progress, engine=engine, opener=opener), path
        finally:
            store.close()


def _recorder(args: argparse.Namespace, bench: Bench, key: str) -> Recorder:
    from dcmerge.studies.sweep.recording import Recorder

    return Recorder(bench, args.zoo or set_title(args), key)


def _key(plan: Plan, bench: Bench) -> str:
    """The same for the same sweep of the same models on the same images by the same versions: then it goes on."""
    about = (plan.key, SetId.of(bench.vectors, "").hash, images_of(bench, "val", plan.limit), str(package_versions()))
    return f"sweep-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}"


def _write(args: argparse.Namespace, bench: Bench, found: Found) -> None:
    if args.csv is not None:
        write_text(Path(args.csv), as_csv(found))
    best = found.best
    if args.recipe is not None and best is not None:
        mixed = bench.vectors.mixed(Mix.from_data(best.mix))
        recipe = recipe_of(mixed, found.plan.slug, best.parameters, best.scale, found.origin, None)
        write_text(Path(args.recipe), recipe.beside(Path(args.recipe).parent).text_for(args.recipe))


def as_text(args: argparse.Namespace, bench: Bench, found: Found, path: Path) -> str:
    """The points, the best one with its honest interval, and what it did on test."""
    title, plan = set_title(args), found.plan
    return "\n".join(
        [
            paragraph(f"{plan.method.title} on {title}: {plan.text}."),
            *(paragraph(f"Method {line}.") for line in plugin_lines([plan.slug])),
            *(paragraph(note) for note in notes_of(bench)),
            paragraph(
                f"Normalised accuracy in percent on at most {found.images} validation images a task: each task's accuracy "
                "divided by its own expert's [95 %]. A point stops early where it is surely worse than the best one."
            ),
            "",
            _table(found),
            "",
            *_conclusion(found),
            paragraph(f"The points are kept in {path} (an Optuna study). The same command again goes on from there."),
        ]
    )


def _table(found: Found) -> str:
    shown = rows(found)[:_SHOWN]
    axes = [axis.name for axis in found.plan.axes if axis.name != "scale"]
    cells = [
        [
            row["point"],
            *(row[name] for name in axes),
            f"{row['alpha']:g}",
            percent_with_interval(row["mean"] / 100, (row["mean low"] / 100, row["mean high"] / 100)),
            f"{row['worst task']} {row['worst']:.1f}",
            row["images a task"],
            seconds(row["seconds"]),
            row["outcome"],
        ]
        for row in shown
    ]
    header = ["point", *axes, "α", "mean [95 %]", "worst task", "images", "seconds", ""]
    more = len(found.points) - len(shown)
    return table(header, cells, left=(0, len(header) - 1)) + (f"\n{more} more: see --json or --csv" if more > 0 else "")


def _conclusion(found: Found) -> Iterator[str]:
    best = found.best
    if best is not None:
        yield paragraph(f"Best: {described(best)}. {found.origin[0].upper()}{found.origin[1:]}.")
    for test in found.tests:
        yield paragraph(f"On test, {test['values']}: {_test_text(test['row'])}.")
    for point, reason in found.errors.items():
        yield paragraph(f"Point {point} failed: {reason}")


def _test_text(row: dict[str, Any]) -> str:
    from dcmerge.runtime.plain import from_plain
    from dcmerge.studies.measuring import Row

    measured = from_plain(Row, row).measured
    ratio = f", {100 * measured.mean_normalised:.1f} % normalised" if measured.mean_normalised is not None else ""
    accuracy = percent_with_interval(measured.mean, measured.mean_interval)
    return f"{accuracy} % absolute{ratio} ({measured.measured_on})"
