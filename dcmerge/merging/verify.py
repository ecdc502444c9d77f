"""A merged file, read again: does it hold what its recipe says, and does it load where it should?

Every weight is merged once more from the recipe's inputs and compared with what is in the file: stored = base + α · delta, up to
the rounding of its dtype. What cannot be merged again, since its inputs are not found, is checked as far as the file tells.
The blind spot: a fault of the method itself is merged the same way twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import SAFETENSORS_SUFFIX, Checkpoint, LoraCheckpoint, dense, open_checkpoint, read_json
from dcmerge.checkpoints.modules import module_folders
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.tokenizers import tokens_beside
from dcmerge.errors import InputError, listed
from dcmerge.merging.loading import Loaded, loaded_and_run
from dcmerge.merging.merge import own_delta
from dcmerge.merging.output import asked_dtype
from dcmerge.merging.output.models import tensors_of
from dcmerge.merging.output.targets import DTYPES
from dcmerge.merging.recipe import ADAPTER, ARITHMETIC, DELTA, Recipe
from dcmerge.merging.running import Progress, Ready, Source, prepare
from dcmerge.methods import deltas_of, planned
from dcmerge.vectors.compatibility import classify
from dcmerge.vectors.roles import is_token_table

#: What a second merge may differ by, as a share of the largest change of a weight: other threads sum in another order.
_AGAIN = 1e-4
#: A share of the energy that a rank or a rounding leaves out.
_LOST = 1e-6


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``ok`` is None where it could not be checked, or where there is nothing to judge."""

    what: str
    ok: bool | None
    text: str


@dataclass
class Verified:
    """Everything that was looked at, in order; ``layers`` is the largest difference of each weight from its recipe."""

    path: Path
    checks: list[Check] = field(default_factory=list)
    layers: dict[str, float] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    def say(self, what: str, ok: bool | None, text: str) -> None:
        self.checks.append(Check(what, ok, text))

    def to_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "sound": self.sound, "checks": [vars(one) for one in self.checks], "layers": self.layers}


def verify(
    path: str | Path,
    given: Mapping[str, str] | None = None,
    search: Sequence[str] = (),
    *,
    forward: bool = True,
    download: bool = False,
    progress: Progress | None = None,
) -> Verified:
    """Look at a merged file or folder; ``given`` and ``search`` find its inputs as ``prepare`` takes them, ``download`` too.

    ``forward`` also loads a folder with the library of its kind, where it is installed, and runs it once. Raises InputError for a
    file that cannot be opened or that holds no recipe.
    """
    path = Path(path)
    merged, recipe = open_checkpoint(path), Recipe.open(with_recipe(path))
    found = Verified(path)
    _check_numbers(found, merged)
    ready = _ready(found, path, recipe, given, search, download, progress)
    if ready is not None:
        _check_layers(found, merged, ready, progress)
        _check_against_base(found, merged, ready)
    _check_vocabulary(found, merged)
    if forward and path.is_dir():
        _check_loading(found, loaded_and_run(path, ready.vectors.base.path if ready and ready.vectors.base else None))
    return found


def with_recipe(path: Path) -> Path:
    """The file whose metadata hold the recipe: the first shard of a folder."""
    if not path.is_dir():
        return path
    inside = [path, *module_folders(path)]
    files = [file for folder in inside for file in sorted(folder.iterdir()) if file.suffix == SAFETENSORS_SUFFIX]
    if not files:
        raise InputError(f"Expected a folder that dcmerge wrote, got {shown(path)}, which holds no {SAFETENSORS_SUFFIX} file.")
    return files[0]


def _ready(
    found: Verified,
    path: Path,
    recipe: Recipe,
    given: Mapping[str, str] | None,
    search: Sequence[str],
    download: bool,
    progress: Progress | None,
) -> Ready | None:
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    try:
        return prepare(Source(recipe, (folder, folder.parent)), given, search, progress, download=download)
    except InputError as error:
        if given or search or download:
            raise
        found.say("recipe", None, f"the merge was not repeated: {str(error).rstrip('.')}; name the inputs, or a folder to search")
        return None


def _check_numbers(found: Verified, merged: Checkpoint) -> None:
    # A mask is infinite where nothing is to be seen.
    bad = [name for name, info in merged.infos.items() if classify(name, info).mergeable and not _finite(merged, name)]
    text = f"NaN or Inf in {len(bad)} tensors: {listed(bad)}" if bad else f"every number of {len(merged.infos)} tensors is finite"
    found.say("numbers", not bad, text)


def _finite(merged: Checkpoint, name: str) -> bool:
    value = dense(merged.read(name))
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _expected(ready: Ready, progress: Progress | None) -> Iterator[tuple[str, Tensor]]:
    """What the recipe writes, tensor by tensor, under the names in the file."""
    recipe, vectors = ready.recipe, ready.vectors
    plan = planned(vectors, recipe.method, recipe.parameters, bench=ready.bench, dtype=ARITHMETIC[recipe.arithmetic])
    own = own_delta(recipe.method, plan.modules(), recipe.task)
    deltas = ((name, own(name, delta)) for name, delta in deltas_of(plan, progress=progress))
    stored, deltas = vectors.as_stored(deltas, by_adapters=recipe.content == ADAPTER)
    dtype = DTYPES[asked] if (asked := asked_dtype(recipe)) and recipe.content != DELTA else None
    scale = 1.0 if recipe.scale is None else recipe.scale
    yield from tensors_of(stored, deltas, DELTA if recipe.content == ADAPTER else recipe.content, scale, dtype)


