"""What tells, from the command line, on a zoo of two tiny tasks: kept merge by merge, and gone on with."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dcmerge.cli.options import named_zoo
from dcmerge.jobs.telling import kept_of
from tests.cli.conftest import Run

TELLS = ("tells", "--zoo=demo", "--methods=average,ties,task_arithmetic", "--limit=3", "--unlabeled=3", "--factors=0.5,1")


@pytest.fixture(autouse=True)
def folder(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    return tmp_path


def test_a_study_is_kept_and_goes_on(run: Run, folder: Path) -> None:
    found = run(*TELLS, "--merges=3", "--csv", folder / "rows.csv", "--json").json
    with open(folder / "rows.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"]) == 2 * (1 + 2 + 2)
    (journal,) = (folder / "jobs" / "tells").iterdir()
    before = journal.read_bytes()
    more = run(*TELLS, "--merges=4", "--json").json
    after = journal.read_bytes()
    assert more["merges"] == 4 and after.startswith(before)
    assert after[len(before) :].count(b'"event": "look"') == 1
    assert more["rows"][: len(found["rows"])] == found["rows"]
    (kept,) = kept_of(named_zoo("demo", None).vectors)
    assert kept.ended and (kept.merges, kept.plan.merges) == (4, 4) and kept.title == "the zoo demo"
    assert len(kept.study().looks) == 4


def test_a_study_that_has_not_ended_is_known_for_one(run: Run, folder: Path) -> None:
    run(*TELLS, "--merges=3")
    (journal,) = (folder / "jobs" / "tells").iterdir()
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if '"done"' not in line))
    (kept,) = kept_of(named_zoo("demo", None).vectors)
    assert not kept.ended and kept.merges == 3


def test_the_text_says_what_tells_and_against_what(run: Run) -> None:
    done = run(*TELLS, "--merges=3")
    assert done.code == 0
    for words in ("Does it tell? 3 merges on the zoo demo", "Which merge, each at its usual α", "A blind choice costs", "drift:"):
        assert words in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--factors=a",), "factors: expected numbers with commas between them, got 'a'"),
        (("--methods=surgery",), "surgery: expected a method that merges weights alone into one model"),
        (("--merges=1",), "an integer of at least 3"),
        (("--background", "--csv=x.csv"), "expected --background with --zoo NAME"),
    ],
)
def test_what_no_study_can_be_made_of_is_one_line(run: Run, options: tuple[str, ...], message: str) -> None:
    done = run(*TELLS, *options)
    assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1


def test_a_scale_is_proposed_without_labels_and_reported_beside_the_choice_by_labels(run: Run) -> None:
    evaluate = ("evaluate", "--zoo=demo", "--method=dc_merge", "--json")
    (_, row, _) = run(*evaluate, "--scale=unlabeled", "--set=smoothing=linear").json["rows"]
    assert row["scale"]["origin"].startswith("validation split without labels, by agreement") and row["scale"]["curve"]
    assert row["parameters"]["rho"] in (1, 2, 5, 10, 20)
    (_, fixed, _) = run(*evaluate, "--scale=unlabeled", "--set=smoothing=linear", "--set=rho=3").json["rows"]
    assert fixed["parameters"]["rho"] == 3
    refused = run("evaluate", "--zoo=demo", "--method=ties", "--scale=unlabeled", "--depth=0:1")
    assert refused.code == 2 and "expected --scale unlabeled without --background" in refused.err
