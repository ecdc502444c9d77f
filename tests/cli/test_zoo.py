"""The command zoo on the tiny zoo: what it prints; what it measures is tested with the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.cli.output import WIDTH
from tests.cli.conftest import TASKS, Run


@pytest.fixture(autouse=True)
def _tiny(tiny_zoo: Path) -> None:
    """Every test here runs on the tiny zoo."""


@pytest.mark.parametrize("zoo", ["demo", "demo-lora"])
def test_facts_as_json(run: Run, zoo: str) -> None:
    found = run("zoo", "--zoo", zoo, "--json").json
    assert found["split"] == "val" and found["measured_on"] == "validation split, 12 images a task"
    assert found["logit_scale"]["value"] == 20 and found["tasks"] == list(TASKS[:2])
    assert found["cosines"]["mean"] == pytest.approx(found["cosines"]["matrix"][0][1])
    assert set(found["base_confidence"]["tasks"]) == set(TASKS[:2])
    assert found["sum_of_task_vectors"]["steps"][0]["alpha"] == 0


def test_facts_in_text(run: Run) -> None:
    done = run("zoo", "--zoo=demo", "--limit=6")
    assert (done.code, done.err) == (0, "")
    for words in (
        "Facts of the zoo demo, validation split, 6 images a task",
        "Averaging closes",
        "mean cosine",
        "energy on others",
        "at logit scale 20, from the encoder's configuration",
        "Task Arithmetic is best at α =",
        "Rank correlation",
    ):
        assert words in " ".join(done.out.split()), words
    assert max(map(len, done.out.splitlines())) <= WIDTH


def test_a_set_without_images_is_refused(run: Run, models: list[str]) -> None:
    run("zoo", *models).assert_refused("expected images to evaluate on")
