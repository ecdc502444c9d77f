"""``dcmerge evaluate``: the accuracy of one merge, or of a saved model, on every task of a set."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import LoraCheckpoint, open_checkpoint
from dcmerge.checkpoints.regrouped import STORED
from dcmerge.checkpoints.schemes import qkv_text
from dcmerge.cli.jobs import submitted
from dcmerge.cli.mixing import add_depth, chosen_mix, weights_given
from dcmerge.cli.options import (
    Commands,
    Parser,
    add_bench,
    add_command,
    add_method,
    add_model_set,
    method_parameters,
    number,
    opened_bench,
    parameters_text,
    set_name,
    set_title,
    whole_number,
)
from dcmerge.cli.output import Progress, paragraph, percent, percent_with_interval, print_json, seconds, table
from dcmerge.cli.plugins import add_plugins, plugin_lines, plugins_of
from dcmerge.cli.unlabeled import UNLABELED, check, proposed
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Evaluation, Scale, TaskAccuracy, weak_experts
from dcmerge.merging.recipe import check_scale
from dcmerge.runs import EVALUATION
from dcmerge.studies.continual import OPCM, steps_of_opcm
from dcmerge.studies.measuring import Row, Seconds, measure, references
from dcmerge.studies.recording import keep_rows, new_group
from dcmerge.vectors.mix import Mix

AUTO = "auto"
JOINT = "Joint: the answer is one of all tasks' classes, equal names being one; no figure for a model with a part for each task."


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "evaluate", run, example="--zoo demo --method tsv_m")
    add_evaluated(parser)
    what = parser.add_argument_group("what is evaluated: a method or a checkpoint")
    add_method(what)
    add_depth(what)
    add_plugins(what)
    what.add_argument(
        "--scale",
        type=scale_or_unlabeled,
        metavar="A|auto|unlabeled",
        help="α; auto (the default): chosen on the validation split by its labels; unlabeled: without labels, by how often the "
        "merge answers validation images as the experts do, and with smoothing=linear ρ too where it is not set",
    )
    what.add_argument("--checkpoint", metavar="FILE", help="a whole model with the set's image tower")
    parser.add_argument(
        "--by-step", action="store_true", help="opcm: accuracies after each expert, in the order in which they come"
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="images to report on (default test)")
    parser.add_argument(
        "--background", action="store_true", help="run it as a job that outlives this terminal; prints its id (with --zoo)"
    )


def add_evaluated(parser: argparse.ArgumentParser) -> None:
    """The models, their images, ``--limit`` and ``--val-limit``, as ``compare`` has them too."""
    add_model_set(parser)
    add_bench(parser)
    parser.add_argument(
        "--limit", type=whole_number(1), metavar="N", help="at most N images a task, every class in its share (default: all)"
    )
    parser.add_argument(
        "--val-limit",
        type=whole_number(1),
        metavar="N",
        help="the same for the images on which α is chosen (default: as --limit)",
    )


def val_limit(args: argparse.Namespace) -> int | None:
    return args.limit if args.val_limit is None else args.val_limit


def scale_of(text: str) -> float | str:
    """α or auto, for ``type=``."""
    try:
        return AUTO if text.lower() == AUTO else number(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a finite number or auto, got {text!r}") from None


def scale_or_unlabeled(text: str) -> float | str:
    """The same, or unlabeled."""
    return UNLABELED if text.lower() == UNLABELED else scale_of(text)


def run(args: argparse.Namespace) -> int:
    _check_choice(args)
    check(args)
    if args.by_step and not args.background:
        return run_by_step(args)
    parameters, mix = method_parameters(args) if args.method else {}, chosen_mix(args)
    scale = None if args.scale in (None, AUTO, UNLABELED) else check_scale(args.scale)
    if args.background:
        return _submit(args, parameters, scale, mix)
    with Progress() as progress:
        bench = opened_bench(args, progress)
        zero_shot, experts = references(bench, split=args.split, limit=args.limit)
        if args.checkpoint:
            row = checkpoint_row(bench, args)
        else:
            tell_of_weak_experts(weak_experts(zero_shot.measured, experts.measured))
            found = None
            if args.scale == UNLABELED:
                parameters, found = proposed(args, bench, parameters, val_limit(args), progress)
            row = measure(
                bench,
                args.method,
                parameters,
                scale=found or scale,
                split=args.split,
                limit=args.limit,
                val_limit=val_limit(args),
                mix=mix,
                progress=progress,
            )
        tell_of_lost_runs(keep_rows(bench, set_name(args), EVALUATION, (zero_shot, row, experts), new_group("evaluate")))
    if args.json:
        about = {
            "zoo": args.zoo,
            "split": args.split,
            "measured_on": row.measured.measured_on,
            "notes": list(bench.notes),
            "warnings": list(weak_experts(zero_shot.measured, experts.measured)),
            "logit_scale": asdict(bench.logit_scale),
            "qkv": bench.vectors.qkv,
            "qkv_stored": bench.vectors.qkv_stored,
            "plugins": plugins_of([row.name]),
        }
        print_json({**about, "rows": [r.to_dict() for r in (zero_shot, row, experts)]})
    else:
        print(as_text(set_title(args), zero_shot, row, experts, notes_of(bench)))
    return 0


def _submit(args: argparse.Namespace, parameters: Mapping[str, Any], scale: float | None, mix: Mix) -> int:
    """The same evaluation as a job; it goes on when this command has ended."""
    given = {"--from": args.folder, "--checkpoint": args.checkpoint, "--by-step": args.by_step, "--qkv": args.qkv != STORED}
    if others := [option for option, value in given.items() if value]:
        raise InputError(f"expected --background with --zoo NAME and a method, got {', '.join(others)}")
    if not args.zoo:
        raise InputError("expected --background with --zoo NAME, got files: a job opens its set by name")
    chosen = {"slug": args.method, "parameters": dict(parameters)}
    images = {"split": args.split, "limit": args.limit, "val_limit": val_limit(args)}
    return submitted(
        args, {"kind": "evaluate", "set": args.zoo, "method": chosen, "scale": scale, "mix": mix.to_data(), **images}
    )


def _check_choice(args: argparse.Namespace) -> None:
    if bool(args.method) == bool(args.checkpoint):
        raise InputError(f"expected either --method or --checkpoint, got {'both' if args.method else 'neither'}")
    if args.checkpoint and (args.set or args.scale is not None or weights_given(args) is not None or args.depth):
        raise InputError("expected --set, --scale, --weights and --depth together with --method, got them with --checkpoint")


def run_by_step(args: argparse.Namespace) -> int:
    """Accuracies after each expert that OPCM takes in."""
    if args.method != OPCM or args.scale is not None or weights_given(args) is not None or args.depth:
        raise InputError(f"by-step: expected --method {OPCM} without --scale, --weights and --depth, whose length is its own")
    with Progress() as progress:
        bench = opened_bench(args, progress)
        found = steps_of_opcm(bench, method_parameters(args), split=args.split, limit=args.limit, progress=progress)
    if args.json:
        print_json({"zoo": args.zoo, "split": args.split, **found.to_dict()})
        return 0
    rows = [
        [
            f"{place + 1}. {step.expert}",
            *(percent(task.accuracy) for task in step.evaluation.tasks.values()),
            percent(found.so_far(place)),
            percent(step.evaluation.mean),
        ]
        for place, step in enumerate(found.steps)
    ]
    last = found.steps[-1].evaluation
    print(f"Top-1 accuracy in percent after each expert, {last.measured_on}.")
    print("\n".join([*about_images(last, notes_of(bench)), ""]))
    print(table(["after", *last.tasks, "tasks so far", "all tasks"], rows))
    print(f"\nBackward transfer: {100 * found.backward_transfer:+.1f} points from when a task had just come to the end.")
    return 0


def checkpoint_row(bench: Bench, args: argparse.Namespace) -> Row:
    """A saved model on the set's tasks; raises InputError where the file is no such model."""
    weights = model_weights(args.checkpoint, bench)
    started = time.perf_counter()
    evaluation = bench.evaluate(weights, args.checkpoint, split=args.split, limit=args.limit)
    durations = Seconds(evaluation=time.perf_counter() - started)
    return Row(args.checkpoint, args.checkpoint, evaluation=evaluation, seconds=durations)


