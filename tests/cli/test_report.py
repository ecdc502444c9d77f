"""``dcmerge report``: a file, JSON, and an exit code for pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.runs import RunStore
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def folder(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    return tmp_path


def test_of_runs_with_bounds(run: Run, folder: Path) -> None:
    run("evaluate", "--zoo=demo", "--method=ties", "--scale=0.4", "--limit=4")
    (found,) = RunStore().find(method="ties")
    mean = found.evaluation.mean
    good = run("report", found.id, f"--require=mean>={mean:.3f}", f"--out={folder / 'r.html'}")
    assert good.code == (0 if mean >= round(mean, 3) else 3) and "Plotly" in (folder / "r.html").read_text()
    bad = run("report", found.id, "--require=mean>=1.1", "--json")
    assert bad.code == 3 and bad.json["bounds"] == [{"bound": "mean >= 1.1", "value": mean, "holds": False}]
    assert bad.json["runs"][0]["id"] == found.id


def test_of_a_set(run: Run, folder: Path) -> None:
    found = run("report", "--zoo=demo", "--require=experts>=2", "--json")
    assert found.code == 0 and "verdict" in found.json and found.json["environment"]["torch"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--out FILE.html, --json or --require"]),
        (["--json"], ["ids of runs or of a job, or a set of models, got neither"]),
        (["x", "--zoo=demo", "--json"], ["got both"]),
        (["nobody", "--json"], ["the id of a run"]),
        (["--zoo=demo", "--require=mean"], ["NAME>=NUMBER"]),
        (["--zoo=demo", "--require=mean>0"], ["expected one of experts"]),
    ],
)
def test_what_makes_no_report_is_refused(run: Run, options: list[str], words: list[str]) -> None:
    run("report", *options).assert_refused(*words)
