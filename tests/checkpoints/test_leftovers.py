"""Parts of killed processes are found and removed, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dcmerge.checkpoints.leftovers import Removed, part_name, remove_leftovers
from dcmerge.merging.merge import merge_to_file
from tests.builders import full_set, random_deltas

WRITER = """
import sys, torch
from pathlib import Path
from dcmerge.checkpoints import SafetensorsWriter, TensorInfo, new_folder
with new_folder(sys.argv[1] + "/model") as folder, \\
        SafetensorsWriter(sys.argv[1] + "/m.safetensors", {"w": TensorInfo((1000,), torch.float32)}) as file:
    (folder / "config.json").write_text("{}")
    file.put("w", torch.ones(1000))
    print("written", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder in which a process was killed while it wrote a file and a folder."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"written\n"
        assert remove_leftovers(tmp_path) == Removed() and len(list(tmp_path.iterdir())) == 2  # it lives
        writer.kill()
    assert len(list(tmp_path.iterdir())) == 2
    return tmp_path


def test_parts_of_the_dead_leave_and_those_of_the_living_stay(killed: Path) -> None:
    others = [killed / part_name("mine"), killed / ".other.1234.part", killed / "a.part", killed / ".b.99999999.0123.part"]
    for path in others:
        path.write_text("x")
    found = remove_leftovers(killed)
    assert found.count == 2 and found.nbytes >= 4000 and "removed 2 unfinished parts" in found.note(killed)
    assert sorted(killed.iterdir()) == sorted(others)
    assert remove_leftovers(killed) == Removed() and Removed().note(killed) == ""


def test_folders_below_are_searched_where_asked(killed: Path) -> None:
    assert remove_leftovers(killed.parent) == Removed()
    assert remove_leftovers(killed.parent, below=True).count >= 2 and list(killed.iterdir()) == []


def test_the_next_merge_removes_them_and_says_so(killed: Path) -> None:
    vectors = full_set(killed / "in", random_deltas(2))
    written = merge_to_file(vectors, "average", killed / "out.safetensors", delta_only=True)
    assert any("removed 2 unfinished parts" in note for note in written.notes)
    assert sorted(path.name for path in killed.iterdir()) == ["in", "out.safetensors"]


def test_a_folder_that_cannot_be_listed_is_no_error(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "none") == Removed()
    (tmp_path / part_name("link")).symlink_to(tmp_path)
    assert remove_leftovers(tmp_path) == Removed() and os.path.lexists(tmp_path)
