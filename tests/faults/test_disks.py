"""A disk that is full, a folder that may not be written, and inputs that somebody writes to meanwhile."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dcmerge import Recipe
from dcmerge.checkpoints.seen import content_digest
from tests.corpus.judging import state
from tests.faults.conftest import ADAPTERS, KILLS, MODELS, Fork, tensors

pytestmark = pytest.mark.timeout(120 + 20 * KILLS)
WRITES: dict[str, Sequence[str]] = {
    "a file": ("merge", *MODELS, "--method=average", "--out=m.safetensors"),
    "a folder": ("merge", *MODELS, "--method=average", "--out=m"),
    "an adapter": ("merge", *ADAPTERS, "--method=average", "--as-adapter", "--out=m"),
    "a conversion": ("convert", "one.safetensors", "m.safetensors"),
}


@pytest.mark.parametrize("largest", [0, 100, 30_000])
@pytest.mark.parametrize("words", WRITES.values(), ids=WRITES)
def test_a_full_disk_is_a_sentence_and_nothing_is_left(words: Sequence[str], largest: int, place: Path, forked: Fork) -> None:
    # The log of the command has room for one sentence.
    before = state(place)
    code, _ = forked(words, largest=largest)
    after = {name: facts for name, facts in state(place).items() if not name.startswith(("cache", "errors"))}
    assert code == 2 and after == before
    if largest >= 100:
        assert "Traceback" not in forked.log.read_text()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("words", WRITES.values(), ids=WRITES)
def test_a_folder_that_may_not_be_written(words: Sequence[str], place: Path, forked: Fork) -> None:
    before = state(place)
    place.chmod(0o555)
    try:
        code, _ = forked(words)
    finally:
        place.chmod(0o755)
    assert code == 2 and "cannot" in forked.log.read_text().lower()
    assert state(place) == before


def test_a_place_where_nothing_can_be_made(place: Path, forked: Fork) -> None:
    """The file system of the processes takes no file from anybody, root included."""
    code, _ = forked(("merge", *MODELS, "--method=average", "--out=/proc/m.safetensors"))
    assert code == 2 and forked.log.read_text().startswith("error: ")


def test_inputs_that_change_at_any_moment(place: Path, forked: Fork, draw: random.Random) -> None:
    """Refused, or the merge of one of the two versions with that version's hash; never a mixture."""
    words = ("merge", *MODELS, "--method=ties", "--set=density=0.5", "--out=m.safetensors", "--force")
    versions = []
    for seed in (1, 7):
        save_file(tensors(seed), place / f"version{seed}")
        os.replace(place / f"version{seed}", place / "one.safetensors")
        assert forked(words)[0] == 0
        content = (place / "one.safetensors").read_bytes()
        versions.append((content, content_digest(place / "one.safetensors"), load_file(place / "m.safetensors")))
    _, seconds = forked(words)
    for attempt in range(2 * KILLS):
        old, new = versions[attempt % 2], versions[1 - attempt % 2]
        (place / "one.safetensors").write_bytes(old[0])
        (place / "m.safetensors").unlink(missing_ok=True)
        changing = threading.Thread(target=_change, args=(place / "one.safetensors", new[0], draw.uniform(0, seconds), attempt))
        changing.start()
        code, _ = forked(words)
        changing.join()
        assert (code == 2) == (not (place / "m.safetensors").exists())
        if code == 0:
            merged = load_file(place / "m.safetensors")
            said = Recipe.open(place / "m.safetensors").inputs["one"]["sha256"]
            (_, _, wanted) = next(version for version in versions if version[1] == said)
            assert all(bool((merged[name] == wanted[name]).all()) for name in wanted)


def _change(path: Path, content: bytes, after: float, attempt: int) -> None:
    """Replace a file, or write over it."""
    time.sleep(after)
    if attempt % 4 < 2:
        path.with_suffix(".new").write_bytes(content)
        os.replace(path.with_suffix(".new"), path)
    else:
        with open(path, "r+b") as file:
            file.write(content)
