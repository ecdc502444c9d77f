"""``dcmerge merge``: checkpoints in, one checkpoint out."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dcmerge import jobs
from dcmerge.checkpoints import open_checkpoint
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
    parameters_text,
)
from dcmerge.cli.output import Progress, paragraph, print_json, seconds, size
from dcmerge.errors import InputError
from dcmerge.exports import check_target, write_text
from dcmerge.merging import merge_to_file
from dcmerge.methods import method
from dcmerge.recipe import GIVEN, TOLERANCE, USUAL, Recipe, check_scale, inputs_of
from dcmerge.task_vectors import TaskVectors

SUFFIX = ".safetensors"
RECIPE_SUFFIXES = (".yaml", ".yml", ".json")


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "merge", "merge experts into one model and save it with its recipe", run)
    add_model_set(parser)
    add_bench(parser)
    group = parser.add_argument_group("merging")
    add_method(group, required=True)
    group.add_argument("--scale", type=number, metavar="A", help="α (default: the method's usual one)")
    group.add_argument("--scale-origin", metavar="TEXT", help="where α comes from, for the recipe (default: given)")
    group.add_argument("--out", required=True, metavar="FILE", help=f"the file to write, *{SUFFIX}")
    group.add_argument("--tolerance", type=number, default=0.0, metavar="E",
                       help="allow a randomised SVD whose relative residual is at most E (default 0: exact)")  # fmt: skip
    group.add_argument("--delta-only", action="store_true", help="save α · merged task vector alone, in float32")
    group.add_argument("--task", metavar="NAME", help="whose model, for a method that makes one for each task (emr)")
    group.add_argument("--recipe", metavar="FILE", help="write the recipe as well, *.yaml or *.json; the command run takes it")
    group.add_argument("--background", action="store_true",
                       help="merge a zoo as a job that outlives this terminal; prints its id (see the command jobs)")
    group.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    parameters = method_parameters(args)
    usual = method(args.method).usual_scale
    scale, origin = (usual, USUAL) if args.scale is None else (check_scale(args.scale), args.scale_origin or GIVEN)
    if args.scale is None and args.scale_origin is not None:
        raise InputError("scale-origin: expected it with --scale, whose origin it tells, got it alone")
    out = checked_target(args.out, force=args.force)
    if args.recipe is not None:
        check_recipe_target(args.recipe, force=args.force)
    if args.background:
        return _submit(args, parameters, scale, origin)
    with Progress() as progress:
        vectors, bench = open_models(args, progress)
        refuse_inputs(out, vectors)
        vectors.tolerance = TOLERANCE.check("tolerance", args.tolerance)
        delta_only = args.delta_only or vectors.base is None
        merge_to_file(vectors, args.method, out, scale=scale, scale_origin=origin, delta_only=delta_only, task=args.task,
                      bench=bench, progress=progress, **parameters)  # fmt: skip
    if args.recipe is not None:
        recipe = replace(Recipe.open(out), inputs=inputs_of(vectors)).beside(Path(args.recipe).parent)
        write_text(Path(args.recipe), recipe.text_for(args.recipe))
    report = report_of(out, vectors, started) | ({"recipe": args.recipe} if args.recipe else {})
    print_json(report) if args.json else print(as_text(report))
    return 0


def report_of(out: Path, vectors: TaskVectors, started: float) -> dict[str, Any]:
    """What was written, by the recipe in the file, and how long it took since ``started``."""
    written, recipe = open_checkpoint(out), Recipe.open(out)
    return {
        "out": str(out), "content": recipe.content, "method": recipe.method, "parameters": recipe.parameters,
        "scale": recipe.scale, "scale_origin": recipe.scale_origin, "tasks": vectors.tasks, "kind": vectors.kind,
        "tensors": len(written.infos), "bytes": out.stat().st_size, "sha256": written.fingerprint,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def _submit(args: argparse.Namespace, parameters: dict[str, Any], scale: float, origin: str) -> int:
    """The same merge as a job; it goes on when this command has ended."""
    given = {"--base and --expert": args.expert, "--recipe": args.recipe, "--task": args.task, "--tolerance": args.tolerance,
             "--force": args.force}  # fmt: skip
    if refused := [option for option, value in given.items() if value]:
        raise InputError(f"--background: expected a zoo and a new file, got {', '.join(refused)}")
    job = jobs.submit({"kind": "merge", "set": args.zoo, "method": args.method, "parameters": parameters, "out": str(args.out),
                       "scale": scale, "scale_origin": origin, "delta_only": args.delta_only})  # fmt: skip
    print_json({"id": job.id, "label": job.label, "folder": str(job.folder)}) if args.json else print(job.id)
    return 0


def check_recipe_target(text: str, *, force: bool) -> None:
    """A recipe's file, refused before any work where it could not be written or is there."""
    if "\0" in text or Path(text).suffix not in RECIPE_SUFFIXES:
        raise InputError(f"recipe: expected a file name that ends in {', '.join(RECIPE_SUFFIXES)}, got {text}")
    check_target(Path(text))
    if os.path.lexists(text) and not force:
        raise InputError(f"recipe: {text} exists already; --force replaces it")


def checked_target(text: str, *, force: bool) -> Path:
    """The file to write, refused before any work where writing would fail or lose something."""
    if "\0" in text:
        raise InputError(f"out: expected a path, got one with a NUL byte: {text}")
    out = Path(text)
    if out.suffix != SUFFIX:
        raise InputError(f"out: expected a file name that ends in {SUFFIX}, got {text}")
    try:
        if not out.parent.is_dir():
            raise InputError(f"out: expected an existing folder, got {out.parent}")
        if out.is_dir():
            raise InputError(f"out: expected a file, got the folder {out}")
        if os.path.lexists(out) and not force:
            raise InputError(f"out: {out} exists already; --force replaces it")
    except OSError as error:
        raise InputError(f"out: cannot write {out}: {error.strerror}") from None
    return out


def refuse_inputs(out: Path, vectors: TaskVectors) -> None:
    """Not even ``--force`` replaces a file that is being merged."""
    sources = [*vectors.experts.values(), *([vectors.base] if vectors.base else [])]
    if out.exists() and any(os.path.samefile(out, file) for source in sources for file in source.files):
        raise InputError(f"out: expected another file than those that are merged, got {out}")


def as_text(report: dict) -> str:
    """What was written, in four lines."""
    what = "the delta, α · merged task vector" if report["content"] == "delta" else "base + α · merged task vector"
    how = parameters_text(report["parameters"])
    return "\n".join([
        paragraph(f"Wrote {report['out']}: {what}"),
        paragraph(f"{report['method']} of {', '.join(report['tasks'])}{f'; {how}' if how else ''}", indent=2),
        f"  α = {report['scale']:g} ({report['scale_origin']})",
        f"  {report['tensors']} tensors, {size(report['bytes'])}, {seconds(report['seconds'])} s",
        f"  sha256 {report['sha256']}",
        *([paragraph(f"  its recipe is in {report['recipe']}")] if report.get("recipe") else []),
    ])  # fmt: skip
