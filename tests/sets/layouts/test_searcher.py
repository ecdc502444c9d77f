"""The search beside the server: what it finds is what the search here finds, and no file ends it or holds it up."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.sets.layouts import search
from dcmerge.sets.layouts.searcher import Searcher
from tests.builders import random_tensors, write
from tests.sets.layouts.builders import LAYOUTS, plain

#: The searching process, in which some files take time or memory without end.
HOSTILE = """
import sys, time
from dcmerge.sets.layouts import apart
peek = sys.modules["dcmerge.sets.layouts.peek"]
real = peek.open_checkpoint
def opened(path):
    while "endless" in path: pass
    if "vast" in path: return bytearray(1 << 40)
    if "deadly" in path: import os; os.abort()
    if "asleep" in path: time.sleep(1000)
    if "odd" in path: raise KeyError("what")
    return real(path)
peek.open_checkpoint, apart.SECONDS = opened, 1
apart.main()
"""


@pytest.fixture(scope="module")
def beside() -> Iterator[Searcher]:
    one = Searcher()
    yield one
    one.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_finds_what_the_search_here_finds(tmp_path: Path, layout: str, beside: Searcher) -> None:
    LAYOUTS[layout](tmp_path)
    for roots in (None, Roots([tmp_path])):
        assert beside.search(tmp_path, roots) == search(tmp_path, roots)
    (tmp_path / "late.safetensors").write_bytes(b"no header")
    assert beside.search(tmp_path) == search(tmp_path)


def test_bad_questions_are_told_as_here(tmp_path: Path, beside: Searcher) -> None:
    with pytest.raises(InputError, match="There is no file or folder"):
        beside.search(tmp_path / "none")
    with pytest.raises(InputError, match="may be read"):
        beside.search(tmp_path, Roots([tmp_path / "inner"]))
    assert beside.search(tmp_path).sets == ()


def test_a_file_that_takes_too_much_is_reported_and_the_others_are_found(tmp_path: Path) -> None:
    plain(tmp_path)
    for name in ("endless", "vast", "deadly", "asleep", "odd"):
        write(tmp_path / f"{name}.safetensors", random_tensors(0))
    one = Searcher([sys.executable, "-c", HOSTILE], silence=4.0)
    try:
        found = one.search(tmp_path, Roots([tmp_path]))
        told = "\n".join((*found.sets[0].notes, *(s.reason for s in (*found.skipped, *found.sets[0].skipped))))
        assert len(found.sets) == 1 and len(found.sets[0].experts) >= 2
        assert "it cannot be read ('what')" in told and "more memory" in told
        for name in ("endless", "deadly", "asleep"):
            assert f"{name}: reading it takes" in told
        assert "asleep: reading it takes longer than 4 s" in told
        again = one.search(tmp_path, Roots([tmp_path]))  # what is known of them is not tried again
        assert again == found
    finally:
        one.close()


@pytest.mark.parametrize("note", ["c" * 300_000, "ctorch" * 50_000, "c\n" * 100_000])
def test_a_long_text_in_a_state_dict_is_read_once(tmp_path: Path, note: str) -> None:
    base = random_tensors(0)
    for name in ("base", "one", "two"):
        torch.save({**base, "note": note}, tmp_path / f"{name}.pt")
    (found,) = search(tmp_path).sets
    assert sorted(found.experts) == ["one", "two"]


def test_a_pickle_that_unpacks_to_more_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("bomb/data.pkl", "w") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
        archive.writestr("bomb/version", "3")
    (skipped,) = search(tmp_path).skipped
    assert "its record bomb/data.pkl is compressed" in skipped.reason


def test_the_answer_is_plain_data(tmp_path: Path) -> None:
    plain(tmp_path)
    found = search(tmp_path)
    assert type(found).from_data(json.loads(json.dumps(found.to_data()))) == found
