"""What was merged, from what and how, as plain data: kept, written beside the weights, and read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.documents import dumped_document, parsed_document, read_document
from dcmerge.checkpoints.hub import is_hub, name_in_cache
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.regrouped import QKV, STORED
from dcmerge.errors import InputError
from dcmerge.merging.fields import (
    inputs_field,
    mapping_field,
    one_of,
    plugin_field,
    rank_field,
    text_field,
    texts_field,
    versions_field,
)
from dcmerge.methods import method, methods
from dcmerge.methods.declare import Number
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors

#: Name of the recipe in a safetensors file's metadata.
METADATA_KEY = "dcmerge.recipe"
#: Largest α anyone may ask for: beyond it weights only overflow.
MAX_SCALE = 1000.0
BASE = "base"
GIVEN, USUAL = "given", "the method's usual α"
#: Of a recipe that names no α: which one is usual is known once the models are open.
USUAL_OF_SET = "the method's usual α for this set"
CONTENTS = MODEL, DELTA, ADAPTER = "model", "delta", "adapter"
ARITHMETIC = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = Number("Tolerance", "Relative residual that a randomised SVD may have; 0 is exact.", 0, 0.1, 1e-4)

#: Fields that a recipe holds only where there is something to tell.
_WHERE_TOLD = ("fit", "left_out", "plugin", "mix")

Read = TypeVar("Read")


def settled_scale(
    slug: str, parameters: Mapping[str, Any], vectors: TaskVectors, scale: float | None, origin: str | None
) -> tuple[float, str]:
    """α and its origin once the experts are open, for which USUAL_OF_SET waits."""
    if scale is None or origin == USUAL_OF_SET:
        return method(slug).usual_scale_for(vectors, parameters), USUAL
    return scale, origin or GIVEN


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a merged model, as plain data.

    ``inputs`` maps "base" and each task, in the order of merging, to {"file", "sha256"}: a path in a recipe on its own, relative
    to that recipe's folder, and a name alone in the metadata of a merged file; of a hub's model hub:owner/name@commit. The hash
    is a checkpoint's ``fingerprint``. ``zoo`` names an embedded zoo whose models these are. ``content`` is "model", "delta" or
    "adapter", of which ``adapter_rank`` bounds the rank; ``task`` whose model it is, where a method makes one for each task;
    ``arithmetic`` the dtype that was merged in, ``dtype`` those that were written. ``fit`` is what was chosen of how the files
    are fitted together (see ``Fit``), ``left_out`` what was not merged and why, for people. ``plugin`` is {"name", "sha256"} of
    what brought a method that is not built in. ``mix``: what each expert counts, and profiles
    over depth, where something differs from 1; recipes without it mean what they always did.
    """

    inputs: Mapping[str, Mapping[str, str]]
    method: str
    parameters: Mapping[str, Any]
    scale: float | None = None
    scale_origin: str | None = None
    dtype: str | None = None
    qkv: str = STORED
    content: str = MODEL
    adapter_rank: int | None = None
    task: str | None = None
    arithmetic: str = "float32"
    tolerance: float = 0.0
    zoo: str | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    plugin: Mapping[str, str] | None = None
    mix: Mix = field(default_factory=Mix)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """The checked recipe of plain data, defaults filled in; raises InputError that names the field."""
        names = [one.name for one in fields(cls)]
        for name in data:
            if name not in names:
                raise InputError(f"recipe: expected {', '.join(names)}, got the unknown key {shown(name)!r}")
        checked = {name: _CHECKS[name](name, data[name]) for name in names if data.get(name) is not None}
        if "method" not in checked:
            raise InputError("method: expected a method's slug, got none")
        checked["plugin"] = checked_plugin(checked["method"], checked.get("plugin"))
        chosen = method(checked["method"])
        if not checked.get("zoo") and not set(checked.get("inputs", ())) - {BASE}:
            raise InputError("inputs: expected at least one expert, or zoo with the name of an embedded one, got neither")
        if "mix" in checked and checked.get("inputs"):
            checked["mix"].check([name for name in checked["inputs"] if name != BASE], has_blocks=True)
        checked["parameters"] = chosen.check(_spelled_out(chosen.parameters, checked.get("parameters", {})))
        if "scale" not in checked:
            checked |= {"scale": chosen.usual_scale, "scale_origin": USUAL_OF_SET if chosen.usual_scale_of else USUAL}
        return cls(**{"inputs": {}, "scale_origin": GIVEN} | checked)

    @classmethod
    def from_text(cls, text: str, where: str = "recipe") -> Self:
        """From YAML or JSON; raises InputError for anything that is not a recipe."""
        return cls.of(parsed_document(text, where))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """From a YAML or JSON file, or the one in a merged .safetensors file; raises InputError that names the file."""
        if Path(path).suffix != ".safetensors":
            return _named(path, lambda: cls.of(read_document(path)))
        text = open_checkpoint(path).metadata.get(METADATA_KEY)
        if text is None:
            raise InputError(f"Expected a file that dcmerge wrote, got {shown(path)}, which holds no recipe.")
        return cls.from_text(text, f"the recipe in {shown(path)}")

    def to_json(self) -> str:
        """One line, in the order of the fields and of the tasks."""
        return json.dumps(self.to_data())

    def to_data(self) -> dict[str, Any]:
        """Plain data, in the order of the fields; without what is as usual: a plugin, a mix, how files are fitted."""
        found = asdict(self) | {"mix": self.mix.to_data()}
        return {name: value for name, value in found.items() if value or name not in _WHERE_TOLD}

    def to_yaml(self) -> str:
        """For people, without what is not set, the long list of inputs late; ``from_text`` reads the same again."""
        found = self.to_data()
        found["parameters"] = {name: "auto" if value is None else value for name, value in self.parameters.items()}
        order = sorted(found, key=lambda name: name in ("inputs", "versions"))
        found["left_out"] = list(self.left_out)
        told = {name: found[name] for name in order if found[name] is not None}
        return dumped_document({name: value for name, value in told.items() if value or name not in _WHERE_TOLD})

    def text_for(self, path: str | Path) -> str:
        """What a file of that name holds: JSON where it ends so, else YAML."""
        return json.dumps(self.to_data(), indent=2) + "\n" if Path(path).suffix == ".json" else self.to_yaml()

    def embedded(self) -> Self:
        """The same with the names of the files alone, as a merged file holds it: equal wherever the inputs lie."""
        return self._with_files(lambda file: Path(file).name)

    def beside(self, folder: str | Path) -> Self:
        """The same with paths relative to ``folder`` where they lie below it, and absolute elsewhere. Of a zoo: unchanged."""
        if self.zoo:
            return self
        root = Path(folder).absolute()

        def from_there(file: str) -> str:
            path = Path(file).absolute()
            return str(path.relative_to(root) if path.is_relative_to(root) else path)

        return self._with_files(from_there)

    def _with_files(self, changed: Callable[[str], str]) -> Self:
        files = {name: one["file"] for name, one in self.inputs.items()}
        files |= {name: changed(file) for name, file in files.items() if not is_hub(file)}
        return replace(self, inputs={name: {**one, "file": files[name]} for name, one in self.inputs.items()})

    def other_versions(self) -> dict[str, tuple[str, str]]:
        """Package to (version then, version now) where they differ: the result may too, in its last bits."""
        now = package_versions()
        return {name: (then, now[name]) for name, then in self.versions.items() if name in now and then != now[name]}


