"""``dcmerge convert``: the tensors of an old or pickled file as safetensors, without running what is in the file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dcmerge.checkpoints.convert import SCHEMES, Converted, convert
from dcmerge.checkpoints.seen import content_digest
from dcmerge.cli.options import Commands, Parser, add_command
from dcmerge.cli.output import paragraph, print_json, seconds, size
from dcmerge.cli.targets import checked_target


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "convert", run, example="old.pt new.safetensors")
    parser.add_argument("old", metavar="OLD", help="a .pt, .pth, .bin or .pkl file, or any checkpoint with --to")
    parser.add_argument("new", metavar="NEW.safetensors", help="the file to write")
    parser.add_argument("--to", choices=SCHEMES, help="rename a CLIP model's weights to this scheme, q, k and v as it has them")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    new = checked_target(args.new, force=args.force)
    found = convert(args.old, new, to=args.to)
    report = {
        "old": args.old,
        "new": str(new),
        "tensors": found.tensors,
        "source": found.source,
        "left_out": found.left_out,
        "limits_not_set": found.lacking,
        "to": args.to,
        "bytes": new.stat().st_size,
        "sha256": content_digest(new),
        "seconds": time.perf_counter() - started,
    }
    print_json(report) if args.json else print(as_text(new, found, report))
    return 0


def as_text(new: Path, found: Converted, report: dict) -> str:
    """What was written, and what was not."""
    lines = [f"Wrote {new}: {found.tensors} tensors of {found.source}, {size(report['bytes'])}, {seconds(report['seconds'])} s"]
    if found.left_out:
        lines.append(f"Not tensors of the model, left out: {', '.join(found.left_out)}")
    if found.lacking:
        lines.append(f"Read without a limit of: {', '.join(found.lacking)} (this system has no way to set one)")
    return "\n".join(paragraph(line) for line in lines)
