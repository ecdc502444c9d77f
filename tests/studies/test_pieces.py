"""Studies that grow: a part of one, what is kept of it on disk, and under which state of the files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from dcmerge.merging.merge import merge
from dcmerge.studies.inspection import MEASURES, concentration, concentrations, consistencies, consistency
from dcmerge.studies.layer_table import columns_of_set, of_set
from dcmerge.studies.pieces import Pieces
from dcmerge.studies.verdict import verdict, verdicts
from dcmerge.vectors.cache import Store
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import full_set, random_deltas


@pytest.fixture
def vectors(tmp_path: Path) -> TaskVectors:
    found = full_set(tmp_path / "models", random_deltas(3, seed=5))
    found.store = Store(tmp_path / "cache")
    return found


def reopened(vectors: TaskVectors) -> TaskVectors:
    """The same files, opened by another process."""
    assert vectors.base is not None
    twin = TaskVectors.open(vectors.base.path, {task: one.path for task, one in vectors.experts.items()})
    twin.store = vectors.store
    return twin


def all_of(study: Pieces) -> dict:
    study.prepare(lambda: False)
    return {name: study.look(name) for name in study.names}


def test_a_part_shows_what_is_known_and_nothing_else(vectors: TaskVectors) -> None:
    whole, study = concentration(vectors), concentrations(vectors)
    first, *others = study.names
    part = study.together({first: study.look(first)})
    torch.testing.assert_close(part.share[:, 0], whole.share[:, 0])
    assert others and part.share[:, 1:].isnan().all() and part.layers == whole.layers


def test_a_merge_that_is_made_on_the_way_has_the_directions_of_a_whole_one(vectors: TaskVectors) -> None:
    for slug, parameters in (("dc_merge", {"smoothing": "linear", "rho": 3.0}), ("ties", {}), ("pcb", {})):
        wanted = consistency(vectors, merge(vectors, slug, **parameters).deltas)
        study = consistencies(vectors, slug, parameters)
        found = study.together(all_of(study))
        assert found.layers == wanted.layers
        for measure in MEASURES:
            torch.testing.assert_close(found.measures[measure], wanted.measures[measure])


def test_every_study_is_read_back_as_it_was_found(vectors: TaskVectors) -> None:
    for make in (concentrations, verdicts, columns_of_set, lambda one: consistencies(one, "average", {})):
        study = make(vectors)
        found = all_of(study)
        study.save(found)
        known = make(reopened(vectors)).load()
        assert list(known) and set(known) == set(study.names)
        for name, piece in found.items():
            for part, value in piece.items():
                torch.testing.assert_close(known[name][part], value, rtol=0, atol=0, equal_nan=True)
    assert verdicts(vectors).together(verdicts(vectors).load()).text == verdict(vectors).text
    of_layers = columns_of_set(vectors)
    assert of_layers.together(of_layers.load()).mean("norm") == of_set(vectors).mean("norm")


def test_a_part_is_kept_and_settings_are_told_apart(vectors: TaskVectors) -> None:
    study = consistencies(vectors, "average", {})
    study.prepare(lambda: False)
    study.save({study.names[0]: study.look(study.names[0])})
    assert set(consistencies(vectors, "average", {}).load()) == {study.names[0]}
    assert not consistencies(vectors, "ties", {}).load() and not concentrations(vectors).load()
    assert not consistencies(vectors.mixed(weights={"task0": 2.0}), "average", {}).load()
    assert not consistencies(vectors.select(("task0", "task1")), "average", {}).load()


def test_files_in_another_state_are_looked_at_again(vectors: TaskVectors) -> None:
    study = concentrations(vectors)
    study.save(all_of(study))
    path = vectors.experts["task1"].path
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not concentrations(reopened(vectors)).load()


def test_without_a_cache_on_disk_nothing_is_kept(vectors: TaskVectors) -> None:
    vectors.store = None
    study = concentrations(vectors)
    study.save(all_of(study))
    assert study.load() == {}


def test_the_entries_that_are_looked_at_are_those_of_all_experts(vectors: TaskVectors) -> None:
    study = concentrations(vectors)
    assert study.entries == 3 * sum(math.prod(vectors.parameters[name].shape) for name in study.names)
