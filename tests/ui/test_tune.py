"""The Tune page without a browser: what it says before a sweep, what it shows of one, and what a point sets elsewhere."""

from __future__ import annotations

from dcmerge import jobs
from dcmerge.studies.sweep.running import sweep
from dcmerge.studies.sweep.store import Store
from dcmerge.zoo import open_zoo
from tests.ui.conftest import opened, words_of

TUNE, MERGE = "pages/5_Tune.py", "pages/3_Merge.py"


def test_one_click_starts_a_sweep_of_the_current_controls(queue: None) -> None:
    app = opened(TUNE).run()
    assert not app.exception and "10 points take about" in words_of(app) and "no sweep on this set yet" in words_of(app)
    next(button for button in app.button if button.label == "Start sweep").click().run()
    (job,) = jobs.all_jobs()
    assert isinstance(job.specification, jobs.Sweep) and job.specification.set == "demo"
    assert job.specification.plan.over == ("smoothing=none,average,linear", "rho=1:20:8")
    assert len(job.specification.plan.cells()) == 10 and job.specification.plan.limit == 50


def test_a_sweep_is_shown_and_its_best_point_taken_to_merge(queue: None) -> None:
    plan = {"slug": "dc_merge", "over": ["rho=2:8:2"], "parameters": {"smoothing": "linear"}, "limit": 2, "test": False}
    job = jobs.submit({"kind": "sweep", "set": "demo", "plan": {**plan, "scale": 1.2}})
    assert isinstance(job.specification, jobs.Sweep)
    store = Store(job.study, job.specification.plan)
    best = sweep(open_zoo("demo").bench, job.specification.plan, store).best
    store.close()
    jobs.cancel(job.id)
    assert best is not None

    app = opened(TUNE).run()
    assert not app.exception and "All points (2), the best first" in words_of(app)
    titles = [chart.proto.alt for chart in app.get("plotly_chart")]
    assert any(title.startswith("Mean normalised accuracy against ρ (2 validation images a task)") for title in titles)
    assert any(title.startswith("Why: the spectrum") for title in titles)
    next(button for button in app.button if button.label == "Take the best to Merge").click().run()
    assert app.selectbox(key="smoothing").value == "linear"
    assert app.slider(key="rho").value == best.parameters["rho"]