def model_weights(path: str, bench: Bench) -> dict[str, Tensor]:
    """The encoder's weights of a checkpoint; parts of the file that the encoder does not need are not read."""
    checkpoint = open_checkpoint(path)
    if isinstance(checkpoint, LoraCheckpoint):
        raise InputError(f"checkpoint: expected a whole model, got a LoRA adapter: {path}")
    if checkpoint.metadata.get("content") == "delta":
        raise InputError(f"checkpoint: expected a whole model, got a merged delta without its base: {path}")
    weights = bench.weights_of(checkpoint)
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"checkpoint: expected finite weights, got NaN or Inf in {', '.join(broken)}")
    return weights


def as_text(title: str, zero_shot: Row, row: Row, experts: Row, notes: Sequence[str] = ()) -> str:
    """One row a task, one column a model, the mean below."""
    measured = row.measured
    rows: list[list[object]] = []
    for task, accuracy in measured.tasks.items():
        models = [with_interval(one.measured.tasks[task]) for one in (zero_shot, row, experts)]
        rows.append([task, accuracy.images, *models, percent(accuracy.normalised), percent(accuracy.joint)])
    means = [percent(one.measured.mean) for one in (zero_shot, row, experts)]
    rows.append(["mean", None, *means, percent(measured.mean_normalised), percent(measured.joint_mean)])
    header = [
        "task",
        "images",
        "zero-shot [95 %]",
        "merged [95 %]" if row.scale else "checkpoint [95 %]",
        "own expert [95 %]",
        "normalised",
        "joint",
    ]
    settings = "; ".join(filter(None, (parameters_text(row.parameters), row.mix.text)))
    return "\n".join(
        [
            paragraph(f"{row.title} on {title}{f': {settings}' if settings else ''}"),
            *([paragraph(scale_text(row.scale, measured.split))] if row.scale else ()),
            *(paragraph(f"{note}.") for note in (*row.notes, *weak_experts(zero_shot.measured, experts.measured))),
            *(paragraph(f"Method {line}.") for line in plugin_lines([row.name])),
            f"Top-1 accuracy in percent with its 95 % Wilson interval, {measured.measured_on}.",
            *about_images(measured, notes),
            "Normalised: divided by the accuracy of the task's own expert; its mean is that of the ratios.",
            JOINT,
            "",
            table(header, rows),
            "",
            "Seconds: merge {}, search for α {}, evaluation {}".format(
                *map(seconds, (row.took.merge, row.took.scale, row.took.evaluation))
            ),
        ]
    )


