"""What a job does, as plain data that is checked before the job is accepted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from dcmerge.errors import InputError
from dcmerge.evaluation import EXPERTS, ZERO_SHOT
from dcmerge.merging.recipe import GIVEN, check_scale
from dcmerge.methods import method
from dcmerge.sets.model_sets import available, roots, sets_with_images
from dcmerge.studies.comparison import row_names
from dcmerge.zoo import ZOOS

AUTO = "auto"
SPLITS = ("test", "val")
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class MethodChoice:
    """A method with its parameters, those with default values included."""

    slug: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any) -> MethodChoice:
        """From a slug, or from {"slug", "parameters"}; raises InputError for an unknown method or a bad parameter."""
        found = {"slug": data} if isinstance(data, str) else data
        _check_fields("method", found, cls)
        slug, parameters = found.get("slug"), found.get("parameters") or {}
        if not isinstance(slug, str) or not isinstance(parameters, Mapping):
            raise InputError(f"method: expected a slug and a mapping of parameters, got {slug!r} and {parameters!r}")
        return cls(slug, method(slug).check(parameters))


@dataclass(frozen=True)
class Compare:
    """A comparison of methods on a set with tasks; every row is a step of its own. Limits are images a task."""

    kind: ClassVar[str] = "compare"

    set: str
    methods: tuple[MethodChoice, ...]
    split: str = "test"
    limit: int | None = None
    val_limit: int | None = None
    diagnosed: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Compare:
        """Raises InputError for anything that the comparison could not run with."""
        name = _checked_set(data.get("set"))
        if name not in (with_images := sets_with_images()):
            raise InputError(f"set: expected one with tasks to compare on ({', '.join(with_images)}), got {name!r}")
        given = data.get("methods")
        if not isinstance(given, (list, tuple)) or not given:
            raise InputError(f"methods: expected a list of at least one method, got {given!r}")
        chosen = tuple(map(MethodChoice.of, given))
        slugs = [choice.slug for choice in chosen]
        if twice := sorted({slug for slug in slugs if slugs.count(slug) > 1}):
            raise InputError(f"methods: expected every method once, got {', '.join(twice)} more than once")
        split = data.get("split", "test")
        if split not in SPLITS:
            raise InputError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        limits = _limit("limit", data), _limit("val_limit", data)
        return cls(name, chosen, split, *limits, _flag("diagnosed", data))

    @property
    def label(self) -> str:
        titles = [method(choice.slug).title for choice in self.methods]
        what = ", ".join(titles) if len(titles) <= 2 else f"{len(titles)} methods"
        return f"Compare {what} on {self.set}"

    @property
    def steps(self) -> tuple[str, ...]:
        """The rows in order."""
        return (ZERO_SHOT, *row_names([choice.slug for choice in self.methods]), EXPERTS)


@dataclass(frozen=True)
class Merge:
    """A merged model in a file. Without a ``scale``, α is chosen on validation, or is the method's usual one without tasks."""

    kind: ClassVar[str] = "merge"
    steps: ClassVar[tuple[str, ...]] = ("target", "scale", "file")

    set: str
    method: MethodChoice
    out: str
    scale: float | None = None
    delta_only: bool = False
    scale_origin: str = GIVEN
    val_limit: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Merge:
        """Raises InputError for anything that the merge could not run with, an existing file ``out`` included."""
        scale = data.get("scale")
        scale = None if scale in (None, AUTO) else check_scale(scale)
        delta_only = _flag("delta_only", data)
        given = data.get("method")
        choice = MethodChoice.of({"slug": given, "parameters": data.get("parameters")} if isinstance(given, str) else given)
        out = checked_target(data.get("out"))
        origin = data.get("scale_origin", GIVEN)
        if not isinstance(origin, str) or not origin:
            raise InputError(f"scale_origin: expected a text, got {origin!r}")
        return cls(_checked_set(data.get("set")), choice, str(out), scale, delta_only, origin, _limit("val_limit", data))

    @property
    def label(self) -> str:
        return f"Merge {self.set} by {method(self.method.slug).title}"


Specification = Compare | Merge
KINDS = {kind.kind: kind for kind in (Compare, Merge)}
#: A merge may name its parameters beside the method, as the command line does.
_BESIDE = {"merge": ("parameters",), "compare": ()}


def specification(data: Mapping[str, Any] | Specification) -> Specification:
    """The checked form of {"kind": "compare" or "merge", ...}; raises InputError for anything that could not run."""
    data = to_data(data) if isinstance(data, (Compare, Merge)) else data
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {data!r:.200}")
    _check_fields(kind, data, KINDS[kind], "kind", *_BESIDE[kind])
    return KINDS[kind].of(data)


def to_data(spec: Specification) -> dict[str, Any]:
    """Plain data, from which ``specification`` makes the same again."""
    return {"kind": spec.kind, **asdict(spec)}


def plugins_for(spec: Specification) -> tuple[tuple[str, str], ...]:
    """Path and hash of every file that brings one of the methods: the worker, a process of its own, loads it again."""
    choices = spec.methods if isinstance(spec, Compare) else (spec.method,)
    origins = [origin for choice in choices if (origin := method(choice.slug).origin)]
    return tuple(dict.fromkeys((origin.path, origin.sha256) for origin in origins if origin.path))


def checked_target(out: Any) -> Path:
    """The file to write as an absolute path; raises InputError where it exists or could not be written."""
    if not isinstance(out, (str, Path)) or "\0" in str(out) or Path(out).suffix != SUFFIX:
        raise InputError(f"out: expected a file name that ends in {SUFFIX}, got {out!r}")
    path = Path(os.path.abspath(out))
    if not path.parent.is_dir():
        raise InputError(f"out: expected an existing folder, got {path.parent}")
    if os.path.lexists(path):
        raise InputError(f"out: expected a new file, {path} exists already")
    return path


def _checked_set(name: Any) -> str:
    if isinstance(name, str) and name in ZOOS:
        return name
    known = available(roots())
    if not isinstance(name, str) or name not in known:
        raise InputError(f"set: expected one of {', '.join(known)}, got {name!r}")
    return name


def _limit(name: str, data: Mapping[str, Any]) -> int | None:
    value = data.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name}: expected at least 1 image a task or none for all, got {value!r}")
    return value


def _flag(name: str, data: Mapping[str, Any]) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected true or false, got {value!r}")
    return value


def _check_fields(what: str, data: Any, kind: type, *more: str) -> None:
    known = [*more, *(field.name for field in fields(kind))]
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: expected {', '.join(known)}, got {data!r}")
    for name in data:
        if name not in known:
            raise InputError(f"{what}: expected {', '.join(known)}, got the unknown field {name!r}")