def recipe_of(
    vectors: TaskVectors,
    slug: str,
    parameters: Mapping[str, Any],
    scale: float | None,
    origin: str | None,
    dtype: str | None,
    **more: Any,
) -> Recipe:
    """The recipe of a merge of these inputs, whose content it hashes; ``more`` are further fields."""
    return Recipe(
        inputs_of(vectors),
        slug,
        dict(parameters),
        scale,
        origin,
        dtype,
        qkv_of(vectors),
        tolerance=vectors.tolerance,
        zoo=vectors.zoo,
        fit=vectors.fit.to_data(),
        left_out=vectors.report.left_out,
        plugin=plugin_of(slug),
        mix=vectors.mix,
        versions=package_versions(),
        **more,
    )


def plugin_of(slug: str) -> dict[str, str] | None:
    """Name and hash of the plugin that a method comes from; None of a built-in one. Raises InputError for an unknown method."""
    origin = method(slug).origin
    return origin.to_dict() if origin else None


def checked_plugin(slug: str, wanted: Mapping[str, str] | None) -> dict[str, str] | None:
    """``plugin_of`` as far as the method is known; raises InputError where the recipe wants another plugin than there is.

    Nothing is loaded: a recipe only names the code that it needs.
    """
    known = methods().get(slug)
    origin = known.origin if known else None
    if wanted and (origin is None or origin.sha256 != wanted["sha256"]):
        got = f"{shown(origin.name)} with {origin.sha256}" if origin else "the method that is built in" if known else "none"
        expected = f"the plugin {shown(wanted['name'])} with sha256 {wanted['sha256']} for the method {shown(slug)}"
        raise InputError(f"plugin: expected {expected}, got {got}")
    return origin.to_dict() if origin else None


