"""``dcmerge merge``: checkpoints in, one checkpoint out."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import open_checkpoint, write_text
from dcmerge.cli.engines import add_workers, workers_of
from dcmerge.cli.fitting import fit_of
from dcmerge.cli.jobs import submitted
from dcmerge.cli.measured import add_report, check_report, report_of_merge
from dcmerge.cli.mixing import add_depth, chosen_mix
from dcmerge.cli.options import (
    Commands,
    Parser,
    add_bench,
    add_command,
    add_method,
    add_model_set,
    bench_specification,
    method_parameters,
    named_models,
    number,
    open_models,
    parameters_text,
    set_name,
    whole_number,
)
from dcmerge.cli.output import Progress, paragraph, percent, print_json, qkv_lines, seconds, size
from dcmerge.cli.plugins import add_plugins, plugin_lines
from dcmerge.cli.targets import SUFFIX, check_recipe_target, checked_output, refuse_inputs
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Evaluation
from dcmerge.evaluation.own_models import BenchSpecification
from dcmerge.merging.merge import merge, merge_to
from dcmerge.merging.output import DTYPES, Rounding, Target, Written, check_target, written_dtypes
from dcmerge.merging.recipe import (
    ADAPTER,
    DELTA,
    GIVEN,
    MODEL,
    USUAL_OF_SET,
    Recipe,
    check_scale,
    check_tolerance,
    recipe_of,
    settled_scale,
)
from dcmerge.methods import method
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors

CONTENT = {
    MODEL: "base + α · merged task vector",
    DELTA: "the delta, α · merged task vector",
    ADAPTER: "α · merged task vector as a PEFT adapter",
}


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(
        commands,
        common,
        "merge",
        run,
        example="--zoo demo --method dc_merge --set rho=5 --scale 0.8 --out merged.safetensors",
    )
    add_model_set(parser)
    add_bench(parser)
    group = parser.add_argument_group("merging")
    add_method(group, required=True)
    add_depth(group)
    add_plugins(group)
    group.add_argument("--scale", type=number, metavar="A", help="α (default: the method's usual one)")
    group.add_argument("--scale-origin", metavar="TEXT", help="where α comes from, for the recipe (default: given)")
    group.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help=f"the file to write, *{SUFFIX}, or a folder: the base's shards and settings, a card",
    )
    group.add_argument(
        "--tolerance",
        type=number,
        default=0.0,
        metavar="E",
        help="allow a randomised SVD whose relative residual is at most E (default 0: exact)",
    )
    group.add_argument("--delta-only", action="store_true", help="save α · merged task vector alone, in float32")
    group.add_argument(
        "--as-adapter", action="store_true", help="save α · merged task vector of LoRA experts as a PEFT adapter folder"
    )
    group.add_argument(
        "--adapter-rank",
        type=whole_number(1),
        metavar="R",
        help="at most R directions a weight (default: the exact rank, up to the sum of the experts')",
    )
    group.add_argument("--dtype", choices=tuple(DTYPES), help="write the model in this dtype (default: the base's own dtypes)")
    group.add_argument("--card", action="store_true", help="write a model card beside a single file too, NAME.md")
    group.add_argument(
        "--measure",
        choices=("val", "test"),
        metavar="SPLIT",
        help="evaluate on that split of the tasks' images (val, test) and write it into the card",
    )
    add_report(group)
    group.add_argument("--task", metavar="NAME", help="whose model, for a method that makes one for each task (emr)")
    group.add_argument("--recipe", metavar="FILE", help="write the recipe as well, *.yaml or *.json; the command run takes it")
    group.add_argument(
        "--background",
        action="store_true",
        help="merge as a job that outlives this terminal, and verify it; prints its id (see the command jobs)",
    )
    group.add_argument("--force", action="store_true", help="replace an existing file, or a folder that a merge wrote")
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    parameters, mix = method_parameters(args), chosen_mix(args)
    usual = method(args.method).usual_scale
    scale, origin = (usual, USUAL_OF_SET) if args.scale is None else (check_scale(args.scale), args.scale_origin or GIVEN)
    if args.scale is None and args.scale_origin is not None:
        raise InputError("scale-origin: expected it with --scale, whose origin it tells, got it alone")
    target = checked_output(args)
    if args.recipe is not None:
        check_recipe_target(args.recipe, force=args.force)
    workers = workers_of(args)
    if workers != 1 and (args.background or args.measure):
        what = "workers" if args.workers > 1 else "engine"
        raise InputError(f"{what}: expected it without --background and --measure, got one of them with it")
    check_report(args)
    if args.background:
        return _submit(args, target, mix, parameters, scale, origin)
    with Progress() as progress:
        vectors, bench = open_models(args, progress)
        refuse_inputs(target.path, vectors)
        vectors.tolerance = check_tolerance(args.tolerance)
        vectors = vectors.mixed(mix)
        scale, origin = settled_scale(args.method, parameters, vectors, scale, origin)
        target = target.fitting(vectors)
        chosen = {"scale": scale, "scale_origin": origin, "task": args.task}
        measured = None
        if args.measure:
            written, measured = measured_and_written(args, vectors, bench, target, chosen, parameters, progress)
        else:
            chosen["workers"] = workers
            written = merge_to(vectors, args.method, target, bench=bench, progress=progress, **chosen, **parameters)
    recipe = recipe_of(
        vectors,
        args.method,
        parameters,
        scale,
        origin,
        written_dtypes(vectors, target.content, target.torch_dtype),
        content=target.content,
        adapter_rank=target.rank,
        task=args.task,
    )
    if args.recipe is not None:
        write_text(Path(args.recipe), recipe.beside(Path(args.recipe).parent).text_for(args.recipe))
    report = report_of(written, recipe, vectors, started, measured) | ({"recipe": args.recipe} if args.recipe else {})
    print_json(report) if args.json else print(as_text(report))
    return 0


def report_of(
    written: Written, recipe: Recipe, vectors: TaskVectors, started: float, measured: Evaluation | None = None
) -> dict[str, Any]:
    """What was written and how, and how long it took since ``started``."""
    return {
        "out": str(written.path),
        "content": written.content,
        "method": recipe.method,
        "parameters": recipe.parameters,
        "mix": recipe.mix.to_data(),
        "plugin": recipe.plugin,
        "scale": recipe.scale,
        "scale_origin": recipe.scale_origin,
        "tasks": vectors.tasks,
        "kind": vectors.kind,
        "qkv": vectors.qkv,
        "qkv_stored": vectors.qkv_stored,
        "rounding": rounding_as_data(written.rounding),
        "tensors": written.tensors,
        "bytes": written.nbytes,
        "sha256": open_checkpoint(written.path).fingerprint,
        "files": written.files,
        "notes": written.notes,
        "left_out": vectors.report.left_out,
        "ranks": written.ranks,
        "discarded_energy": written.discarded,
        "accuracies": measured and measured.to_dict(),
        "seconds": time.perf_counter() - started,
    }


def _submit(args: argparse.Namespace, target: Target, mix: Mix, parameters: dict[str, Any], scale: float, origin: str) -> int:
    """The same merge as a job; it goes on when this command has ended."""
    fit, models = fit_of(args), None
    if not args.zoo:
        base, experts = named_models(args)
        bench = bench_specification(args)
        models = {
            "base": base and _absolute(base),
            "experts": {task: _absolute(path) for task, path in experts.items()},
            "fit": fit.to_data(),
            "bench": {} if bench is None else {**asdict(bench), **_places(bench)},
        }
    return submitted(
        args,
        {
            "kind": "merge",
            "set": set_name(args),
            "models": models,
            "method": args.method,
            "parameters": parameters,
            "out": str(target.path),
            "scale": scale,
            "scale_origin": origin,
            "content": target.content,
            "adapter_rank": target.rank,
            "dtype": target.dtype,
            "card": target.card,
            "replace": target.replace,
            "task": args.task,
            "tolerance": args.tolerance,
            "qkv": args.qkv,
            "mix": mix.to_data(),
            "measure": args.measure,
            "recipe": args.recipe and str(_absolute(args.recipe)),
        },
    )


def _absolute(path: str | Path) -> str:
    """The job may run in another folder than this command."""
    return os.path.abspath(path)


def _places(bench: BenchSpecification) -> dict[str, str]:
    return {name: _absolute(path) for name in ("data", "heads") if (path := getattr(bench, name))}


def rounding_as_data(rounding: Rounding | None) -> dict[str, object] | None:
    """What 16-bit weights lose of the merge, as plain data; None where all weights are wider."""
    if rounding is None:
        return None
    return {
        "dtypes": sorted(rounding.dtypes),
        "lost_share_of_norm": rounding.lost_share,
        "nonzero_entries": rounding.entries,
        "unchanged_entries": rounding.unchanged,
        "unchanged_share": rounding.unchanged_share,
        "is_large": rounding.is_large,
    }


def measured_and_written(
    args: argparse.Namespace,
    vectors: TaskVectors,
    bench: Bench | None,
    target: Target,
    chosen: dict,
    parameters: dict,
    progress: Progress,
) -> tuple[Written, Evaluation]:
    """The merge, held, evaluated on one split and written with its accuracies in the card."""
    if bench is None:
        raise InputError("measure: expected a set with images of its tasks, got files alone; leave --measure out")
    if args.task or target.content == DELTA or target.rank:
        raise InputError("measure: expected the whole merged model, got --task, --delta-only or --adapter-rank with it")
    check_target(vectors, target)
    merged = merge(vectors, args.method, bench=bench, progress=progress, **parameters)
    merged = replace(merged, told=(*merged.told, *bench.weak_experts(split=args.measure)))
    found = bench.evaluate(merged.model(bench, chosen["scale"]), args.method, split=args.measure, progress=progress)
    report = report_of_merge(args, bench, vectors.mix, found, parameters, chosen) if args.report else ""
    return merged.write(replace(target, evaluation=found, report=report), **chosen), found


def _content_text(report: dict) -> str:
    is_file = report["content"] == ADAPTER and Path(report["out"]).suffix == SUFFIX
    return "α · merged task vector as a LoRA file" if is_file else CONTENT[report["content"]]


def as_text(report: dict) -> str:
    """What was written, in a few lines."""
    how = parameters_text(report["parameters"])
    files = f", {len(report['files'])} files" if len(report["files"]) > 1 else ""
    return "\n".join(
        [
            paragraph(f"Wrote {report['out']}: {_content_text(report)}"),
            paragraph(f"{report['method']} of {', '.join(report['tasks'])}{f'; {how}' if how else ''}", indent=2),
            *(paragraph(f"method {line}", indent=2) for line in plugin_lines([report["method"]])),
            f"  α = {report['scale']:g} ({report['scale_origin']})",
            *([paragraph(mix.text, indent=2)] if (mix := Mix.from_data(report["mix"])) else []),
            *qkv_lines(report["qkv"], report["qkv_stored"], indent=2),
            *(paragraph(note, indent=2) for note in report["notes"]),
            *(paragraph(one, indent=2) for one in report["left_out"]),
            *(
                [f"  {percent(found['mean'])} % mean accuracy on the {found['split']} split (the card has all tasks)"]
                if (found := report["accuracies"])
                else []
            ),
            f"  {report['tensors']} tensors{files}, {size(report['bytes'])}, {seconds(report['seconds'])} s",
            f"  sha256 {report['sha256']}",
            *([paragraph(f"  its recipe is in {report['recipe']}")] if report.get("recipe") else []),
        ]
    )
