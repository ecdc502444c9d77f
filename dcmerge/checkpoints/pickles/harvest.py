"""The named tensors in what a pickle held: those of ``module.state_dict()``, without a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, cast

from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.pickles.reading import PickleFile
from dcmerge.checkpoints.pickles.vocabulary import Described, Refused, Stub
from dcmerge.checkpoints.state_dicts import NESTED_UNDER

#: How the classes of a TorchScript program are called.
_SCRIPT = "__torch__."
_DEEPEST, _MOST_TENSORS, _MOST_MODULES = 200, 200_000, 200_000


class _Module(Protocol):
    """A stub whose state has the tables of ``torch.nn.Module`` (see ``_is_module``)."""

    state: dict[str, Any]


@dataclass(frozen=True)
class Harvest:
    """``tensors`` in the order of a state dict; ``source`` says what they were found in; ``left_out`` what else was there."""

    tensors: dict[str, Described]
    source: str
    left_out: tuple[str, ...] = ()


def harvest(file: PickleFile) -> Harvest:
    """Every named tensor of a module, of a state dict, or of either below a usual name. Raises Refused where there is none."""
    found, where, beside = _whole(file.content)
    tensors: dict[str, Described] = {}
    left_out = list(beside)
    for name, value in _named(found, left_out):
        if name in tensors or name == "__metadata__":
            raise Refused(f"the name {shown(name)} twice" if name in tensors else "a tensor called __metadata__")
        tensors[name] = file.check(name, value)
        if len(tensors) > _MOST_TENSORS:
            raise Refused(f"more than {_MOST_TENSORS} tensors")
    if not tensors:
        raise Refused(f"{where} without a tensor")
    total = sum(_nbytes(tensor) for tensor in tensors.values())
    if total > 4 * file.size:
        raise Refused(f"the same numbers again and again: {total} bytes from a file of {file.size}")
    return Harvest(tensors, where, tuple(left_out))


def _named(found: Any, left_out: list[str]) -> Iterator[tuple[str, object]]:
    if isinstance(found, Mapping):
        return _of_mapping(found, left_out)
    return _of_script(found) if _is_script(found) else _of_module(found)


def _is_script(value: object) -> bool:
    """A module of a TorchScript program, whose state is its attributes: tensors, modules and settings."""
    state = getattr(value, "state", None) if isinstance(value, Stub) else None
    return isinstance(state, dict) and type(value).__qualname__.startswith(_SCRIPT)


def _of_script(root: _Module) -> Iterator[tuple[str, object]]:
    """The tensors of a TorchScript module and of the modules in it, by their attributes' names. The program is not read."""
    for prefix, module in _walk(
        root, lambda module, _: [(n, v) for n, v in module.state.items() if isinstance(n, str) and _is_script(v)]
    ):
        own = [(name, value) for name, value in module.state.items() if isinstance(name, str)]
        yield from ((f"{prefix}{name}", value) for name, value in own if isinstance(value, Described))


def _walk(root: _Module, children: Callable[[_Module, str], Iterable[tuple[str, _Module]]]) -> Iterator[tuple[str, _Module]]:
    """A module and those within it, each with the prefix of its names, in their order. Raises Refused where there is no end."""
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_MODULES:
            raise Refused(f"modules within modules without an end, more than {_DEEPEST} deep or {_MOST_MODULES} in all")
        yield prefix, module
        waiting += reversed([(f"{prefix}{name}.", child, depth + 1) for name, child in children(module, prefix)])


def _whole(content: object) -> tuple[_Module | Mapping[object, object], str, list[str]]:
    """The module or state dict, what to call it, and the names of what lies beside it."""
    if _is_script(content):
        return cast(_Module, content), "a TorchScript program", []
    if _is_module(content):
        return content, f"the module {type(content).__qualname__}", []
    if isinstance(content, Described):
        raise Refused("one tensor without a name")
    if not isinstance(content, Mapping):
        kind = type(content).__qualname__ if isinstance(content, Stub) else type(content).__name__
        raise Refused(f"a {kind}, which is neither a module nor a state dict")
    modules = [key for key, value in content.items() if _is_module(value)]
    keys = [key for key in NESTED_UNDER if isinstance(content.get(key), Mapping) or key in modules]
    if not keys and len(modules) == 1 and not any(isinstance(value, Described) for value in content.values()):
        keys = modules
    if not keys:
        return content, "a state dict", []
    inner = content[keys[0]]
    what = f"the module {type(inner).__qualname__}" if _is_module(inner) else "a state dict"
    return inner, what, [str(key) for key in content if key != keys[0]]


def _is_module(value: object) -> TypeGuard[_Module]:
    """An object with the three tables of ``torch.nn.Module``, whatever its class."""
    state = getattr(value, "state", None) if isinstance(value, Stub) else None
    return isinstance(state, dict) and all(isinstance(state.get(key), dict) for key in ("_parameters", "_buffers", "_modules"))


def _of_module(root: _Module) -> Iterator[tuple[str, object]]:
    """As ``Module.state_dict``: parameters, buffers that are to be saved, then the modules within, each in its order."""
    for prefix, module in _walk(root, _within):
        yield from ((f"{prefix}{name}", value) for name, value in _own(module.state))


def _within(module: _Module, prefix: str) -> Iterator[tuple[str, _Module]]:
    for name, child in module.state["_modules"].items():
        if child is not None and not (isinstance(name, str) and _is_module(child)):
            raise Refused(f"{shown(prefix)}{shown(name)}, which is no module")
        if child is not None:
            yield name, child


def _own(state: Mapping[str, dict]) -> Iterator[tuple[str, object]]:
    """A module's own parameters and buffers; before PyTorch 1.6 every buffer was saved."""
    unsaved = state.get("_non_persistent_buffers_set", ())
    unsaved = unsaved if isinstance(unsaved, (set, frozenset)) else ()
    for table, skipped in (("_parameters", ()), ("_buffers", unsaved)):
        for name, value in state[table].items():
            if not isinstance(name, str):
                raise Refused(f"a parameter whose name is no text but a {type(name).__name__}")
            if value is not None and name not in skipped:
                yield name, value


def _of_mapping(table: Mapping[object, object], left_out: list[str]) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(name, str) and isinstance(value, Described):
            yield name, value
        else:
            left_out.append(str(name) if isinstance(name, (str, int)) else type(name).__name__)


def _nbytes(tensor: Described) -> int:
    count = tensor.dtype.itemsize
    for n in tensor.shape:
        count *= n
    return count
