"""Reports: the figures' data and the tables are in the file, no text of a file becomes code, bounds pass and fail."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dcmerge import InputError, merge
from dcmerge.evaluation import Bench, Scale
from dcmerge.plots.style import LIGHT, PALETTE
from dcmerge.reports import Report, Section, as_html, bounds, judged, report_of_runs, report_of_set, report_of_study
from dcmerge.reports.of_comparison import report_of_comparison
from dcmerge.reports.of_sweep import report_of_sweep
from dcmerge.runs import EVALUATION, Run
from dcmerge.runs.recording import measured_run
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.small_sets import tiny_bench
from dcmerge.studies.sweep import Plan
from dcmerge.studies.sweep.running import sweep
from dcmerge.studies.sweep.store import Store
from dcmerge.studies.tells import MERGES, Study
from dcmerge.studies.tells import Plan as TellsPlan
from dcmerge.studies.tells.measuring import looks
from tests.plots.builders import comparison

EVIL = "</script><script>alert(1)</script><b>x</b>"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def run_of(bench: Bench, slug: str, scale: float) -> Run:
    measured = bench.evaluate(merge(bench.vectors, slug).model(bench, scale), slug)
    run = measured_run(bench, "tiny", EVALUATION, slug, measured, values={}, scale=Scale(scale, "given"))
    return replace(run, id=f"id-{slug}")


def drawn(html: str) -> list[dict]:
    """The data of every figure in the file."""
    return [json.loads(text.replace("<\\/", "</"))["data"] for text in re.findall(r"const f = (\{.*?\}); Plotly", html)]


def test_runs_beside_each_other(bench: Bench) -> None:
    runs = [run_of(bench, "average", 1.0), run_of(bench, "ties", 0.5)]
    report = report_of_runs(runs)
    html = as_html(report)
    (bars,) = drawn(html)
    for trace, run in zip(bars, runs, strict=True):
        assert trace["y"] == pytest.approx([100 * own.double().mean().item() for own in run.hits.values()])
    assert report.values["mean"] == runs[0].evaluation.mean
    assert report.values["id-ties.accuracy.task0"] == runs[1].accuracies["task0"]
    assert "method: ties" in html and "Difference to Weight averaging" in html and html.count("<details") == 2
    assert html.count("Plotly.newPlot(") >= 1 and len(html) < 6_000_000


def test_the_file_fetches_nothing_and_no_name_becomes_code(bench: Bench) -> None:
    run = replace(run_of(bench, "ties", 0.5), name=EVIL, note=EVIL)
    html = as_html(report_of_runs([run], {"task0": EVIL}))
    assert EVIL not in html and "&lt;/script&gt;" in html
    assert "default-src 'none'" in html and not re.search(r"<(script|link|img)[^>]+(src|href)=", html.split("</head>")[0])
    assert (
        as_html(Report("t", {EVIL: EVIL}, [Section(EVIL, EVIL, rows=[{EVIL: EVIL}])], repeat={EVIL: EVIL})).count("<script") == 0
    )


def test_colours_are_those_of_the_light_theme(bench: Bench) -> None:
    figure = as_html(report_of_runs([run_of(bench, "ties", 0.5)])).split("const f = ")[1]
    assert LIGHT[0] in figure and not any(place in figure for place in PALETTE)


def test_a_comparison_and_its_best_method() -> None:
    found = comparison()
    report = report_of_comparison(found, "Compare")
    assert report.values["ties.mean"] == found.row("ties").measured.mean == report.values["mean"]
    html = as_html(report)
    assert "TIES-Merging" in html and "failed: SLERP" in html and len(drawn(html)) == 4


def test_a_sweep_and_what_its_choice_is_worth(bench: Bench, tmp_path: Path) -> None:
    plan = Plan.of("ties", ["density=0.1:0.9:3"], test_limit=8)
    store = Store(tmp_path / "study.sqlite3", plan)
    found = sweep(bench, plan, store)
    store.close()
    report = report_of_sweep(found, "Sweep")
    assert found.best is not None and report.values["best"] == found.estimate(found.best).value
    assert {"other_images", "test.mean", "alpha"} <= set(report.values)
    curve = drawn(as_html(report))[0]
    assert sorted(x for trace in curve for x in trace["x"] if isinstance(x, float)) == pytest.approx([0.1, 0.5, 0.9])
    assert report.to_data()["sweep"]["best"]["point"] == found.best.number


def test_a_study_of_what_tells(bench: Bench) -> None:
    plan = TellsPlan.of(("average", "ties", "task_arithmetic"), (0.5, 1.0), merges=4, limit=8, unlabeled=7)
    found = Study(plan, tuple(looks(bench, plan)), "tiny")
    report = report_of_study(found, "What tells", {"command": "the command"})
    correlation, regret = found.correlation("drift"), found.regret("drift", MERGES)
    assert correlation and report.values["drift.correlation"] == correlation.value
    assert regret and report.values["merges.drift.regret"] == regret.value
    html = as_html(report)
    assert len(drawn(html)) == 6 and "the command" in html and "Which α, merge by merge" in html


def test_a_set_before_any_merge(bench: Bench) -> None:
    report = report_of_set(ModelSet("tiny", "Tiny", bench.vectors, bench), "the command")
    words = {"dead", "duplicate", "in conflict", "reinforcing", "independent"}
    assert (
        report.values["experts"] == 2 and sum(report.values[word] for word in words) + report.values["one drowns the other"] == 1
    )
    assert len(drawn(as_html(report))) == 2


def test_bounds_pass_and_fail() -> None:
    report = Report("t", {}, [], {"mean": 0.7, "accuracy.a=b": 0.5})
    asked = bounds(["mean>=0.7", "mean < 0.7", " accuracy.a=b <=0.5"])
    assert [holds for *_, holds in judged(report, asked)] == [True, False, True]
    with pytest.raises(InputError, match="expected one of mean, accuracy.a=b, got 'median'"):
        judged(report, bounds(["median>0"]))


@pytest.mark.parametrize("text", ["mean", "mean=0.7", "mean>=x", ">=1", "mean>=nan", ""])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="require: expected NAME>=NUMBER"):
        bounds([text])
