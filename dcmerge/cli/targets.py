"""Where a merge is written: the file or folder that an option names, refused before any work where writing would fail."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dcmerge.checkpoints import check_text_target
from dcmerge.errors import InputError
from dcmerge.merging.output import Target
from dcmerge.merging.recipe import ADAPTER, DELTA, MODEL
from dcmerge.vectors.task_vectors import TaskVectors

SUFFIX = ".safetensors"
RECIPE_SUFFIXES = (".yaml", ".yml", ".json")
#: Names of files, not of folders.
OTHER_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".json", ".zip", ".gguf", ".npz")


def checked_output(args: argparse.Namespace) -> Target:
    """What the options ask for, refused before any work where writing would fail or lose something."""
    if args.adapter_rank and not args.as_adapter:
        raise InputError("adapter-rank: expected --as-adapter with it, got another output")
    if args.as_adapter and args.delta_only:
        raise InputError("expected --as-adapter or --delta-only, got both")
    content = ADAPTER if args.as_adapter else DELTA if args.delta_only else MODEL
    return target_of(args.out, content, args.adapter_rank, card=args.card, force=args.force, dtype=args.dtype)


def target_of(
    out: str, content: str, rank: int | None = None, *, card: bool = False, force: bool = False, dtype: str | None = None
) -> Target:
    """A file or a folder, by its name and what goes into it; raises InputError where it could not be written."""
    # What ends like a file of weights and is not one that we write was meant as a file.
    other = content != ADAPTER and Path(out).suffix.lower() in OTHER_SUFFIXES
    file = other or Path(out).suffix == SUFFIX
    path = checked_target(out, force=force) if file else checked_folder(out)
    target = Target(path, content, rank, card, replace=force, dtype=dtype)
    target.check()
    return target


def checked_folder(text: str) -> Path:
    """The folder to write as a path with a name."""
    if "\0" in text:
        raise InputError(f"out: expected a path, got one with a NUL byte: {text}")
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


def check_recipe_target(text: str, *, force: bool) -> None:
    """A recipe's file, refused before any work where it could not be written or is there."""
    if "\0" in text or Path(text).suffix not in RECIPE_SUFFIXES:
        raise InputError(f"recipe: expected a file name that ends in {', '.join(RECIPE_SUFFIXES)}, got {text}")
    check_text_target(Path(text))
    if os.path.lexists(text) and not force:
        raise InputError(f"recipe: {text} exists already; --force replaces it")
