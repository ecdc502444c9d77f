"""A merged task vector that is far longer than the experts' own is named, in every place where a merge is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge import TaskVectors, merge, merge_to_file
from tests.builders import full_set, lora_set, random_deltas, random_factors, random_tensors


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> TaskVectors:
    return full_set(tmp_path_factory.mktemp("set"), random_deltas(3), random_tensors(0))


def lengths(vectors: TaskVectors, slug: str, scale: float) -> float:
    """‖α · merged‖ over the longest expert's, from the definition."""
    merged = merge(vectors, slug)
    longest = max(sum(vectors.delta(n, t).square().sum().item() for n in vectors.parameters) for t in vectors.tasks)
    return abs(scale) * (sum(delta.square().sum().item() for delta in merged.deltas.values()) / longest) ** 0.5


@pytest.mark.parametrize("scale", [1.0, -1.0, 5.0, -5.0])
def test_only_a_merge_more_than_three_times_as_long_is_warned_of(vectors: TaskVectors, scale: float) -> None:
    ratio = lengths(vectors, "task_arithmetic", scale)
    notes = merge(vectors, "task_arithmetic").notes(scale)
    assert bool(notes) is (ratio > 3)
    if notes:
        assert f"{ratio:.1f} times as long as the longest expert's" in notes[0] and notes[0].startswith("warning: ")
        bound = float(notes[0].partition("or try one below ")[2])
        assert lengths(vectors, "task_arithmetic", bound) == pytest.approx(3, rel=0.05)


def test_an_alpha_that_was_chosen_on_validation_is_not_warned_of(vectors: TaskVectors, tmp_path: Path) -> None:
    origin = "validation split, 40 images a task"
    merged = merge(vectors, "task_arithmetic")
    assert merged.notes(5.0) and not merged.notes(5.0, origin)
    assert not merged.save(tmp_path / "held.safetensors", scale=5.0, scale_origin=origin).notes


def test_a_written_merge_and_its_card_say_the_same(vectors: TaskVectors, tmp_path: Path) -> None:
    held = merge(vectors, "task_arithmetic").save(tmp_path / "held.safetensors", scale=5.0, card=True)
    streamed = merge_to_file(vectors, "task_arithmetic", tmp_path / "streamed.safetensors", scale=5.0)
    wanted = merge(vectors, "task_arithmetic").notes(5.0)
    assert wanted and held.notes == streamed.notes == wanted
    assert "times as long as the longest expert" in (tmp_path / "held.md").read_text()


def test_an_adapter_says_it_too(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path / "set", {f"task{t}": random_factors(t) for t in range(3)})
    notes = merge(vectors, "task_arithmetic").save_adapter(tmp_path / "out", scale=9.0).notes
    assert "times as long as the longest expert's" in notes[0]


def test_dc_merge_says_how_much_it_keeps(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path / "set", {f"task{t}": random_factors(t) for t in range(2)})
    (told,) = merge(vectors, "dc_merge").notes(1.0)
    assert told == "keeps 2 entries a task and matrix, for 2 directions of the task's own"
    few, warned = merge(vectors, "dc_merge", keep=1e-3).notes(1.0)
    assert few.startswith("keeps 1 entries") and warned.startswith("warning: fewer entries than directions are kept")