def qkv_of(vectors: TaskVectors) -> str:
    """How attention's q, k and v are merged, "split" or "fused"; "stored" where there is no such choice to be told."""
    return vectors.qkv if vectors.qkv in QKV else STORED


def inputs_of(vectors: TaskVectors, *, hashed: bool = True) -> dict[str, dict[str, str]]:
    """Path and content hash of the base and every expert; of a zoo, which is found by its own name, the names of the files.

    What lies in the hub's cache is called by its name on the hub, with the commit.

    Hashing reads everything once; without ``hashed`` there are only paths.
    """
    if vectors.base and BASE in vectors.experts:
        raise InputError(f"task: expected another name than {BASE!r}, which is the base model's")
    sources = {**({BASE: vectors.base} if vectors.base else {}), **vectors.experts}
    files = {name: one.path.name if vectors.zoo else name_in_cache(one.path) or str(one.path) for name, one in sources.items()}
    if not hashed:
        return {name: {"file": files[name]} for name in sources}
    with ThreadPoolExecutor(min(len(sources), os.cpu_count() or 1)) as pool:  # hashing leaves Python's lock to others
        hashes = list(pool.map(lambda one: one.fingerprint, sources.values()))
    return {name: {"file": files[name], "sha256": found} for name, found in zip(sources, hashes, strict=True)}


def check_scale(scale: Any) -> float:
    """The scale α as a float; raises InputError for anything but a finite number."""
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) <= MAX_SCALE:
        raise InputError(f"scale: expected a number in [-{MAX_SCALE:g}, {MAX_SCALE:g}], got {scale!r}")
    return float(scale)


def check_tolerance(tolerance: Any) -> float:
    """The relative residual that an SVD may have, as a float; raises InputError for anything that it cannot be."""
    found = TOLERANCE.check("tolerance", tolerance)
    assert found is not None  # there is no "auto" that None could stand for
    return found


def package_versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {"dcmerge": _version("dcmerge"), "torch": str(torch.__version__)}


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"


def _named(path: str | Path, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except InputError as error:
        text = str(error)
        raise error if shown(path) in text else InputError(f"{shown(path)}: {text}") from None


def _spelled_out(declared: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """ "auto", as ``--set`` takes it, is None where a parameter has such a value."""
    automatic = {name for name, one in declared.items() if isinstance(one.constraint, Number) and one.constraint.auto}
    return {name: None if name in automatic and value == "auto" else value for name, value in values.items()}


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "inputs": inputs_field,
    "method": text_field,
    "parameters": mapping_field,
    "scale": lambda name, value: check_scale(value),
    "scale_origin": text_field,
    "dtype": text_field,
    "qkv": one_of(QKV),
    "content": one_of(CONTENTS),
    "adapter_rank": rank_field,
    "task": text_field,
    "arithmetic": one_of(tuple(ARITHMETIC)),
    "tolerance": lambda name, value: check_tolerance(value),
    "zoo": text_field,
    "fit": lambda name, value: Fit.of(value).to_data(),
    "left_out": texts_field,
    "plugin": plugin_field,
    "mix": lambda name, value: Mix.from_data(value),
    "versions": versions_field,
}
