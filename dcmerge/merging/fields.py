"""The fields of a recipe, checked one by one: each takes the field's name and a value, and gives it back or raises InputError."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def text_field(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{name}: expected a text, got {value!r:.200}")
    return value


def texts_field(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{name}: expected a list of texts, got {value!r:.200}")
    return tuple(text_field(name, one) for one in value)


def mapping_field(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise InputError(f"{name}: expected names with values, got {value!r:.200}")
    return dict(value)


def inputs_field(name: str, value: Any) -> dict[str, dict[str, str]]:
    return {text_field(name, task): _input(f"{name}.{shown(task)}", entry) for task, entry in mapping_field(name, value).items()}


def _input(name: str, value: Any) -> dict[str, str]:
    return _hashed(name, value, "file")


def plugin_field(name: str, value: Any) -> dict[str, str]:
    found = _hashed(name, value, "name")
    if "sha256" not in found:
        raise InputError(f"{name}.sha256: expected 64 hexadecimal digits, got none")
    return found


def _hashed(name: str, value: Any, what: str) -> dict[str, str]:
    """{``what``, "sha256"} of one thing with a hash, which may be missing."""
    entry = mapping_field(name, value)
    if unknown := sorted(set(entry) - {what, "sha256"}):
        raise InputError(f"{name}: expected {what} and sha256, got the unknown key {shown(unknown[0])!r}")
    found = {what: text_field(f"{name}.{what}", entry.get(what))}
    if entry.get("sha256") is None:
        return found
    digest = entry["sha256"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise InputError(f"{name}.sha256: expected 64 hexadecimal digits, got {digest!r:.200}")
    return found | {"sha256": digest}


def one_of(options: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in options:
            raise InputError(f"{name}: expected one of {', '.join(options)}, got {value!r:.200}")
        return value

    return check


def rank_field(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name}: expected a rank of at least 1, got {value!r:.200}")
    return value


def versions_field(name: str, value: Any) -> dict[str, str]:
    return {package: text_field(f"{name}.{shown(package)}", text) for package, text in mapping_field(name, value).items()}
