"""Run a page: its commands and its Python in order, in one folder, as a reader would who types them one after another."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from dcmerge.cli import build_parser, main
from tests.docs.pages import REPOSITORY, Block
from tools import screenshots

_ASSIGNED = re.compile(r"([A-Z_]+)=\$\((.*)\)")
_VARIABLE = re.compile(r"\$\{?([A-Z_]+)\}?")


def _is_own(arguments: list[str]) -> bool:
    return arguments[0] == "dcmerge" or arguments[:3] == ["python", "-m", "dcmerge"]


def _after_name(arguments: list[str]) -> list[str]:
    """Of "python -m dcmerge merge ..." or "dcmerge merge ...": from "merge" on."""
    return arguments[arguments.index("dcmerge") + 1 :]


def _parses(arguments: list[str]) -> None:
    build_parser().parse_args(_after_name(arguments))


def _make_has_targets(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    wanted = {word for word in arguments[1:] if "=" not in word}
    assert wanted and wanted <= targets, f"{wanted - targets} is no target of the Makefile"


def _installs_what_there_is(arguments: list[str]) -> None:
    """``dcmerge[extra]`` with an extra that has a list of requirements, a built package, or one of those lists."""
    for wanted in arguments[2:]:
        extra = re.fullmatch(r"(?:dcmerge|\.)(?:\[([a-z]+)\])?", wanted)
        file = f"requirements-{extra[1]}.txt" if extra and extra[1] else wanted
        known = extra and not extra[1] or wanted.startswith("dist/") or (REPOSITORY / file).is_file()
        assert known or wanted == "-r", f"pip knows no {wanted} of ours"


def _takes_pictures(arguments: list[str]) -> None:
    screenshots.read_options(arguments[3:])


#: Commands that cannot run in a test: how they begin, why, and what is checked in their place.
NOT_RUN: tuple[tuple[tuple[str, ...], str, Callable[[list[str]], None]], ...] = (
    (("make",), "sets up an environment from a package registry, or runs this test", _make_has_targets),
    (("pip", "install"), "fetches from a package registry", _installs_what_there_is),
    (("python", "-m", "dcmerge", "app"), "serves until it is stopped", _parses),
    (("dcmerge", "app"), "serves until it is stopped", _parses),
    (("python", "-m", "tools.screenshots"), "starts a browser; tests/browser does too", _takes_pictures),
)


class Walk:
    """One page on its way: ``variables`` are the shell's, ``names`` the Python blocks'.

    ``added`` is told of every file for the package or for ``pages/`` that the page holds.
    """

    def __init__(self, folder: Path, added: Callable[[Path, ModuleType], None] = lambda path, module: None) -> None:
        self.folder = folder
        self.added = added
        self.variables: dict[str, str] = {}
        self.names: dict[str, Any] = {"__name__": "page"}

    def block(self, block: Block) -> None:
        """Run a block, or write the file that it is; blocks that are only read are left alone."""
        if block.file:
            self._write(block)
        elif block.language == "sh":
            for command in commands(block.text):
                self.command(command, block.place)
        elif block.language == "python":
            self.python(block)

    def python(self, block: Block) -> None:
        """One block, in the names that those before it left; a traceback shows the page's own lines."""
        text = "\n" * (block.line - 1) + block.text
        exec(compile(text, str(self.folder / Path(block.page).name), "exec"), self.names)

    def command(self, text: str, place: str) -> None:
        """One line of a shell: a command of ours within this process, or one of those that are only checked."""
        if found := _ASSIGNED.fullmatch(text):
            printed = StringIO()
            with redirect_stdout(printed):
                self.command(found[2], place)
            self.variables[found[1]] = printed.getvalue().strip()
            return
        arguments = shlex.split(_VARIABLE.sub(lambda name: shlex.quote(self.variables[name[1]]), text), comments=True)
        for begin, _, check in NOT_RUN:
            if tuple(arguments[: len(begin)]) == begin:
                return check(arguments)
        assert _is_own(arguments), f"{place}: nobody knows how to run {text!r}: see NOT_RUN"
        code = self._run(_after_name(arguments))
        assert code == 0, f"{place}: {text!r} ended with {code}"

    @staticmethod
    def _run(arguments: list[str]) -> object:
        try:
            return main(arguments)
        except SystemExit as end:  # --help and --version
            return end.code or 0

    def _write(self, block: Block) -> None:
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        if block.file.startswith("dcmerge/"):
            self.added(path, _loaded(path, block.file.removesuffix(".py").replace("/", ".")))
        elif block.file.startswith("pages/"):
            self.added(path, ModuleType(path.stem))


def _loaded(path: Path, name: str) -> ModuleType:
    """A module as if its file lay in the package."""
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def commands(text: str) -> Iterator[str]:
    """The lines of a shell block, continued ones joined, without comments and empty lines."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()
