"""A merge on disk: one file, a folder like the base's, or a PEFT adapter; streamed, atomic, with its recipe and its card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from dcmerge.checkpoints import StoredCheckpoint, new_folder, shown, write_safetensors, write_text
from dcmerge.checkpoints.leftovers import remove_leftovers
from dcmerge.errors import InputError
from dcmerge.merging.lengths import Length
from dcmerge.merging.output.adapters import Shrunk, in_one_file, places, write_factors, write_lora_file
from dcmerge.merging.output.cards import card
from dcmerge.merging.output.folders import copy_companions, write_shards
from dcmerge.merging.output.kept import Kept, claimed
from dcmerge.merging.output.models import Parts, asked_dtype, infos_of, parts_of, tensors_of, written_dtypes
from dcmerge.merging.output.rounding import Rounding
from dcmerge.merging.output.targets import DTYPES, Target, Written, ours
from dcmerge.merging.output.vocabularies import widen_vocabulary
from dcmerge.merging.recipe import METADATA_KEY, Recipe
from dcmerge.vectors.task_vectors import Delta, TaskVectors

__all__ = [
    "DTYPES",
    "Rounding",
    "Target",
    "Written",
    "asked_dtype",
    "check_target",
    "rounding_of",
    "write_merged",
    "written_dtypes",
]

#: A smaller share of the energy is rounding of float32, not a direction.
_ROUNDING = 1e-10


def write_merged(
    vectors: TaskVectors,
    deltas: Iterable[tuple[str, Delta]],
    target: Target,
    scale: float,
    recipe: Callable[[str], Recipe],
    told: tuple[str, ...] = (),
    parts: Parts | None = None,
) -> Written:
    """Write a merge where and how the target says; ``recipe`` is asked with the dtypes that are written.

    ``told``: what the method says of its parameters on this set; it comes first among the notes. ``parts`` are the same deltas
    where they can be merged some rows at a time, which is quicker and takes less memory.

    Raises InputError for a target that cannot be written, a model without a base, an adapter of full fine-tuning, and values
    that leave the range of the dtype; whatever goes wrong, nothing is left behind. Parts that killed merges left in the target's
    folder are removed, and the notes say so.
    """
    check_target(vectors, target)
    folder = target.path.absolute().parent
    finished = claimed(target.path)
    left = remove_leftovers(folder).note(shown(folder))
    try:
        written = _write(vectors, deltas, target, scale, recipe, told, parts, finished)
    finally:
        finished.unlink(missing_ok=True)
    return replace(written, notes=(*written.notes, left)) if left else written


def _write(
    vectors: TaskVectors,
    deltas: Iterable[tuple[str, Delta]],
    target: Target,
    scale: float,
    recipe: Callable[[str], Recipe],
    told: tuple[str, ...],
    parts: Parts | None,
    finished: Path,
) -> Written:
    # From here on everything has the names and the grouping of the files.
    length, experts = Length(), vectors
    vectors, deltas = vectors.as_stored(length.counted(deltas), by_adapters=target.content == "adapter")
    made = recipe(written_dtypes(vectors, target.content, target.torch_dtype)).embedded()
    if target.content == "adapter":
        return _adapter(vectors, deltas, target, scale, made, lambda: told + length.notes(experts, scale, made.scale_origin))
    infos = infos_of(vectors, target.content, target.torch_dtype)
    metadata = {METADATA_KEY: made.to_json(), "content": target.content}
    rounding, kept = Rounding(), Kept(finished, made.to_json())
    if parts and target.content == "model" and vectors is experts and not vectors.report.copies:
        tensors = parts_of(vectors, parts, scale, target.torch_dtype, rounding, length, kept)
    else:
        tensors = tensors_of(vectors, deltas, target.content, scale, target.torch_dtype, rounding)
    notes = told + (_notes(vectors) if target.content == "model" else ())
    if not target.is_folder:
        write_safetensors(target.path, tensors, infos, metadata)
        notes += length.notes(experts, scale, made.scale_origin) + ((rounding.text,) if rounding.text else ())
        _write_texts(vectors, made, target, notes)
        return _written(target, len(infos), notes + kept.notes, rounding)
    base = vectors.base
    assert isinstance(base, StoredCheckpoint)  # a delta is no folder, and ``check_target`` refuses a model without a base
    with new_folder(target.path, ours=ours if target.replace else None) as folder:
        write_shards(base, tensors, infos, folder, metadata)
        notes += (
            copy_companions(base, folder, target.dtype)
            + widen_vocabulary(base, folder)
            + length.notes(experts, scale, made.scale_origin)
        )
        notes += (rounding.text,) if rounding.text else ()
        _write_texts(vectors, made, replace(target, path=folder), notes)
    return _written(target, len(infos), notes + kept.notes, rounding)


def _write_texts(vectors: TaskVectors, recipe: Recipe, target: Target, notes: tuple[str, ...]) -> None:
    """The card, where the target has one, and the report that it names."""
    if target.card_path:
        write_text(target.card_path, card(vectors, recipe, target, notes))
    if target.report_path:
        write_text(target.report_path, target.report)


def rounding_of(vectors: TaskVectors, deltas: Iterable[tuple[str, Delta]], scale: float, dtype: str | None = None) -> Rounding:
    """What a model of base + scale · deltas would lose in its own dtypes, or in another, without writing it.

    Raises InputError as writing would: without a base, or where values leave the range of the dtype.
    """
    vectors, deltas = vectors.as_stored(deltas)
    found = Rounding()
    infos_of(vectors, "model")
    for _ in tensors_of(vectors, deltas, "model", scale, None if dtype is None else DTYPES.get(dtype), found):
        pass
    return found


def check_target(vectors: TaskVectors, target: Target) -> None:
    """Raises InputError, before any work, for what could not be written after it."""
    target.check()
    stored, _ = vectors.as_stored((), by_adapters=target.content == "adapter")
    if target.content == "adapter":
        places(stored)
        _check_adapter_target(stored, target)
    else:
        infos_of(stored, target.content)


def _check_adapter_target(vectors: TaskVectors, target: Target) -> None:
    """A PEFT adapter is a folder, a LoRA of another dialect is one file."""
    if in_one_file(vectors) and target.is_folder:
        raise InputError(f"out: expected a file name that ends in .safetensors, as the experts' LoRA files, got {target.path}")
    if not in_one_file(vectors) and not target.is_folder:
        raise InputError(
            f"out: expected a folder for an adapter of PEFT, got a file name that ends in .safetensors: {target.path}"
        )


def _adapter(
    vectors: TaskVectors,
    deltas: Iterable[tuple[str, Delta]],
    target: Target,
    scale: float,
    recipe: Recipe,
    told: Callable[[], tuple[str, ...]],
) -> Written:
    metadata = {METADATA_KEY: recipe.to_json(), "content": "adapter"}
    if not target.is_folder:
        done = write_lora_file(vectors, deltas, target.path, scale, target.rank, metadata)
        notes = (*told(), *_of_adapter(done, target.rank))
        _write_texts(vectors, recipe, target, notes)
        return _written_adapter(target, done, notes)
    with new_folder(target.path, ours=ours if target.replace else None) as folder:
        done = write_factors(vectors, deltas, folder, scale, target.rank, metadata)
        notes = (*told(), *_of_adapter(done, target.rank))
        _write_texts(vectors, recipe, replace(target, path=folder), notes)
    return _written_adapter(target, done, notes)


def _written_adapter(target: Target, done: Shrunk, notes: tuple[str, ...]) -> Written:
    ranks = min(done.ranks.values()), max(done.ranks.values())
    return replace(_written(target, 2 * len(done.ranks), notes), ranks=ranks, discarded=done.discarded, worst=done.worst)


def _notes(vectors: TaskVectors) -> tuple[str, ...]:
    if vectors.base is not None and vectors.base.kind == "state_dict":
        return ("the base is a PyTorch state dict; this is safetensors with the same names",)
    return ()


def _of_adapter(done: Shrunk, rank: int | None) -> Iterator[str]:
    """What the rank costs, in words."""
    low, high = min(done.ranks.values()), max(done.ranks.values())
    span = f"rank {low}" if low == high else f"ranks {low} to {high}"
    name, share = done.worst
    lost = f"{_percent(done.discarded)} of the merged delta's energy (squared norm) is discarded"
    most = f", at most {_percent(share)} of one matrix ({name})" if share > _ROUNDING else ""
    yield f"{span}; {lost}{most}"
    if done.dense and rank is None:
        yield (
            f"warning: the method gives dense matrices, {len(done.dense)} of {len(done.ranks)}: each is replaced by its best "
            "approximation whose rank is the sum of the experts' ranks; a larger rank, or the full model, keeps more"
        )


def _percent(share: float) -> str:
    return f"{100 * share if share > _ROUNDING else 0:.3g} %"


def _written(target: Target, tensors: int, notes: tuple[str, ...], rounding: Rounding | None = None) -> Written:
    if target.is_folder:
        files = sorted(entry for entry in target.path.rglob("*") if entry.is_file())
    else:
        files = [target.path, *filter(None, (target.card_path, target.report_path))]
    size = sum(file.stat().st_size for file in files)
    lost = rounding if rounding and rounding.dtypes else None
    names = tuple(file.relative_to(target.path).as_posix() if target.is_folder else file.name for file in files)
    return Written(target.path, target.content, names, tensors, size, notes, rounding=lost)
