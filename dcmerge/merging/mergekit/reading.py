"""mergekit's configuration read: every key known, every value expressed here, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.merging.mergekit.meaning import BASE_COUNTS, Config, Found, translated
from dcmerge.merging.recipe import BASE, Recipe

METHOD_KEY = "merge_method"
_KNOWN = (METHOD_KEY, "base_model", "models", "parameters", "dtype", "out_dtype")
_REFUSED = {
    "slices": "slices of layers",
    "modules": "modules",
    "tokenizer_source": "another tokenizer",
    "tokenizer": "another tokenizer",
    "chat_template": "a chat template",
}
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_SHARED = ("int8_mask", "normalize", "rescale", "lambda")
#: What each method of mergekit reads: for all models, and for each.
_PARAMETERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "linear": (("normalize",), ("weight",)),
    "task_arithmetic": (("int8_mask", "normalize", "lambda"), ("weight",)),
    "ties": (_SHARED, ("weight", "density")),
    "dare_linear": (_SHARED, ("weight", "density")),
    "dare_ties": (_SHARED, ("weight", "density")),
    "breadcrumbs": (_SHARED, ("weight", "density", "gamma")),
    "model_stock": (("filter_wise",), ()),
    "slerp": (("t",), ()),
    "karcher": (("max_iter", "tol"), ()),
}


def from_mergekit(document: Mapping[str, Any], where: str = "mergekit") -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of a mergekit configuration, and notes on it; paths are as the configuration has them.

    Raises InputError, which names what it is, for anything that no method here expresses: slices, filters, gradients of anything
    but weight and lambda, other tokenizers, adapters, other methods.
    """
    try:
        config, notes = _read(document)
        found, names = translated(config), _names(config)
        recipe = Recipe.of(
            {
                "inputs": {BASE: {"file": config.base or config.models[0]}} | {name: {"file": f} for f, name in names.items()},
                "method": found.slug,
                "parameters": found.parameters,
                "scale": found.scale,
                "scale_origin": f"mergekit: {found.origin}",
                "dtype": _dtype(document),
                "mix": _mix(found, names),
            }
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if config.method.startswith("dare"):
        notes.append("the random draws are not mergekit's: as many entries are kept, but other ones")
    if document.get("dtype") in _DTYPES[:2]:
        notes.append(f"mergekit computes in {document['dtype']}; here it is float32, rounded once at the end")
    return recipe, tuple(notes)


def _read(document: Mapping[str, Any]) -> tuple[Config, list[str]]:
    for key, value in document.items():
        if key in _REFUSED and value is not None:
            raise InputError(f"{key}: dcmerge merges whole models as they are, expected none, got {_REFUSED[key]}")
        if key not in (*_KNOWN, *_REFUSED):
            raise InputError(f"expected {', '.join(_KNOWN)}, got the unknown key {shown(key)!r}")
    name = document[METHOD_KEY]
    if not isinstance(name, str) or name not in _PARAMETERS:
        raise InputError(f"{METHOD_KEY}: expected one of {', '.join(_PARAMETERS)}, got {name!r:.100}")
    entries = document.get("models")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"models: expected a list of models, got {entries!r:.100}")
    base = None if document.get("base_model") is None else _reference("base_model", document["base_model"])
    own: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        model, settings = _model(entry)
        if model in own:
            raise InputError(f"models: expected every model once, got {shown(model)} twice")
        own[model] = settings
    shared = _settings("parameters", document.get("parameters"))
    notes = _unused(name, base, shared, own)
    models = [model for model in own if name in BASE_COUNTS or model != base]
    if name in BASE_COUNTS and base not in (None, *models):
        models.append(base)  # as mergekit does
    if name == "slerp":
        models.sort(key=lambda model: model != base)  # it starts there, wherever the base stands in the list
    return Config(name, base, tuple(models), shared, own), notes


def _unused(name: str, base: str | None, shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the file sets and mergekit's method does not read."""
    for_all, for_each = _PARAMETERS[name]
    unread = {key for key in shared if key not in (*for_all, *for_each)}
    for model, settings in own.items():
        reads = () if model == base and name not in BASE_COUNTS else for_each
        unread |= {f"{key} of {model}" for key in settings if key not in reads}
    return [f"{shown(key)} has no effect on {name}" for key in sorted(unread)]


def _model(entry: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(entry, Mapping) or "model" not in entry or set(entry) - {"model", "parameters"}:
        raise InputError(f"models: expected entries with model and parameters, got {entry!r:.100}")
    return _reference("model", entry["model"]), _settings("parameters", entry.get("parameters"))


def _reference(key: str, value: Any) -> str:
    """A plain path. An adapter on top or a revision of the hub is refused, as is another architecture."""
    if isinstance(value, Mapping):
        for name in ("lora", "override_architecture", "revision"):
            if value.get(name) is not None:
                raise InputError(f"{key}: expected a local path alone, got {name} {value[name]!r:.100}")
        if set(value) - {"model", "path", "lora", "override_architecture", "revision"}:
            raise InputError(f"{key}: expected a local path, got {value!r:.100}")
        value = value.get("model", value.get("path"))
        if isinstance(value, Mapping):
            return _reference(key, value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{key}: expected a local path, got {value!r:.100}")
    for sign, what in (("+", "an adapter on top of it"), ("@", "a revision")):
        if sign in value:
            raise InputError(f"{key}: expected a local path alone, got {what}: {shown(value)}")
    return value


def _settings(key: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{key}: expected names with values, got {value!r:.100}")
    return value


def _dtype(document: Mapping[str, Any]) -> str | None:
    """What is written: out_dtype, or dtype."""
    for key in ("dtype", "out_dtype"):
        if document.get(key) not in (None, *_DTYPES):
            raise InputError(f"{key}: expected one of {', '.join(_DTYPES)}, got {document[key]!r:.100}")
    return document.get("out_dtype") or document.get("dtype")


def _names(config: Config) -> dict[str, str]:
    """Experts' names, made of their paths, by path."""
    found: dict[str, str] = {}
    for model in config.models:
        stem = PurePath(model).name or model
        names = [stem, *(f"{stem}-{number}" for number in range(2, len(config.models) + 3))]
        found[model] = next(name for name in names if name not in (BASE, *found.values()))
    return found


def _mix(found: Found, names: Mapping[str, str]) -> dict[str, Any]:
    """The recipe's mix: constant weights as such, gradients as profiles."""
    by_name = {names[model]: values for model, values in found.weights.items()}
    return {
        "weights": {name: values[0] for name, values in by_name.items() if len(values) == 1},
        "depths": {name: values for name, values in by_name.items() if len(values) > 1},
        "depth": found.depth,
    }
