"""What the specifications of jobs share: a method with its parameters, and the checks of single fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dcmerge.errors import InputError
from dcmerge.merging.recipe import GIVEN, check_scale
from dcmerge.methods import method
from dcmerge.sets.model_sets import available, roots, sets_with_images
from dcmerge.vectors.mix import Mix
from dcmerge.zoo import ZOOS

AUTO = "auto"
SPLITS = ("test", "val")


@dataclass(frozen=True)
class MethodChoice:
    """A method with its parameters, those with default values included."""

    slug: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any) -> MethodChoice:
        """From a slug, or from {"slug", "parameters"}; raises InputError for an unknown method or a bad parameter."""
        found = {"slug": data} if isinstance(data, str) else data
        check_fields("method", found, cls)
        slug, parameters = found.get("slug"), found.get("parameters") or {}
        if not isinstance(slug, str) or not isinstance(parameters, Mapping):
            raise InputError(f"method: expected a slug and a mapping of parameters, got {slug!r} and {parameters!r}")
        return cls(slug, method(slug).check(parameters))


def checked_set(name: Any) -> str:
    if isinstance(name, str) and name in ZOOS:
        return name
    known = available(roots())
    if not isinstance(name, str) or name not in known:
        raise InputError(f"set: expected one of {', '.join(known)}, got {name!r}")
    return name


def set_with_images(name: Any) -> str:
    checked = checked_set(name)
    if checked not in (with_images := sets_with_images()):
        raise InputError(f"set: expected one with tasks to evaluate on ({', '.join(with_images)}), got {checked!r}")
    return checked


def one_method(data: Mapping[str, Any]) -> MethodChoice:
    given = data.get("method")
    return MethodChoice.of({"slug": given, "parameters": data.get("parameters")} if isinstance(given, str) else given)


def mix_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The mix as in a recipe, checked as far as that goes without the models; raises InputError."""
    return Mix.from_data(data.get("mix") or {}).to_data()


def scale_of(data: Mapping[str, Any]) -> tuple[float | None, str]:
    """α, None where it is to be found, and where it is from."""
    scale, origin = data.get("scale"), data.get("scale_origin", GIVEN)
    if not isinstance(origin, str) or not origin:
        raise InputError(f"scale_origin: expected a text, got {origin!r}")
    return None if scale in (None, AUTO) else check_scale(scale), origin


def split_of(data: Mapping[str, Any]) -> str:
    split = data.get("split", "test")
    if split not in SPLITS:
        raise InputError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return split


def limit_of(name: str, data: Mapping[str, Any]) -> int | None:
    value = data.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name}: expected at least 1 image a task or none for all, got {value!r}")
    return value


def flag_of(name: str, data: Mapping[str, Any], default: bool = False) -> bool:
    value = data.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected true or false, got {value!r}")
    return value


def check_fields(what: str, data: Any, kind: type, *more: str) -> None:
    known = [*more, *(field.name for field in fields(kind))]
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: expected {', '.join(known)}, got {data!r}")
    for name in data:
        if name not in known:
            raise InputError(f"{what}: expected {', '.join(known)}, got the unknown field {name!r}")
