"""What the pages say of the project is so: links, pictures, rooms, methods, versions."""

from __future__ import annotations

import argparse
import re
import shlex
from contextlib import suppress
from pathlib import PurePosixPath

import pytest
import yaml

import dcmerge
from dcmerge.cli import build_parser
from tests.docs.pages import REPOSITORY, anchors, blocks, links, pages, text_of
from tests.test_architecture import DOORS, ORDER, between_rooms

SUBJECTS = [page for page in pages() if page.startswith("docs/")]
PICTURES = ("docs/spectra.png", "docs/merge.png")


def rows(text: str) -> list[list[str]]:
    """The cells of every line of the Markdown tables in a text, without their heads."""
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")]
    rules = [place for place, row in enumerate(found) if set("".join(row)) <= set("-| :")]
    heads = {place - 1 for place in rules}
    return [row for place, row in enumerate(found) if place not in heads | set(rules)]


def section(page: str, title: str) -> str:
    """What stands below a heading of the second level."""
    return text_of(page).split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (REPOSITORY / page).parent.joinpath(path).resolve().relative_to(REPOSITORY).as_posix()
        assert (REPOSITORY / target).exists(), f"{page} links {link}, and nothing is there"
        assert not anchor or anchor in anchors(target), f"{page} links {link}; {target} has {sorted(anchors(target))}"


@pytest.mark.parametrize("page", pages())
def test_files_of_the_repository_that_a_page_names_exist(page: str) -> None:
    for name in re.findall(r"`((?:dcmerge|tests|tools|pages|benchmarks)/[\w./-]*)`", text_of(page)):
        written = {block.file for block in blocks(page)}
        assert name in written or (REPOSITORY / name).exists(), f"{page} names {name}, and nothing is there"


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a parser and of its commands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for command in action.choices.values() for option in options_of(command)}
    return found


#: Options of other programs and of our tools, which pages name too.
OTHER_OPTIONS = {"--readme"}


@pytest.mark.parametrize("page", pages())
def test_options_and_variables_that_a_page_names_exist(page: str) -> None:
    code = " ".join(re.findall(r"`[^`\n]+`", text_of(page)))
    unknown = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) - options_of(build_parser()) - OTHER_OPTIONS
    assert not unknown, f"{page} names {unknown}, which no command has"
    variables = set(re.findall(r"DCMERGE_[A-Z_]+", text_of(page)))
    source = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "dcmerge").rglob("*.py")) if variables else ""
    assert not (missing := {name for name in variables if f'"{name}"' not in source}), f"{page} names {missing}"


@pytest.mark.parametrize("page", pages())
def test_commands_within_a_sentence_parse(page: str) -> None:
    for text in re.findall(r"`(?:python -m )?dcmerge ([^`\n]+)`", text_of(page)):
        with suppress(SystemExit):  # --help and --version end it; what does not parse raises InputError
            build_parser().parse_args(shlex.split(text))


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {page for page in links("README.md") if page.startswith("docs/") and page.endswith(".md")}
    assert reached == set(SUBJECTS)


@pytest.mark.parametrize("page", SUBJECTS)
def test_a_page_begins_with_what_its_reader_can_do(page: str) -> None:
    title, empty, first = text_of(page).splitlines()[:3]
    assert title.startswith("# ") and not empty and first.startswith("After this page you ")


def test_the_readme_stays_short_and_shows_two_pictures() -> None:
    assert len(text_of("README.md").splitlines()) <= 200
    assert [PurePosixPath(link).as_posix() for link in links("README.md") if link.endswith(".png")] == [*sorted(PICTURES)]
    for picture in PICTURES:
        path = REPOSITORY / picture
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 300_000, picture


def test_the_readme_lists_every_method() -> None:
    listed = [(slug.strip("`"), title, source) for slug, title, _, source in rows(section("README.md", "Methods"))]
    known = dcmerge.methods()
    assert [slug for slug, _, _ in listed] == list(known)
    for slug, title, source in listed:
        assert title.split(",")[0] == known[slug].title, slug
        number = re.fullmatch(r"\[(\d+\.\d+)\]\(https://arxiv\.org/abs/\1\)", source)
        assert (number[1] if number else source) in known[slug].source, slug


def test_the_rooms_are_those_of_the_house() -> None:
    assert [name.strip("`") for name, _ in rows(section("docs/architecture.md", "The rooms"))] == ORDER


def test_every_arrow_of_the_diagram_is_an_import() -> None:
    (diagram,) = (block.text for block in blocks("docs/architecture.md") if block.language == "mermaid")
    arrows = set(re.findall(r"^ +(\w+) --> (\w+)$", diagram, re.M))
    imports = {(target, room) for room, target, _ in between_rooms() if room not in DOORS}
    assert len(arrows) > 10 and arrows <= imports, arrows - imports


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == dcmerge.__version__
    released = re.search(rf"^## \[{re.escape(dcmerge.__version__)}\] - (\S+)$", text_of("CHANGELOG.md"), re.M)
    assert released and str(citation["date-released"]) == released[1]
    for field in ("cff-version", "message", "title", "authors", "license", "type"):
        assert citation[field], field
