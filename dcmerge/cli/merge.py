"""``dcmerge merge``: checkpoints in, one file, folder or adapter out."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

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
    whole_number,
)
from dcmerge.cli.output import Progress, paragraph, print_json, qkv_lines, seconds, size
from dcmerge.errors import InputError
from dcmerge.merging import merge_to
from dcmerge.methods import method
from dcmerge.methods.declare import Number
from dcmerge.output import DTYPES, Rounding, Target
from dcmerge.recipe import check_scale
from dcmerge.task_vectors import TaskVectors

SUFFIX = ".safetensors"
#: Names of files, not of folders.
OTHER_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".json", ".zip", ".gguf", ".npz")
CONTENT = {
    "model": "base + α · merged task vector", "delta": "the delta, α · merged task vector",
    "adapter": "α · merged task vector as a PEFT adapter",
}  # fmt: skip
TOLERANCE = Number("Tolerance", "Relative residual that a randomised SVD may have; 0 is exact.", 0, 0.1, 1e-4)


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "merge", "merge experts into one model and save it with its recipe", run)
    add_model_set(parser)
    add_bench(parser)
    group = parser.add_argument_group("merging")
    add_method(group, required=True)
    group.add_argument("--scale", type=number, metavar="A", help="α (default: the method's usual one)")
    group.add_argument("--out", required=True, metavar="PATH",
                       help=f"the file to write, *{SUFFIX}, or a folder: the base's shards and settings, a card")  # fmt: skip
    group.add_argument("--tolerance", type=number, default=0.0, metavar="E",
                       help="allow a randomised SVD whose relative residual is at most E (default 0: exact)")  # fmt: skip
    group.add_argument("--delta-only", action="store_true", help="save α · merged task vector alone, in float32")
    group.add_argument("--as-adapter", action="store_true",
                       help="save α · merged task vector of LoRA experts as a PEFT adapter folder")  # fmt: skip
    group.add_argument("--adapter-rank", type=whole_number(1), metavar="R",
                       help="at most R directions a weight (default: the exact rank, up to the sum of the experts')")  # fmt: skip
    group.add_argument("--dtype", choices=tuple(DTYPES), help="write the model in this dtype (default: the base's own dtypes)")
    group.add_argument("--card", action="store_true", help="write a model card beside a single file too, NAME.md")
    group.add_argument("--task", metavar="NAME", help="whose model, for a method that makes one for each task (emr)")
    group.add_argument("--force", action="store_true", help="replace an existing file, or a folder that a merge wrote")


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    parameters = method_parameters(args)
    usual = method(args.method).usual_scale
    scale, origin = (usual, "the method's usual α") if args.scale is None else (check_scale(args.scale), "given")
    target = checked_output(args)
    with Progress() as progress:
        vectors, bench = open_models(args, progress)
        refuse_inputs(target.path, vectors)
        vectors.tolerance = TOLERANCE.check("tolerance", args.tolerance)
        if vectors.base is None and target.content == "model":
            target = replace(target, content="delta")
            target.check()
        written = merge_to(vectors, args.method, target, scale=scale, scale_origin=origin, task=args.task, bench=bench,
                           progress=progress, **parameters)  # fmt: skip
    report = {
        "out": str(target.path), "content": written.content, "method": args.method, "parameters": parameters,
        "scale": scale, "scale_origin": origin, "tasks": vectors.tasks, "kind": vectors.kind,
        "tensors": written.tensors, "bytes": written.nbytes, "sha256": open_checkpoint(target.path).fingerprint,
        "qkv": vectors.qkv, "qkv_stored": vectors.qkv_stored, "rounding": rounding_as_data(written.rounding),
        "files": written.files, "notes": written.notes, "ranks": written.ranks, "discarded_energy": written.discarded,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    print_json(report) if args.json else print(as_text(report))
    return 0


def rounding_as_data(rounding: Rounding | None) -> dict[str, object] | None:
    """What 16-bit weights lose of the merge, as plain data; None where all weights are wider."""
    if rounding is None:
        return None
    return {"dtypes": sorted(rounding.dtypes), "lost_share_of_norm": rounding.lost_share, "nonzero_entries": rounding.entries,
            "unchanged_entries": rounding.unchanged, "unchanged_share": rounding.unchanged_share,
            "is_large": rounding.is_large}  # fmt: skip


def checked_output(args: argparse.Namespace) -> Target:
    """What the options ask for, refused before any work where writing would fail or lose something."""
    if args.adapter_rank and not args.as_adapter:
        raise InputError("adapter-rank: expected --as-adapter with it, got another output")
    if args.as_adapter and args.delta_only:
        raise InputError("expected --as-adapter or --delta-only, got both")
    content = "adapter" if args.as_adapter else "delta" if args.delta_only else "model"
    # What ends like a file of weights and is not one that we write was meant as a file.
    file = not args.as_adapter and (Path(args.out).suffix == SUFFIX or Path(args.out).suffix.lower() in OTHER_SUFFIXES)
    path = checked_target(args.out, force=args.force) if file else checked_folder(args.out)
    target = Target(path, content, args.adapter_rank, args.card, replace=args.force, dtype=args.dtype)
    target.check()
    return target


def checked_folder(text: str) -> Path:
    """The folder to write as a path with a name."""
    if "\0" in text:
        raise InputError(f"out: expected a path, got one with a NUL byte: {text}")
    if Path(text).suffix == SUFFIX:
        raise InputError(f"out: expected a folder for an adapter, got a file name that ends in {SUFFIX}: {text}")
    return Path(os.path.abspath(text))


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
    """Not even ``--force`` replaces a file that is being merged, or a folder with one."""
    sources = [*vectors.experts.values(), *([vectors.base] if vectors.base else [])]
    at_risk = list(out.iterdir()) if out.is_dir() else [out] if out.exists() else []
    if any(os.path.samefile(place, file) for source in sources for file in source.files for place in at_risk):
        raise InputError(f"out: expected another file or folder than those that are merged, got {out}")


def as_text(report: dict) -> str:
    """What was written, in a few lines."""
    how = parameters_text(report["parameters"])
    files = f", {len(report['files'])} files" if len(report["files"]) > 1 else ""
    return "\n".join([
        paragraph(f"Wrote {report['out']}: {CONTENT[report['content']]}"),
        paragraph(f"{report['method']} of {', '.join(report['tasks'])}{f'; {how}' if how else ''}", indent=2),
        f"  α = {report['scale']:g} ({report['scale_origin']})",
        *qkv_lines(report["qkv"], report["qkv_stored"], indent=2),
        *(paragraph(note, indent=2) for note in report["notes"]),
        f"  {report['tensors']} tensors{files}, {size(report['bytes'])}, {seconds(report['seconds'])} s",
        f"  sha256 {report['sha256']}",
    ])  # fmt: skip
