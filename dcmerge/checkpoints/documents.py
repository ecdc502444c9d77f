"""YAML and JSON that people write, read as plain data: no code, no surprises, one sentence where something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from dcmerge.checkpoints.paths import checked_file, reason, shown
from dcmerge.errors import InputError

#: A recipe has a few kB; more is not one.
SIZE_LIMIT = 1 << 20
#: What a double needs has at most 25 digits.
_LONGEST_NUMBER = 100
#: Lists within lists: PyYAML takes time with the square of their depth, and whoever reads what it found a call for each.
_DEEPEST = 50


class _Loader(yaml.SafeLoader):
    """Plain data only; without aliases, which can unfold a small file to gigabytes, and without doubled keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _at("an alias (*name), expected every value written out", self.peek_event())
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """As PyYAML does, down to a depth: here, before it looks ahead for the end."""
        if self.flow_level >= _DEEPEST:
            raise InputError(f"got a text that is nested too deeply (more than {_DEEPEST} deep) in line {self.line + 1}")
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        if len(self.indents) >= _DEEPEST:
            raise InputError(f"got a text that is nested too deeply (more than {_DEEPEST} deep) in line {self.line + 1}")
        return super().add_indent(column)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML does, with one sentence for a value that is none of its kind (``!!int ""``)."""
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and isinstance(node, yaml.ScalarNode) and len(node.value) > _LONGEST_NUMBER:
            raise _at(f"a number of {len(node.value)} characters", node)
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, InputError, RecursionError):
            raise
        except Exception:  # PyYAML's own constructors take it for granted that a tag tells the truth
            raise _at(f"a value that is no {shown(kind)[:40]}", node) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise _at("a key that is not a plain name", key)
            if key.value in keys:
                raise _at(f"the key {key.value!r} twice", key)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Every value written out, also where the same object stands twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    # PyYAML writes some line breaks of Unicode as they are, and then reads spaces; in quotes it escapes them.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
# YAML 1.1 takes 1e-3 for text: it asks for a point. People and JSON write it without.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_document(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; raises InputError, which names the file, for anything else."""
    file = checked_file(path)
    try:
        with open(file, "rb") as stream:
            data = stream.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise InputError(f"Expected a file of at most {SIZE_LIMIT} bytes, {shown(file)} has more.")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"Expected a text file in UTF-8, got {shown(file)}.") from None
    except OSError as error:
        raise InputError(f"Cannot read {shown(file)}: {reason(error)}.") from None
    return parsed_document(text, shown(file))


def parsed_document(text: str, where: str = "the text") -> dict[str, Any]:
    """The mapping in a YAML or JSON text, its keys text; ``where`` is what an InputError calls it."""
    if len(text) > SIZE_LIMIT:
        raise InputError(f"Expected at most {SIZE_LIMIT} characters, {where} has {len(text)}.")
    try:
        found = _parsed(text)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: expected YAML or JSON, got a text that is neither ({_reason(error)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected names with values (a mapping), got {_kind(found)}")
    _check_keys(found, where)
    return found


def dumped_document(document: dict[str, Any]) -> str:
    """The mapping as YAML in its own order; ``parsed_document`` reads the same again."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_integer)
        except json.JSONDecodeError:
            pass  # YAML has braces of its own
    return yaml.load(text, _Loader)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"expected every key once, got the key {key!r} twice")
        found[key] = value
    return found


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise InputError(f"expected a number, got one of {len(text)} digits")
    return int(text)


def _no_constant(text: str) -> float:
    raise InputError(f"expected a finite number, got {text}")


def _check_keys(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where}: expected names of text, got {key!r} (put it in quotes)")
            _check_keys(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_keys(item, where)


def _at(what: str, place: Any) -> InputError:
    return InputError(f"got {what} in line {place.start_mark.line + 1}")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{shown(error.problem)} in line {error.problem_mark.line + 1}"
    return shown(reason(error))


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