def tell_of_weak_experts(found: Sequence[str]) -> None:
    """Before anything is merged, name the experts that do not beat the base on their own task."""
    for text in found:
        print(paragraph(f"{text}."), file=sys.stderr)


def tell_of_lost_runs(problem: str) -> None:
    """Say why a run was not kept, beside the result, which is good all the same."""
    if problem:
        print(paragraph(f"{problem}."), file=sys.stderr)


def notes_of(bench: Bench) -> tuple[str, ...]:
    """What a reader of the accuracies must know: how q, k and v were merged, and the temperature of whatever was learned."""
    text = qkv_text(bench.vectors.qkv, bench.vectors.qkv_stored)
    scale = f"Logit scale of entropies and losses: {bench.logit_scale.text}."
    return (*bench.notes, *([f"{text[0].upper()}{text[1:]}."] if text else []), scale)


def about_images(measured: Evaluation, notes: Sequence[str]) -> list[str]:
    """How the images were split, and what else a reader of the accuracies must know; as lines of text."""
    return [paragraph(text) for text in (*(f"Splits of {line}." for line in measured.split_lines), *notes)]


def with_interval(accuracy: TaskAccuracy) -> str:
    return percent_with_interval(accuracy.accuracy, accuracy.interval)


def scale_text(scale: Scale, split: str) -> str:
    """α, where it came from, and a warning where it was chosen on the reported images."""
    searched = bool(scale.curve)
    origin = f"chosen on the {scale.origin}, the best of {len(scale.curve)} tried" if searched else scale.origin
    warning = "; the split that is reported, so these accuracies flatter it" if searched and split == "val" else ""
    return f"α = {scale.value:g} ({origin}{warning})"
