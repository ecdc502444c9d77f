"""The Tune page without a browser: what it says before a sweep, what it shows of one, and what a point sets elsewhere."""

from __future__ import annotations

from dcmerge import jobs
from dcmerge.studies.sweep.running import sweep
from dcmerge.studies.sweep.store import Store
from dcmerge.zoo import open_zoo
from tests.ui.conftest import Open, opened, words_of

TUNE, MERGE = "pages/5_Tune.py", "pages/3_Merge.py"


def test_one_click_starts_a_sweep_of_the_current_controls(queue: None) -> None:
    app = opened(TUNE).run()
    assert not app.exception and "10 points take about" in words_of(app) and "no sweep on this set yet" in words_of(app)
    next(button for button in app.button if button.label == "Start sweep").click().run()
    (job,) = jobs.all_jobs()
    assert isinstance(job.specification, jobs.Sweep) and job.specification.set == "demo"
    assert job.specification.plan.over == ("smoothing=none,average,linear", "rho=1:20:8")
    assert len(job.specification.plan.cells()) == 10 and job.specification.plan.limit == 50


def test_a_sweep_of_the_mixer_is_started_and_its_point_sets_the_mixer_of_merge(queue: None, open_page: Open) -> None:
    asked = {
        "method": "ties",
        "ties.tune.over": "weight.letters,depth.last",
        "mix.weight.mnist": "0.5",
        "mix.weight.letters": "0",
    }
    app = open_page(TUNE, **asked)
    assert not app.exception and "64 points take about" in words_of(app)
    next(button for button in app.button if button.label == "Start sweep").click().run()
    (job,) = jobs.all_jobs()
    assert isinstance(job.specification, jobs.Sweep)
    assert job.specification.plan.over == ("weight.letters=0:2:8", "depth.last=0:2:8")
    assert job.specification.plan.mix == {"weights": {"mnist": 0.5}}
    jobs.cancel(job.id)

    plan = {
        "slug": "ties",
        "over": ["weight.letters=0.3,2.5"],
        "mix": {"depth": [1.0, 0.5]},
        "limit": 2,
        "test": False,
        "scale": 1.0,
    }
    job = jobs.submit({"kind": "sweep", "set": "demo", "plan": plan})
    assert isinstance(job.specification, jobs.Sweep)
    store = Store(job.study, job.specification.plan)
    best = sweep(open_zoo("demo").bench, job.specification.plan, store).best
    store.close()
    jobs.cancel(job.id)
    assert best is not None
    app = open_page(TUNE, **{"mix.weight.flags": "0.1"})
    next(button for button in app.button if button.label == "Take the best to Merge").click().run()
    asked_for = {key: "".join(value) for key, value in app.query_params.items()}
    assert float(asked_for["mix.weight.letters"]) == best.values["weight.letters"] and "mix.weight.flags" not in asked_for
    assert (asked_for["mix.alpha"], asked_for["mix.depth.last"]) == ("linear", "0.5")


def test_a_weight_beyond_the_usual_range_arrives_by_a_link(open_page: Open) -> None:
    app = open_page(TUNE, **{"mix.weight.letters": "2.5"})
    assert app.slider(key="mix.weight.letters").value == 2.5 and not app.warning


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
