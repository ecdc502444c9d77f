"""The table of situations in docs/own-models.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_every_situation_has_its_test() -> None:
    page = (REPOSITORY / "docs" / "own-models.md").read_text()
    named = re.findall(r"^\|.*\| `(test_\w+)` \|$", page, flags=re.MULTILINE)
    known = {
        name
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert len(named) > 30 and set(named) <= known, set(named) - known
