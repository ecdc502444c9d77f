"""``python -m tools.licences``: writes docs/licences.md, the packages that dcmerge needs while it runs and their licences.

It reads the metadata of what is installed here, so run it where all of requirements.txt and the optional lists are installed.
A package of an optional list that is not installed keeps the row that it had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "licences.md"
LISTS = tuple(sorted(path.name for path in REPOSITORY.glob("requirements*.txt")))
ALWAYS = "requirements.txt"
HEAD = """# Licences

After this page you know which packages dcmerge needs, and under which licences they are. dcmerge itself is under the
[Apache License 2.0](../LICENSE). The pictures and weights of the demo have notices of their own, in `dcmerge/zoo`.

`python -m tools.licences` writes this page from the packages' own metadata.

| package | licence | in |
| --- | --- | --- |
"""
FOOT = """
`(needed)` marks what a package of `requirements.txt` brings with it. NVIDIA's libraries come with PyTorch's packages for graphics
cards. PyTorch's packages for processors do without them.
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: A licence's whole text stands where its name should, in some packages.
_LONGEST = 60
#: How licences are known by their texts.
_TEXTS = {"Permission is hereby granted, free of charge, to any person": "MIT", "Apache License": "Apache-2.0"}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(rows_of(PAGE)), encoding="utf-8")


def page(known: Mapping[str, str]) -> str:
    """The page's text; ``known`` are rows by package for what is not installed here."""
    named = requirements()
    rows = {name: row(name, ", ".join(f"`{one}`" for one in lists), known) for name, lists in named.items()}
    for name in sorted(needed(name for name, lists in named.items() if ALWAYS in lists) - set(rows)):
        rows[name] = row(name, "(needed)", known)
    return HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n" + FOOT


def requirements() -> dict[str, list[str]]:
    """Every package that a list of requirements names, with the lists."""
    found: dict[str, list[str]] = {}
    for file in LISTS:
        for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines():
            if match := _NAME.match(line.strip()):
                found.setdefault(normalised(match[0]), []).append(file)
    return found


def normalised(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names: Iterator[str]) -> set[str]:
    """These packages and all that they need, without extras, as far as they are installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or (package := installed(name)) is None:
            continue
        found.add(name)
        waiting += [
            normalised(match[0]) for one in package.requires or () if "extra ==" not in one and (match := _NAME.match(one))
        ]
    return found


def installed(name: str) -> Distribution | None:
    """A package's metadata; None where it is not installed."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def row(name: str, where: str, known: Mapping[str, str]) -> str:
    """A line of the table."""
    package = installed(name)
    licence = licence_of(package) if package else known.get(name, "(not installed where this page was written)")
    return f"| {name} | {licence} | {where} |"


def licence_of(package: Distribution) -> str:
    """What the metadata say: the expression, else the classifiers, else the first line of the text."""
    about = package.metadata
    if about.get("License-Expression"):
        return about["License-Expression"]
    classified = [
        text.rpartition(" :: ")[2]
        for text in about.get_all("Classifier") or ()
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    if classified:
        return ", ".join(classified)
    told = (about.get("License") or "").strip().splitlines()
    return told[0][:_LONGEST].replace("|", "/") if told else _by_text(package)


def _by_text(package: Distribution) -> str:
    """The licence whose text lies beside the package's metadata."""
    texts = [file.read_text() for file in package.files or () if file.name.upper().startswith("LICEN")]
    return next((name for words, name in _TEXTS.items() if any(words in text for text in texts)), "not stated")


def rows_of(path: Path) -> dict[str, str]:
    """Licences by package of a page that was written before; none where there is none."""
    if not path.is_file():
        return {}
    cells = [[cell.strip() for cell in line.split("|")] for line in path.read_text(encoding="utf-8").splitlines()]
    return {line[1]: line[2] for line in cells if len(line) == 5}


if __name__ == "__main__":
    main()