def _check_layers(found: Verified, merged: Checkpoint, ready: Ready, progress: Progress | None) -> None:
    if isinstance(merged, LoraCheckpoint):
        _check_factors(found, merged, ready, progress)
        return
    at = {source: name for name, source in merged.source_names.items()}
    stored, _ = ready.vectors.as_stored(())
    base, off, missing, same, lost = stored.base, [], [], 0, []
    sources = {source: name for name, source in base.source_names.items()} if base and ready.recipe.content != DELTA else {}
    changed = {source for source, name in sources.items() if name in stored.parameters}
    for source, wanted in _expected(ready, progress):
        if source not in at:
            missing.append(source)
            continue
        value = dense(merged.read(at[source]))
        before = base.tensor(sources[source]).to(wanted.dtype) if base and source in sources else torch.zeros_like(wanted)
        found.layers[source] = difference = _largest(value, wanted)
        if value.shape != wanted.shape or difference > _allowed(wanted, before):
            off.append(source)
        same += torch.equal(value, wanted)
        if source in changed and torch.equal(value, before.reshape(value.shape)) and not torch.equal(wanted, before):
            lost.append(source)
    extra = [source for source in at if source not in found.layers]
    count = len(found.layers)
    text = f"{count - len(off)} of {count} tensors are base + α · delta of the recipe up to rounding, {same} to the last bit"
    text += f"; off: {listed(off)}" if off else ""
    text += f"; missing: {listed(missing)}" if missing else ""
    text += f"; not in the recipe: {listed(extra)}" if extra else ""
    found.say("recipe", not (off or missing or extra), text)
    if lost:
        found.say("change", False, f"{len(lost)} tensors are the base's although the recipe changes them: {listed(lost)}")


def _largest(value: Tensor, wanted: Tensor) -> float:
    if value.shape != wanted.shape or not wanted.numel():
        return 0.0 if value.shape == wanted.shape else float("inf")
    return float((value.double() - wanted.double()).abs().max())


def _allowed(wanted: Tensor, before: Tensor) -> float:
    """The rounding of the dtype, and what a second merge may differ by."""
    if not wanted.is_floating_point() or not wanted.numel():
        return 0.0
    rounding = 2 * torch.finfo(wanted.dtype).eps * float(wanted.double().abs().max())
    return rounding + _AGAIN * float((wanted.double() - before.double().reshape(wanted.shape)).abs().max())


def _check_factors(found: Verified, merged: LoraCheckpoint, ready: Ready, progress: Progress | None) -> None:
    """An adapter's products beside α · delta: the share of the energy that they leave out."""
    merged = merged.on_experts_of(ready.vectors.base.stored.infos) if ready.vectors.base else merged
    stored = {source.removeprefix("base_model.model."): name for name, source in merged.source_names.items()}
    lost, whole, missing = 0.0, 0.0, []
    for name, wanted in _expected(ready, progress):
        if any(name in adapter.whole for adapter in ready.vectors.adapters):
            continue
        at = next((own for source, own in stored.items() if source.endswith(name) or name.endswith(source)), None)
        if at is None:
            missing.append(name)
            continue
        rest = (dense(merged.read(at)).double() - wanted.double()).square().sum().item()
        found.layers[name] = rest
        lost, whole = lost + rest, whole + wanted.double().square().sum().item()
    share = lost / whole if whole else 0.0
    bounded = ready.recipe.adapter_rank is not None
    text = f"the factors hold α · delta of the recipe but for {100 * share:.3g} % of its energy"
    text += f"; missing: {listed(missing)}" if missing else ""
    found.say("recipe", not missing and (share <= _LOST or (None if bounded or share < 1 else False)), text)


def _check_against_base(found: Verified, merged: Checkpoint, ready: Ready) -> None:
    base = ready.vectors.base
    if base is None or isinstance(merged, LoraCheckpoint) or ready.recipe.content == DELTA:
        return
    sizes = [sum(prod(info.shape) for info in one.infos.values()) for one in (merged, base)]
    text = f"{sizes[0]} numbers, as the base" if sizes[0] == sizes[1] else f"{sizes[0]} numbers where the base has {sizes[1]}"
    found.say("size", sizes[0] == sizes[1], text)
    for name, original in ready.vectors.report.copies.items():
        at = {source: own for own, source in merged.source_names.items()}
        both = [at.get(base.source_names.get(one, "")) for one in (name, original)]
        if both[0] and both[1]:
            equal = torch.equal(dense(merged.read(both[0])), dense(merged.read(both[1])))
            found.say("tied", equal, f"{name} is {'' if equal else 'not '}the same as {original}, which it is tied to")


def _check_vocabulary(found: Verified, merged: Checkpoint) -> None:
    """Rows of the tables of tokens beside the settings and the tokenizer in the folder."""
    rows = {merged.infos[name].shape[0] for name in merged.infos if is_token_table(name) and merged.infos[name].shape}
    if not rows or isinstance(merged, LoraCheckpoint) or not merged.path.is_dir():
        return
    config, tokens = merged.path / "config.json", tokens_beside(merged.path)
    said = read_json(config) if config.is_file() else {}
    inner = said.get("text_config")
    size = said.get("vocab_size") or (inner.get("vocab_size") if isinstance(inner, dict) else None)
    if isinstance(size, int):
        found.say("vocabulary", size in rows, f"tables of {listed(map(str, sorted(rows)))} tokens, {size} in the settings")
    if tokens:
        fits = max(tokens.values()) < min(rows)
        found.say("tokenizer", fits, f"the tokenizer's numbers go up to {max(tokens.values())}, the tables have {min(rows)} rows")


def _check_loading(found: Verified, loaded: Loaded | None) -> None:
    if loaded is None:
        found.say("loading", None, "not loaded: no library that is installed is known to load it")
    else:
        found.say("loading", loaded.ok, loaded.text)
