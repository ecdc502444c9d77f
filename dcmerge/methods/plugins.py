"""Methods from outside: a Python file that a person names, and installed packages with the entry point ``dcmerge.methods``.

A plugin is code that runs with the rights of who starts it. It is loaded only where a person asks for it, by naming the file or
installing the package; never because a recipe, a link or a page names it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.methods.origins import Origin, sha256_of, told
from dcmerge.methods.registry import Method, adopt, methods, staged

#: An entry point of this group names a module of an installed package that registers methods.
GROUP = "dcmerge.methods"
#: Files that the dashboard loads, which runs in processes of its own.
VARIABLE = "DCMERGE_PLUGINS"
SUFFIX = ".py"

log = logging.getLogger(__name__)


class _Installed:
    """Whether the installed plugins were looked for, and what went wrong."""

    done = loading = False
    notes: tuple[str, ...] = ()


#: One thread loads at a time; a plugin that asks for the methods while it is loaded is that same thread.
_LOCK = threading.RLock()


def load_plugin(path: str | Path, *, sha256: str | None = None) -> tuple[Method, ...]:
    """Run a Python file that registers methods, and return those; a file that is loaded already is not run again.

    ``sha256``: the content that is expected. Raises InputError, in one sentence, for a file that cannot be read, is not that
    content, is not Python, raises anything, or registers no method or a bad one. Then no method of it is known.
    """
    file, content = _read(path)
    origin = Origin(file.name, sha256_of(content), str(file))
    if sha256 not in (None, origin.sha256):
        raise InputError(f"plugin: expected {file.name} with sha256 {sha256}, got {shown(file)} with {origin.sha256}")
    with _LOCK:
        known = methods()
        if not any(one.origin == origin for one in known.values()):
            _run(file, content, origin)
        return tuple(one for one in methods().values() if one.origin == origin)


def _read(path: str | Path) -> tuple[Path, bytes]:
    """The file as an absolute path, and what it holds."""
    if "\0" in str(path) or Path(path).suffix != SUFFIX:
        raise InputError(f"plugin: expected a Python file, whose name ends in {SUFFIX}, got {shown(path)!r}")
    file = Path(os.path.abspath(path))
    if not file.is_file():
        raise InputError(f"plugin: expected a Python file, got no file at {shown(file)}")
    try:
        return file, file.read_bytes()
    except OSError as error:
        raise InputError(f"plugin: cannot read {shown(file)}: {error.strerror}") from None


def _run(file: Path, content: bytes, origin: Origin) -> None:
    name = f"dcmerge_plugin_{origin.sha256[:16]}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and type hints look their module up
    try:
        with staged(origin) as found, _in_a_sentence(file):
            exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
            if not found:
                raise InputError("expected at least one function under merging_method, got none")
        adopt(found, origin)
    except BaseException:
        del sys.modules[name]
        raise


@contextmanager
def _in_a_sentence(file: Path) -> Iterator[None]:
    """Whatever the file raises becomes an InputError that names it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"plugin {shown(file.name)}: {error}") from error
    except SyntaxError as error:
        raise InputError(f"plugin {shown(file.name)}: expected Python, got {error.msg} in line {error.lineno}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"plugin {shown(file.name)}: {told(error, str(file))}") from error


def load_installed() -> None:
    """Import what installed packages name as plugins, once a process. One that fails is left out, and the log says why."""
    if _Installed.done:
        return
    with _LOCK:
        if _Installed.done or _Installed.loading:
            return
        _Installed.loading = True
        try:
            _Installed.notes = tuple(note for point in entry_points(group=GROUP) if (note := _import(point)))
        finally:
            _Installed.done = True
        for note in _Installed.notes:
            log.warning(note)


def plugin_notes() -> tuple[str, ...]:
    """Why plugins that are installed are left out, a sentence each."""
    load_installed()
    return _Installed.notes


def _import(point: EntryPoint) -> str:
    """Register what a package's module holds; the reason, in a sentence, where that fails."""
    package = point.dist.name if point.dist else point.name
    try:
        with staged(Origin(package, "")) as found:  # the hash is known when the module is
            module = import_module(point.module)
        # A module that was imported before has registered its methods by itself.
        own = {slug: one for slug, one in methods().items() if f"{one.function.__module__}.".startswith(f"{point.module}.")}
        if not found and not own:
            raise InputError(f"expected methods in the module {point.module}, got none")
        adopt(own | found, Origin(package, sha256_of(_content(module))))
    except (Exception, SystemExit) as error:
        why = str(error) if isinstance(error, InputError) else told(error, None)
        return f"The methods of the package {shown(package)} are left out: {why}"
    return ""


def _content(module: ModuleType) -> bytes:
    """What a module's own file holds; of a package every Python file below it."""
    file = Path(getattr(module, "__file__", None) or "")
    if not file.is_file():
        return b""
    if file.name != "__init__.py":
        return file.read_bytes()
    sources = sorted(file.parent.rglob(f"*{SUFFIX}"))
    return b"\0".join(part for one in sources for part in (one.relative_to(file.parent).as_posix().encode(), one.read_bytes()))


def load_named() -> tuple[str, ...]:
    """Load the files that ``VARIABLE`` names, once a process; why some of them are left out, a sentence each."""
    return _load_all(os.environ.get(VARIABLE, ""))


@cache
def _load_all(paths: str) -> tuple[str, ...]:
    notes = []
    for path in filter(None, paths.split(os.pathsep)):
        try:
            load_plugin(path)
        except InputError as error:
            notes.append(str(error))
    return tuple(notes)
