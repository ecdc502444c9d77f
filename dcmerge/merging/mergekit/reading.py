"""mergekit's configuration read: every key known, every value for the whole model, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
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
#: Whether the base is one of the models that are merged.
_BASE_COUNTS = ("linear", "slerp", "karcher")
_ELECTING = ("ties", "dare_ties")
_KARCHER_TOLERANCE = 1e-5


@dataclass(frozen=True)
class _Config:
    """A configuration whose models are plain paths: what is merged, and the settings of all and of each."""

    method: str
    base: str | None
    models: tuple[str, ...]
    shared: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]]

    def flag(self, name: str, default: bool) -> bool:
        value = _plain(name, self.shared.get(name, default))
        if not isinstance(value, bool):
            raise InputError(f"{name}: expected true or false, got {value!r:.100}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        return _number(name, self.shared.get(name, default), self.method)

    def each(self, name: str, default: float | None = None) -> float:
        """A setting of every model, which must be the same for all."""
        of_all = self.shared.get(name, default)
        found = [_number(name, self.own.get(one, {}).get(name, of_all), shown(one)) for one in self.models]
        if len(set(found)) > 1:
            raise InputError(
                f"{name}: expected the same for every model, got {', '.join(f'{v:g}' for v in found)}: no method "
                "here has one for each"
            )
        return found[0]


def from_mergekit(document: Mapping[str, Any], where: str = "mergekit") -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of a mergekit configuration, and notes on it; paths are as the configuration has them.

    Raises InputError, which names what it is, for anything that no method here expresses: slices, filters, gradients, weights
    that differ, other tokenizers, adapters, other methods.
    """
    try:
        config, notes = _read(document)
        slug, parameters, scale, origin = _translated(config)
        recipe = Recipe.of(
            {
                "inputs": _inputs(config),
                "method": slug,
                "parameters": parameters,
                "scale": scale,
                "scale_origin": f"mergekit: {origin}",
                "dtype": _dtype(document),
            }
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if config.method.startswith("dare"):
        notes.append("the random draws are not mergekit's: as many entries are kept, but other ones")
    if document.get("dtype") in _DTYPES[:2]:
        notes.append(f"mergekit computes in {document['dtype']}; here it is float32, rounded once at the end")
    return recipe, tuple(notes)


def _read(document: Mapping[str, Any]) -> tuple[_Config, list[str]]:
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
    models = [model for model in own if name in _BASE_COUNTS or model != base]
    if name in _BASE_COUNTS and base not in (None, *models):
        models.append(base)  # as mergekit does
    if name == "slerp":
        models.sort(key=lambda model: model != base)  # it starts there, wherever the base stands in the list
    return _Config(name, base, tuple(models), shared, own), notes


def _unused(name: str, base: str | None, shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the file sets and mergekit's method does not read."""
    for_all, for_each = _PARAMETERS[name]
    unread = {key for key in shared if key not in (*for_all, *for_each)}
    for model, settings in own.items():
        reads = () if model == base and name not in _BASE_COUNTS else for_each
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


def _plain(name: str, value: Any) -> Any:
    """One value for all layers; mergekit's conditions and ramps are refused by name."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, Mapping) for part in parts):
        raise InputError(f"{name}: expected one value for the whole model, got a filter of parameters")
    if isinstance(value, list):
        raise InputError(f"{name}: expected one value for the whole model, got a gradient over the layers")
    return value


def _number(name: str, value: Any, whose: str) -> float:
    value = _plain(name, value)
    if value is None:
        raise InputError(f"{name}: mergekit asks for one, got none for {whose}")
    if isinstance(value, str):  # as mergekit does: YAML takes some numbers for text
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise InputError(f"{name}: expected a number, got {value!r:.100} for {whose}")
    return float(value)


def _dtype(document: Mapping[str, Any]) -> str | None:
    """What is written: out_dtype, or dtype."""
    for key in ("dtype", "out_dtype"):
        if document.get(key) not in (None, *_DTYPES):
            raise InputError(f"{key}: expected one of {', '.join(_DTYPES)}, got {document[key]!r:.100}")
    return document.get("out_dtype") or document.get("dtype")


def _inputs(config: _Config) -> dict[str, dict[str, str]]:
    """Base and experts by names that are made of their paths."""
    inputs = {BASE: {"file": config.base or config.models[0]}}
    for model in config.models:
        stem = PurePath(model).name or model
        names = [stem, *(f"{stem}-{number}" for number in range(2, len(config.models) + 3))]
        inputs[next(name for name in names if name not in inputs)] = {"file": model}
    return inputs


def _translated(config: _Config) -> tuple[str, dict[str, Any], float, str]:
    """Our slug and parameters, α, and where α comes from."""
    _check_models(config)
    if config.method == "linear":
        return _linear(config)
    if config.method == "model_stock":
        if config.flag("filter_wise", False):
            raise InputError("filter_wise: expected false, angles of whole parameters, got true")
        return "model_stock", {"limit": False}, 1.0, "model_stock"
    if config.method == "slerp":
        return "slerp", {"position": config.number("t")}, 1.0, "slerp"
    if config.method == "karcher":
        if (tolerance := config.number("tol", _KARCHER_TOLERANCE)) != _KARCHER_TOLERANCE:
            raise InputError(f"tol: expected {_KARCHER_TOLERANCE:g}, got {tolerance:g}")
        return "karcher", {"iterations": config.number("max_iter", 10)}, 1.0, "karcher"
    return _of_task_vectors(config)


def _check_models(config: _Config) -> None:
    needs_base = config.method not in ("linear", "karcher")
    if needs_base and config.base is None:
        raise InputError(f"base_model: {config.method} asks for one, got none")
    if not config.models:
        raise InputError("models: expected one besides base_model, got none")
    if config.method == "model_stock" and len(config.models) < 2:
        raise InputError("models: model_stock asks for two besides base_model, got one")
    if config.method == "slerp" and len(config.models) != 2:
        raise InputError(f"models: slerp asks for base_model and one other, got {len(config.models)}")


def _linear(config: _Config) -> tuple[str, dict[str, Any], float, str]:
    weight = config.each("weight")
    total = weight * len(config.models)
    if config.flag("normalize", True):
        if not weight:
            raise InputError("weight: expected another number than 0 where weights are normalised")
    elif abs(total - 1) > 1e-9:
        raise InputError(f"weight: expected weights that sum to 1, or normalize, got a sum of {total:g}")
    return "average", {}, 1.0, "equal weights"


def _of_task_vectors(config: _Config) -> tuple[str, dict[str, Any], float, str]:
    """The family of base + λ Σ w · (something done to each delta)."""
    weight, scale, electing = config.each("weight"), config.number("lambda", 1.0), config.method in _ELECTING
    normalize = config.flag("normalize", config.method == "ties")
    if config.flag("int8_mask", False):
        raise InputError("int8_mask: expected false (it saves mergekit memory and changes no result: leave it out), got true")
    if weight <= 0 and (electing or normalize):
        raise InputError(f"weight: expected more than 0 where signs are elected or weights normalised, got {weight:g}")
    if not normalize:
        scale *= weight
    elif not electing:
        scale /= len(config.models)
    origin = f"weight {weight:g}, lambda {config.number('lambda', 1.0):g}, normalize {str(normalize).lower()}"
    aggregate = "mean" if normalize else "sum"
    if config.method == "task_arithmetic":
        return "task_arithmetic", {}, scale, origin
    density = min(1.0, config.each("density", 1.0))
    rescale = config.flag("rescale", config.method.startswith("dare"))
    if config.method.startswith("dare"):
        combine = f"elected_{aggregate}" if electing else "sum"
        return "dare", {"density": density, "rescale": "l1" if rescale else "none", "combine": combine}, scale, origin
    if rescale:
        raise InputError(f"rescale: expected false, {config.method} here leaves what it keeps as it is, got true")
    if config.method == "ties":
        return "ties", {"density": density, "aggregate": aggregate, "trim": "parameter"}, scale, origin
    gamma = config.each("gamma", 0.01) if density < 1 else 0.0
    if density + gamma > 1:
        raise InputError(f"gamma: expected at most 1 - density = {1 - density:g}, got {gamma:g}")
    return "breadcrumbs", {"form": "mergekit", "density": density, "gamma": gamma}, scale, origin
