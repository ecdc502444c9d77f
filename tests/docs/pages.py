"""The documents as data: every page of the repository, its fenced blocks, its headings, its links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

#: What a block's language says: "sh" and "python" are run, a named "yaml" is a file that a later block runs, the rest is read.
RUN, FILES, READ = ("sh", "python"), ("yaml",), ("text", "mermaid", "toml", "diff", "bibtex")
#: The first line of a block that is a file: "# recipes/mine.yaml".
_FILE_NAME = re.compile(r"# (\S+\.(?:py|ya?ml))")
_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})(.*)$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of text, counted from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file that the block is, by its first line; empty where it is none."""
        found = _FILE_NAME.fullmatch(self.text.splitlines()[0]) if self.text else None
        return found[1] if found else ""


def pages() -> list[str]:
    """Every page that a person reads, relative to the repository: those at its top, and all below docs/ and benchmarks/."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("benchmarks/**/*.md")]
    return sorted(path.relative_to(REPOSITORY).as_posix() for path in found)


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str, text: str | None = None) -> list[Block]:
    """Every fenced block of a page, in order; raises ValueError for one that does not end."""
    found: list[Block] = []
    fence, start, lines = "", 0, []
    language = ""
    for number, line in enumerate((text_of(page) if text is None else text).splitlines(), start=1):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence, language, start, lines = mark[2], mark[3].strip(), number + 1, []
        elif fence and mark and mark[2].startswith(fence) and not mark[3].strip():
            found.append(Block(page, start, language, "\n".join(lines) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        raise ValueError(f"{page}:{start - 1}: the block does not end")
    return found


def prose(page: str) -> str:
    """A page without its blocks and without code in its lines."""
    kept, inside = [], False
    for line in text_of(page).splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(re.sub(r"`[^`]*`", "", line))
    return "\n".join(kept)


def links(page: str) -> list[str]:
    """Targets of all links and pictures of a page."""
    return _LINK.findall(prose(page))


def anchors(page: str) -> set[str]:
    """What GitHub calls a page's headings in addresses: lower case, without signs, spaces as hyphens."""
    names = [re.sub(r"`", "", found[1]) for line in text_of(page).splitlines() if (found := re.match(r"#{1,6} (.+)", line))]
    return {re.sub(r"[^\w\- ]", "", name.lower()).strip().replace(" ", "-") for name in names}
