"""The words that a person reads: terms come from the glossary, and neither face speaks of the other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcmerge.methods import methods
from dcmerge.studies.glossary import found_term, terms
from dcmerge.studies.inspection import MEASURES

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "dcmerge"
PAGES = [REPOSITORY / "app.py", *sorted((REPOSITORY / "pages").glob("*.py")), *sorted((PACKAGE / "ui").glob("*.py"))]
#: Modules whose texts are commands to copy.
COMMANDS = {"jobs/commands.py", "merging/output/cards.py", "merging/snippets.py", "zoo/results.py"}

OPTION = re.compile(r"(?<![\w-])--[a-z]")
#: Words that mean nothing to somebody in a terminal.
APP_WORDS = re.compile(r"\b([Bb]utton|[Ss]idebar|[Cc]lick|[A-Z][a-z]+ page)\b")
#: What the pages must explain (the list of the issue that asked for the glossary), and more that they use.
ISSUE = ["cover basis", "aligned delta", "block mask", "whitening", "DirSim", "kept entries", "effective rank", "α", "ρ"]
ISSUE += ["normalised accuracy"]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def names_in(node: ast.AST) -> Iterator[str]:
    """The texts that stand in a call's argument: one, or a tuple of them."""
    yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))


def asked_for(path: Path) -> Iterator[str]:
    """Every name that a file asks the glossary for: ``term("…")``, ``explained("…", …)`` and ``terms=("…", …)``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in ("term", "explained"):
                for argument in node.args:
                    yield from names_in(argument)
            for keyword in node.keywords:
                if keyword.arg == "terms":
                    yield from names_in(keyword.value)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "terms":
            yield from names_in(node.value)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string in a file that is not a docstring."""
    found = tree(path)
    docstrings = {id(node.value) for node in ast.walk(found) if isinstance(node, ast.Expr)}
    for node in ast.walk(found):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def with_words(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}:{line} {text.strip()!r}"
        for path in paths
        for line, text in texts(path)
        if pattern.search(text)
    ]


def library() -> list[Path]:
    """The modules below the two faces, whose texts both show."""
    places = {path: path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))}
    return [
        path
        for path, place in places.items()
        if place.parts[0] not in ("cli", "ui") and place.parts[:2] != ("zoo", "build") and place.as_posix() not in COMMANDS
    ]


def test_every_name_that_a_page_asks_for_is_in_the_glossary() -> None:
    unknown = [f"{path.name}: {name}" for path in PAGES for name in asked_for(path) if found_term(name) is None]
    assert not unknown


def test_every_term_is_explained_on_some_page() -> None:
    """By a tooltip that asks for it, or by a slider that is called by it."""
    titles = [declared.constraint.title for method in methods().values() for declared in method.parameters.values()]
    names = [*(name for path in PAGES for name in asked_for(path)), *titles, *MEASURES]
    used = {found.name for name in names if (found := found_term(name))}
    assert set(ISSUE) <= used
    assert sorted(set(terms()) - used) == []


def test_the_pages_name_no_option_of_the_command_line() -> None:
    assert not with_words(PAGES, OPTION)


def test_texts_that_both_faces_show_name_no_option_and_no_part_of_the_app() -> None:
    assert not with_words(library(), OPTION)
    assert not with_words(library(), APP_WORDS)


def test_the_command_line_names_no_part_of_the_app() -> None:
    assert not with_words(sorted((PACKAGE / "cli").glob("*.py")), APP_WORDS)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (OPTION, "name it with --base", True),
        (OPTION, "a -- b", False),
        (OPTION, "well--known", False),
        (APP_WORDS, "see the Load page", True),
        (APP_WORDS, "click it", True),
        (APP_WORDS, "two pages of memory", False),
    ],
)
def test_such_words_are_seen(pattern: re.Pattern[str], text: str, expected: bool) -> None:
    assert bool(pattern.search(text)) is expected
