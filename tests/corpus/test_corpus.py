"""Some 600 bad inputs through the command line: each is read, or refused in a sentence; nothing runs and nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.corpus import adapters, fake_files, headers, images, jobs_and_runs, names, pickles, recipes, values
from tests.corpus.judging import run, shortcomings, state
from tests.corpus.making import Case

ROOMS = (fake_files, headers, names, pickles, adapters, recipes, images, jobs_and_runs, values)
CASES = [case for room in ROOMS for case in room.CASES]

pytestmark = pytest.mark.timeout(60)


def test_the_corpus_is_large_and_names_every_case_once() -> None:
    assert len(CASES) >= 400
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name.encode("unicode_escape").decode() for case in CASES])
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DCMERGE_ERRORS", str(tmp_path / "errors"))
    monkeypatch.setenv("DCMERGE_JOBS", str(jobs_and_runs.jobs_of(folder)))
    argv = case.make(folder)
    before = state(folder)
    outcome = run(argv, capsys)
    written = next((Path(word.removeprefix("--out=")).name for word in argv if word.startswith("--out=")), None)
    found = list(shortcomings(outcome, case.expected, before, state(folder), written))
    assert not found, (found, argv, outcome)
    assert not os.path.lexists(tmp_path / "errors")
