"""What a mergekit configuration means here: our method, its parameters, α, and what differs between models or over the layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.vectors.mix import CONSTANT, Profile, profile, value_at
from dcmerge.vectors.naming import Depth

#: Whether the base is one of the models that are merged.
BASE_COUNTS = ("linear", "slerp", "karcher")
_ELECTING = ("ties", "dare_ties")
_KARCHER_TOLERANCE = 1e-5


class Found(NamedTuple):
    """Our slug and parameters, α, where α comes from, and what differs between models or over the layers."""

    slug: str
    parameters: dict[str, Any]
    scale: float
    origin: str
    weights: Mapping[str, Profile] = MappingProxyType({})
    depth: Profile = CONSTANT


@dataclass(frozen=True)
class Config:
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

    def profile(self, name: str, default: float) -> Profile:
        """A setting of all models, as a gradient over the layers or one number."""
        return _profile(name, self.shared.get(name, default), self.method)

    def weights(self) -> dict[str, Profile]:
        """The weight of every model, as a gradient over the layers or one number."""
        of_all = self.shared.get("weight")
        return {one: _profile("weight", self.own.get(one, {}).get("weight", of_all), shown(one)) for one in self.models}

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


def _plain(name: str, value: Any) -> Any:
    """One value for all layers; mergekit's conditions and gradients are refused by name."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, Mapping) for part in parts):
        raise InputError(f"{name}: expected one value for the whole model, got a filter of parameters")
    if isinstance(value, list):
        raise InputError(f"{name}: expected one value for the whole model, got a gradient over the layers")
    return value


def _profile(name: str, value: Any, whose: str) -> Profile:
    """mergekit's gradient, interpolated between the first and the last layer as ours are; of one number a constant."""
    if not isinstance(value, list) or not value:
        return (_number(name, value or None if isinstance(value, list) else value, whose),)
    return profile([_number(name, one, whose) for one in value], name)


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


def translated(config: Config) -> Found:
    _check_models(config)
    if config.method == "linear":
        return _linear(config)
    if config.method == "model_stock":
        if config.flag("filter_wise", False):
            raise InputError("filter_wise: expected false, angles of whole parameters, got true")
        return Found("model_stock", {"limit": False}, 1.0, "model_stock")
    if config.method == "slerp":
        return Found("slerp", {"position": config.number("t")}, 1.0, "slerp")
    if config.method == "karcher":
        if (tolerance := config.number("tol", _KARCHER_TOLERANCE)) != _KARCHER_TOLERANCE:
            raise InputError(f"tol: expected {_KARCHER_TOLERANCE:g}, got {tolerance:g}")
        return Found("karcher", {"iterations": config.number("max_iter", 10)}, 1.0, "karcher")
    return _of_task_vectors(config)


def _check_models(config: Config) -> None:
    needs_base = config.method not in ("linear", "karcher")
    if needs_base and config.base is None:
        raise InputError(f"base_model: {config.method} asks for one, got none")
    if not config.models:
        raise InputError("models: expected one besides base_model, got none")
    if config.method == "model_stock" and len(config.models) < 2:
        raise InputError("models: model_stock asks for two besides base_model, got one")
    if config.method == "slerp" and len(config.models) != 2:
        raise InputError(f"models: slerp asks for base_model and one other, got {len(config.models)}")


def _linear(config: Config) -> Found:
    weights = config.weights()
    sums = _sums(weights.values())
    if config.flag("normalize", True):
        if any(abs(one) < 1e-9 for one in sums):
            raise InputError("weight: expected weights whose sum is not 0 where they are normalised")
    elif any(abs(one - 1) > 1e-9 for one in sums):
        raise InputError(f"weight: expected weights that sum to 1, or normalize, got a sum of {_span(sums)}")
    if _same(weights):
        return Found("average", {}, 1.0, "equal weights")
    return Found("average", {}, 1.0, "a mean by weight", weights)


def _same(weights: Mapping[str, Profile]) -> bool:
    """Whether every model has one and the same number."""
    return len(set(weights.values())) == 1 and all(len(values) == 1 for values in weights.values())


def _sums(profiles: Iterable[Profile]) -> list[float]:
    """Σ of the weights wherever one of them bends: a sum of lines is a line between."""
    found = list(profiles)
    places = sorted({Fraction(k, max(1, len(values) - 1)) for values in found for k in range(len(values))})
    depths = [Depth(place.numerator, place.denominator + 1) if place else None for place in places]
    return [sum(value_at(values, depth) for values in found) for depth in depths]


def _span(values: Iterable[float]) -> str:
    low, high = min(found := list(values)), max(found)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _of_task_vectors(config: Config) -> Found:
    """The family of base + λ Σ w · (something done to each delta)."""
    weights, scale, electing = config.weights(), config.profile("lambda", 1.0), config.method in _ELECTING
    normalize = config.flag("normalize", config.method == "ties")
    if config.flag("int8_mask", False):
        raise InputError("int8_mask: expected false (it saves mergekit memory and changes no result: leave it out), got true")
    every = [value for values in weights.values() for value in values]
    if min(every) <= 0 and (electing or normalize):
        raise InputError(f"weight: expected more than 0 where signs are elected or weights normalised, got {min(every):g}")
    said = f"lambda {_span(scale)}"
    origin = f"weight {_span(every)}, {said}, normalize {str(normalize).lower()}"
    depth, alpha = (CONSTANT, scale[0]) if len(scale) == 1 else (scale, 1.0)
    if _same(weights):
        alpha *= every[0] if not normalize else 1.0 if electing else 1 / len(config.models)
        slug, parameters = _family(config, electing, normalize)
        return Found(slug, parameters, alpha, origin, {}, depth)
    if normalize and not electing:
        if config.method == "task_arithmetic":
            return Found("average", {}, alpha, origin, weights, depth)
        if any(len(values) > 1 for values in weights.values()):
            raise InputError(f"weight: expected one number a model where {config.method} normalises, got a gradient")
        weights = {model: (values[0] / sum(every),) for model, values in weights.items()}
    slug, parameters = _family(config, electing, normalize)
    return Found(slug, parameters, alpha, origin, weights, depth)


def _family(config: Config, electing: bool, normalize: bool) -> tuple[str, dict[str, Any]]:
    """Our slug and parameters for what is done to each delta and how they are added."""
    if config.method == "task_arithmetic":
        return "task_arithmetic", {}
    aggregate, density = "mean" if normalize else "sum", min(1.0, config.each("density", 1.0))
    rescale = config.flag("rescale", config.method.startswith("dare"))
    if config.method.startswith("dare"):
        combine = f"elected_{aggregate}" if electing else "sum"
        return "dare", {"density": density, "rescale": "l1" if rescale else "none", "combine": combine}
    if rescale:
        raise InputError(f"rescale: expected false, {config.method} here leaves what it keeps as it is, got true")
    if config.method == "ties":
        return "ties", {"density": density, "aggregate": aggregate, "trim": "parameter"}
    gamma = config.each("gamma", 0.01) if density < 1 else 0.0
    if density + gamma > 1:
        raise InputError(f"gamma: expected at most 1 - density = {1 - density:g}, got {gamma:g}")
    return "breadcrumbs", {"form": "mergekit", "density": density, "gamma": gamma}
