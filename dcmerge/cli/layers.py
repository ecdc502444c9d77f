"""``dcmerge layers``: one table of all matrices, of the experts and of a merge, or of the difference of two merges."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcmerge import jobs
from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.cli.options import (
    Commands,
    Parser,
    add_bench,
    add_command,
    add_method,
    add_model_set,
    method_parameters,
    number,
    open_models,
    set_title,
)
from dcmerge.cli.output import Progress, paragraph, print_json, table
from dcmerge.cli.plugins import add_plugins
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.drift import feature_drift
from dcmerge.jobs.damaging import map_so_far
from dcmerge.merging.merge import merge
from dcmerge.merging.recipe import check_scale
from dcmerge.methods import method
from dcmerge.studies.inspection import consistency
from dcmerge.studies.layer_table import COLUMNS, OF_MERGE, LayerTable, of_damage, of_drift, of_merge, of_set
from dcmerge.studies.layer_table.found import as_csv, rows, task_rows, two_as_csv, two_rows
from dcmerge.vectors.naming import place_of
from dcmerge.vectors.task_vectors import TaskVectors

#: Decimals of each column in the text.
_DECIMALS = {"norm": 3, "effective rank": 1, "top share": 1, "overlap, times chance": 1, "DirSim": 3, "drift": 2, "damage": 1}
#: What is shown of two matrices.
_OF_TWO = ("first", "second", "difference")


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "layers", run, example="--zoo demo --method dc_merge --minus average")
    add_model_set(parser)
    add_bench(parser)
    what = parser.add_argument_group("which merge (default: none, only the experts)")
    add_method(what)
    add_plugins(what)
    what.add_argument("--scale", type=number, metavar="A", help="α for the drift (default: the method's usual one)")
    what.add_argument("--minus", metavar="SLUG", help="another method, at its defaults: show the first one minus this one")
    what.add_argument("--drift", action="store_true", help="measure the drift of the features too, on 64 test images a task")
    what.add_argument("--damage", metavar="JOB", help="the id of a damage map's job: what its matrices cost")
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--match", metavar="TEXT", help="only matrices whose name holds this, or fits it with * and ?")
    shown.add_argument("--sort", choices=tuple(COLUMNS), metavar="COLUMN", help=f"largest first: {', '.join(COLUMNS)}")
    shown.add_argument("--layer", metavar="NAME", help="show this matrix beside another: its name, or a part that no other has")
    shown.add_argument("--minus-layer", metavar="NAME", help="the other matrix: show both, and the first minus this one")
    shown.add_argument("--csv", metavar="FILE", help="write every matrix and task as CSV")


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.csv is not None:
        check_text_target(Path(args.csv))
    with Progress() as progress:
        vectors, bench = open_models(args, progress)
        found = of_set(vectors, progress=progress)
        if args.method:
            found |= _of_method(args.method, method_parameters(args), args.scale, vectors, bench, args, progress)
        if args.damage:
            found |= _damage(args, vectors)
        if args.minus:
            found -= _of_method(args.minus, {}, None, vectors, bench, args, progress)
    if args.layer:
        return _two(args, found)
    found = found.matching(args.match) if args.match else found
    if args.sort:
        if args.sort not in found.values:
            raise InputError(f"sort: expected one of {', '.join(found.values)}, got {args.sort}, which is not measured here")
        found = found.sorted(args.sort)
    if args.csv is not None:
        write_text(Path(args.csv), as_csv(found))
    if args.json:
        about = {"set": set_title(args), "method": args.method, "minus": args.minus, "columns": COLUMNS}
        print_json({**about, "matrices": rows(found), "tasks": task_rows(found)})
    else:
        print(as_text(args, found))
    return 0


def _check(args: argparse.Namespace) -> None:
    needs = [name for name in ("minus", "drift", "damage", "set", "scale") if getattr(args, name) not in (None, False, [])]
    if needs and not args.method:
        raise InputError(f"expected --method SLUG with --{needs[0]}, got none")
    if bool(args.layer) != bool(args.minus_layer):
        raise InputError("expected --layer NAME and --minus-layer NAME, got only one of them")
    if args.layer and (args.match or args.sort):
        raise InputError("expected --layer without --match and --sort, which choose and order many matrices, got both")
    if args.minus and args.damage:
        raise InputError("expected --minus or --damage, got both: a damage map is of one merge")


def _two(args: argparse.Namespace, found: LayerTable) -> int:
    """Two matrices beside each other."""
    first, second = found.one(args.layer), found.one(args.minus_layer)
    pair = two_rows(found, first, second)
    if args.csv is not None:
        write_text(Path(args.csv), two_as_csv(found, first, second))
    if args.json:
        about = {"set": set_title(args), "method": args.method, "minus": args.minus, "columns": COLUMNS}
        print_json({**about, "first": first, "second": second, "rows": pair})
        return 0
    labels = [place_of(name).label for name in (first, second)]
    what = f"{args.method}{f' minus {args.minus}' if args.minus else ''} on " if args.method else ""
    print(paragraph(f"{first} and {second}: {what}{set_title(args)}. Means over {len(found.tasks)} tasks."))
    body = [[row["column"], *(_written(row[name], _DECIMALS[row["column"]]) for name in _OF_TWO)] for row in pair]
    print("\n" + table(["", *labels, "difference"], body))
    print("\nThe difference, task by task:")
    tasks = [[row["column"], *(_written(value, _DECIMALS[row["column"]]) for value in row["tasks"].values())] for row in pair]
    print(table(["", *found.tasks], tasks))
    return 0


def _of_method(
    slug: str,
    parameters: Mapping[str, Any],
    scale: float | None,
    vectors: TaskVectors,
    bench: Bench | None,
    args: argparse.Namespace,
    progress: Progress,
) -> LayerTable:
    chosen = method(slug)
    values = chosen.check(parameters)
    merged = merge(vectors, slug, bench=bench, progress=progress, **values)
    found = of_merge(vectors, consistency(vectors, merged.deltas, progress=progress))
    if not args.drift:
        return found
    if bench is None:
        raise InputError("drift: expected images: --zoo NAME, or --encoder NAME and --data FOLDER, got neither")
    alpha = chosen.usual_scale_for(vectors, values) if scale is None else check_scale(scale)
    drift = feature_drift(bench, merged.model(bench, alpha))
    return found if drift is None else found | of_drift(vectors, drift)


def _damage(args: argparse.Namespace, vectors: TaskVectors) -> LayerTable:
    """The column of a damage map; raises InputError where the job is none of this method, or has found nothing yet."""
    job = jobs.job(args.damage)
    spec, found = job.specification, map_so_far(job)
    if not isinstance(spec, jobs.Damage) or spec.plan.slug != args.method or found is None:
        raise InputError(f"damage: expected the id of a damage map of {args.method} that has begun, got {args.damage!r}")
    return of_damage(vectors, found)


def as_text(args: argparse.Namespace, found: LayerTable) -> str:
    """A row a matrix, means over the tasks."""
    what = f"{args.method}{f' minus {args.minus}' if args.minus else ''} on " if args.method else ""
    columns = [name for name in COLUMNS if name in found.values]
    body = [[row["label"], *(_written(row[name], _DECIMALS[name]) for name in columns)] for row in rows(found)]
    legend = [paragraph(f"{name}: {COLUMNS[name]}", indent=2) for name in columns]
    told = f" {', '.join(n for n in columns if n in OF_MERGE)} are the difference of the two." if args.minus else ""
    head = f"All matrices: {what}{set_title(args)}. Means over {len(found.tasks)} tasks; --csv and --json have each task.{told}"
    return "\n".join([paragraph(head), *legend, "", table(["matrix", *columns], body)])


def _written(value: float | None, decimals: int) -> str | None:
    return None if value is None else f"{value:.{decimals}f}"
