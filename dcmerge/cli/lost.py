"""``dcmerge lost``: the images that an expert knows and its merge does not, the reverse, and those on which two runs differ."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.cli.evaluate import AUTO, model_weights, notes_of, scale_of
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
from dcmerge.cli.output import Progress, paragraph, percent_with_interval, print_json, table
from dcmerge.cli.plugins import add_plugins
from dcmerge.errors import InputError
from dcmerge.evaluation import SPLIT_NAMES, Bench, Scale
from dcmerge.evaluation.models import Model, Weights
from dcmerge.merging.recipe import check_scale
from dcmerge.runs import Run, RunStore
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.lost import LOST, Lost, RunsApart, images_of_run, lost_images, runs_apart
from dcmerge.studies.lost.tables import apart_image_rows, apart_rows, as_csv, task_rows, to_data
from dcmerge.vectors.cache import Memo

#: So many images of each task stand in the text.
_LISTED = 3


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "lost", run, example="--zoo demo --method average --scale 1 --limit 25")
    add_model_set(parser)
    add_bench(parser)
    what = parser.add_argument_group("what is looked at: a method, a checkpoint, or two runs")
    add_method(what)
    add_plugins(what)
    what.add_argument("--scale", type=scale_of, metavar="A|auto", help="α; auto (the default): chosen on validation images")
    what.add_argument("--checkpoint", metavar="FILE", help="a whole model with the set's image tower")
    what.add_argument("--runs", nargs=2, metavar="ID", help="two runs on the same images; with models, each image is named")
    what.add_argument("--split", choices=("val", "test"), default="val", help="which images (default: val)")
    what.add_argument("--limit", type=whole_number(1), metavar="N", help="at most N images a task (default: all)")
    what.add_argument("--task", metavar="NAME", help="only this task")
    parser.add_argument("--csv", metavar="FILE", help="write every image as CSV: its file, what it shows, what each model says")


def run(args: argparse.Namespace) -> int:
    chosen = [name for name in ("method", "checkpoint", "runs") if getattr(args, name)]
    if len(chosen) != 1:
        raise InputError(f"expected one of --method, --checkpoint and --runs, got {' and '.join(chosen) or 'none'}")
    if args.csv is not None:
        check_text_target(Path(args.csv))
    return _run_runs(args) if args.runs else _run_merge(args)


def _run_merge(args: argparse.Namespace) -> int:
    with Progress() as progress:
        bench = opened_bench(args, progress)
        asked = _of_task(bench, args.task) if args.task else bench
        model, scale = _model(args, bench, progress)
        bench = asked
        found = lost_images(bench, model, split=args.split, limit=args.limit, progress=progress)
    if args.csv is not None:
        write_text(Path(args.csv), as_csv(found, bench))
    if args.json:
        about = {"set": set_title(args), "method": args.method, "checkpoint": args.checkpoint}
        print_json({**about, "scale": scale, **to_data(found)})
    else:
        print("\n".join(as_text(args, bench, found, scale)))
    return 0


def _of_task(bench: Bench, task: str) -> Bench:
    """The bench whose images are those of one task; the merge stays that of all experts."""
    if task not in bench.tasks:
        raise InputError(f"task: expected one of {', '.join(bench.tasks)}, got {task!r}")
    return replace(bench, tasks={task: bench.tasks[task]}, memo=Memo(bench.memo.max_bytes))


def _model(args: argparse.Namespace, bench: Bench, progress: Progress) -> tuple[Weights | Model, Scale | None]:
    if args.checkpoint:
        if args.set or args.scale is not None:
            raise InputError("expected --set and --scale together with --method, got them with --checkpoint")
        return model_weights(args.checkpoint, bench), None
    given = None if args.scale in (None, AUTO) else check_scale(args.scale)
    merged, scale = merged_at(bench, args.method, method_parameters(args), given, args.limit, progress)
    return merged.model(bench, scale.value), scale


def as_text(args: argparse.Namespace, bench: Bench, found: Lost, scale: Scale | None) -> Iterator[str]:
    """A row a task, and the images that were lost by most."""
    alpha = f", α = {scale.value:g} ({scale.origin})" if scale else ""
    yield paragraph(f"{args.method or args.checkpoint} on {set_title(args)}{alpha}.")
    yield from (paragraph(note) for note in notes_of(bench))
    yield paragraph(
        f"On {SPLIT_NAMES.get(found.split, found.split)} images. Lost: the expert is right and the merge is wrong. Won: the "
        "reverse. Accuracies in percent."
    )
    header = ["task", "images", "base", "expert", "merged", "lost", "won", "both wrong", "new mistake"]
    yield table(header, [list(row.values()) for row in task_rows(found)], left=(0, 8))
    yield "\n" + paragraph(
        "Lost by most (image: its place among these images of the task; margin: logit of the true class minus the best other one)"
    )
    rows = [row for name in found.tasks for row in _worst(found, name)]
    yield table(["task", "image", "true", "expert", "merged", "margin, expert", "merged"], rows, left=(0, 2, 3, 4))


def _worst(found: Lost, task: str) -> list[list[object]]:
    one = found.tasks[task]
    return [
        [task, place, one.classes[int(one.labels[place])]]
        + [one.classes[int(said.predicted[place])] for said in (one.expert, one.merged)]
        + [f"{said.margin[place].item():+.2f}" for said in (one.expert, one.merged)]
        for place in one.places(LOST)[:_LISTED]
    ]


def _run_runs(args: argparse.Namespace) -> int:
    """Two runs of the store; with models at hand the images get their classes and files."""
    store = RunStore()
    found = runs_apart(*(store.get(id) for id in args.runs))
    images, bench = None, None
    if args.zoo or args.folder or args.expert:
        with Progress() as progress:
            bench = opened_bench(args, progress)
            images = images_of_run(bench, found.first)
    rows = [row for row in apart_image_rows(found, images, bench) if args.task in (None, row["task"])]
    if args.csv is not None:
        write_text(Path(args.csv), csv_text(rows))
    if args.json:
        gain = found.difference
        about = {"first": found.first.id, "second": found.second.id, "difference": gain}
        print_json({**about, "tasks": apart_rows(found), "images": rows})
    else:
        print("\n".join(_apart_text(found)))
    return 0


def _apart_text(found: RunsApart) -> Iterator[str]:
    gain = found.difference
    told = percent_with_interval(gain.value, (gain.low, gain.high), signed=True)
    yield paragraph(f"First: {_named(found.first)}. Second: {_named(found.second)}.")
    yield paragraph(
        f"Both on the {found.first.evaluation.measured_on}. Second minus first: {told} points, paired bootstrap [95 %]."
    )
    header = ["task", "images", "only first right", "only second right", "both", "neither"]
    yield table(header, [list(row.values()) for row in apart_rows(found)])


def _named(run: Run) -> str:
    alpha = "" if run.alpha is None else f", α = {run.alpha:g}"
    return f"{run.name or run.variant or run.method}{alpha} ({run.id})"
