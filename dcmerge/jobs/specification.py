"""What a job is to do, as plain data that is checked before it is queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dcmerge.errors import InputError
from dcmerge.methods import method
from dcmerge.model_sets import available, roots
from dcmerge.recipe import check_scale

Specification = dict[str, Any]


def checked(specification: Mapping[str, Any]) -> Specification:
    """The specification with all defaults filled in and every method's parameters validated.

    ``{"kind": "compare", "set", "methods": [{"slug", "parameters"}], "split", "limit", "val_limit", "diagnosed"}`` or
    ``{"kind": "merge", "set", "method", "parameters", "scale", "out", "delta_only", "task"}`` with scale a number, None for
    the method's usual one, or "auto" for the best on validation. Raises InputError for anything else.
    """
    kind = specification.get("kind")
    if kind not in _KINDS:
        raise InputError(f"job: expected the kind {' or '.join(_KINDS)}, got {kind!r}")
    known = {"kind", "set", *_KINDS[kind][0]}
    if unknown := [name for name in specification if name not in known]:
        raise InputError(f"job: expected {', '.join(sorted(known))}, got {', '.join(unknown)}")
    sets = available(roots())
    if specification.get("set") not in sets:
        raise InputError(f"set: expected one of {', '.join(sets)}, got {specification.get('set')!r}")
    defaults, check = _KINDS[kind]
    return check({**defaults, **specification})


def _comparison(found: Specification) -> Specification:
    if not isinstance(found["methods"], list) or not found["methods"]:
        raise InputError(f"methods: expected a list of at least one method, got {found['methods']!r}")
    chosen = [(method(one["slug"]), one.get("parameters", {})) for one in found["methods"]]
    for name in ("limit", "val_limit"):
        value = found[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}: expected a number of images from 1 on or none, got {value!r}")
    if found["split"] not in ("val", "test"):
        raise InputError(f"split: expected val or test, got {found['split']!r}")
    return {**found, "methods": [{"slug": one.slug, "parameters": one.check(given)} for one, given in chosen]}


def _merge(found: Specification) -> Specification:
    chosen = method(found["method"])
    if found["scale"] not in (None, "auto"):
        check_scale(found["scale"])
    out = found["out"]
    if not isinstance(out, str) or not out.endswith(".safetensors"):
        raise InputError(f"out: expected a file name that ends in .safetensors, got {out!r}")
    return {**found, "parameters": chosen.check(found["parameters"]), "out": str(Path(out).absolute())}


_Check = Callable[[Specification], Specification]
_KINDS: dict[str, tuple[dict[str, Any], _Check]] = {
    "compare": ({"methods": [], "split": "test", "limit": None, "val_limit": None, "diagnosed": False}, _comparison),
    "merge": ({"method": "", "parameters": {}, "scale": None, "out": "", "delta_only": False, "task": None}, _merge),
}


def label(specification: Mapping[str, Any]) -> str:
    """The job in a few words."""
    if specification["kind"] == "merge":
        return f"{method(specification['method']).title} of {specification['set']} into {Path(specification['out']).name}"
    names = [method(one["slug"]).title for one in specification["methods"]]
    shown = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
    return f"Compare {shown} on {specification['set']}"
