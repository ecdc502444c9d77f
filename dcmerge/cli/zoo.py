"""``dcmerge zoo``: the facts of a set with images, to be read before any result on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dcmerge.cli.evaluate import about_images, notes_of, with_interval
from dcmerge.cli.options import Commands, Parser, add_bench, add_command, add_model_set, opened_bench, set_title, whole_number
from dcmerge.cli.output import Progress, paragraph, percent, print_json, table
from dcmerge.studies.facts import Facts, facts_of


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "zoo", run, example="--zoo demo")
    add_model_set(parser)
    add_bench(parser)
    parser.add_argument(
        "--limit", type=whole_number(1), metavar="N", help="at most N images a task, every class in its share (default: all)"
    )
    parser.add_argument("--split", choices=("val", "test"), default="val", help="images to measure on (default val)")


def run(args: argparse.Namespace) -> int:
    with Progress() as progress:
        bench = opened_bench(args, progress)
        found = facts_of(bench, split=args.split, limit=args.limit, progress=progress)
    if args.json:
        print_json({"zoo": args.zoo, "split": args.split, "limit": args.limit, "notes": list(bench.notes), **found.to_dict()})
    else:
        print(as_text(set_title(args), found, notes_of(bench)))
    return 0


def as_text(title: str, found: Facts, notes: Sequence[str] = ()) -> str:
    """Four tables: the tasks, the task vectors, the base's confidence, and the walk along the sum of the task vectors."""
    parts = (
        [f"Facts of {title}, {found.zero_shot.measured_on}.", *about_images(found.zero_shot, notes)],
        _tasks(found),
        _vectors(found),
        _confidence(found),
        _walk(found),
    )
    return "\n\n".join("\n".join(part) for part in parts)


def _tasks(found: Facts) -> list[str]:
    rows: list[list[object]] = [
        [task, one.images, *(with_interval(e.tasks[task]) for e in _evaluations(found)), percent(found.ways[task])]
        for task, one in found.zero_shot.tasks.items()
    ]
    rows.append(["mean", None, *(percent(e.mean) for e in _evaluations(found)), percent(found.mean_way)])
    closed = percent(found.way_of_means)
    return [
        "Top-1 accuracy in percent with its 95 % Wilson interval. Closed: (averaging - zero-shot) / (own expert - zero-shot).",
        table(["task", "images", "zero-shot [95 %]", "averaging [95 %]", "own expert [95 %]", "closed"], rows),
        f"Averaging closes {closed} % of the way from the mean zero-shot accuracy to the mean of the experts."
        if closed
        else "The experts are no better than the base: there is no way to close.",
    ]


def _evaluations(found: Facts) -> tuple:
    return found.zero_shot, found.average, found.experts


def _vectors(found: Facts) -> list[str]:
    rows: list[list[object]] = []
    for place, task in enumerate(found.tasks):
        others = [value for other, value in enumerate(found.cosines[place]) if other != place]
        spread = [sum(others) / len(others), min(others), max(others)] if others else [None] * 3
        rows.append([task, _number(100 * found.lengths[task], 2), *(_number(value) for value in spread), _energy(found, task)])
    mean, least, largest = found.cosine_range or (None, None, None)
    length = sum(found.lengths.values()) / len(found.lengths)
    energy = _number(found.mean_cross_energy, 2)
    rows.append(["all", _number(100 * length, 2), _number(mean), _number(least), _number(largest), energy])
    return [
        paragraph(
            "Task vectors: length in percent of the base's, cosines with the others, and the energy with which a task's delta "
            "acts on the other tasks' inputs to its layers, relative to its own inputs (mean over layers)."
        ),
        table(["task", "length, %", "mean cosine", "least", "largest", "energy on others"], rows),
    ]


def _energy(found: Facts, task: str) -> str | None:
    names = list(found.zero_shot.tasks)
    if found.cross_energy is None or task not in names or len(names) < 2:
        return None
    row, place = found.cross_energy[names.index(task)], names.index(task)
    return _number((sum(row) - row[place]) / (len(row) - 1), 2)


def _confidence(found: Facts) -> list[str]:
    rows: list[list[object]] = [
        [task, percent(one.accuracy), percent(one.mean), percent(one.error), _number(one.best_scale, 1)]
        for task, one in found.confidence.items()
    ]
    mean = sum(one.mean for one in found.confidence.values()) / len(found.confidence)
    rows.append(["all", percent(found.zero_shot.mean), percent(mean), percent(found.error), _number(found.best_scale, 1)])
    return [
        paragraph(
            f"The base's confidence in percent at logit scale {found.logit_scale.text}. Error: expected calibration error, 15 "
            "bins. Best scale: the one of the least log loss on these images."
        ),
        table(["task", "accuracy", "confidence", "error", "best scale"], rows),
    ]


def _walk(found: Facts) -> list[str]:
    rows = [[f"{step.alpha:g}", percent(step.mean_accuracy), _number(step.mean_entropy)] for step in found.steps]
    agreements = ", ".join(f"{task} {_number(value, 2) or '-'}" for task, value in found.agreements.items())
    return [
        "Base + α · sum of the task vectors: mean accuracy in percent and mean entropy in nats.",
        table(["α", "accuracy", "entropy"], rows),
        paragraph(
            f"Task Arithmetic is best at α = {found.best.alpha:g} with {percent(found.best.mean_accuracy)} %, "
            f"{100 * found.gain:+.1f} points over averaging (α read off these images)."
        ),
        paragraph(
            "Rank correlation of falling entropy and rising accuracy, α from 0 to 0.5: "
            f"mean {_number(found.mean_agreement, 2) or '-'} ({agreements})."
        ),
    ]


def _number(value: float | None, digits: int = 3) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
