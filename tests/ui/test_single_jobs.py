"""Find α and Evaluate on test from the Merge page: jobs that another session sees, and whose results stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dcmerge import jobs
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Scale
from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.runs import RunStore, SetId
from dcmerge.runtime import locks
from dcmerge.sets.model_sets import ModelSet, open_set_by_name, roots
from dcmerge.studies.measuring import Row
from tests.ui.conftest import Open
from tests.ui.test_pages import texts, titles

MERGE, METHOD = "pages/3_Merge.py", {"method": "task_arithmetic", "quick": "25"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This test's jobs, which stay in the queue: the test holds the runner's lock."""
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path))
    with locks.locked(tmp_path / RUNNER_LOCK):
        yield tmp_path


@pytest.fixture(scope="module")
def demo() -> ModelSet:
    return open_set_by_name("demo", roots())


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click()
    return app.run()


def said(app: AppTest) -> str:
    return "\n".join(texts(app)).replace("\\", "")


def end(job: jobs.Job, hash: str, **steps: object) -> None:
    """As a worker would end it."""
    for name, result in {"set": {"hash": hash}, **steps}.items():
        job.finish_step(name, result)
    job.journal.append("state", state=jobs.State.DONE, text="")


def test_a_search_is_told_before_queued_seen_by_another_session_and_cancelled_there(open_page: Open) -> None:
    app = open_page(MERGE, **METHOD)
    assert not app.exception and "Find α takes about" in said(app) and "ahead in the queue" not in said(app)
    press(app, "Find α")
    press(app, "Find α")  # the very same work is not queued twice
    [job] = jobs.all_jobs()
    assert (job.specification.kind, job.specification.set, job.state) == ("scale", "demo", "queued")
    other = open_page(MERGE, **METHOD)
    assert not other.exception and "1 job is ahead in the queue" in said(other)
    assert any("waiting for an earlier job" in bar.proto.text for bar in other.get("progress"))
    other.button(key=f"single.cancel.{job.id}").click().run()
    assert job.state is jobs.State.CANCELLED and not other.exception
    assert "is cancelled" in said(other)
    other.button(key=f"single.resume.{job.id}").click().run()
    assert job.state is jobs.State.QUEUED


def test_what_a_search_found_sets_the_slider_of_who_asked_and_is_offered_to_others(open_page: Open, demo: ModelSet) -> None:
    app = open_page(MERGE, **METHOD)
    press(app, "Find α")
    found = Scale(0.35, "validation split, 300 images a task", ((0.3, 0.7), (0.35, 0.8), (0.4, 0.75)))
    end(jobs.all_jobs()[0], SetId.of(demo.vectors, "demo").hash, scale=found)
    app.run()
    assert not app.exception and app.slider(key="task_arithmetic.alpha").value == 0.35
    assert "The slider is set to it" in said(app) and any("Choice of α" in title for title in titles(app))
    other = open_page(MERGE, **METHOD)
    assert other.slider(key="task_arithmetic.alpha").value != 0.35 and "The best for Task Arithmetic is α = 0.35" in said(other)
    press(other, "Use α = 0.35")
    assert not other.exception and other.slider(key="task_arithmetic.alpha").value == 0.35


def test_a_search_without_labels_stands_beside_that_by_labels(open_page: Open, demo: ModelSet) -> None:
    app = press(open_page(MERGE, **METHOD), "Choose α without labels")
    [job] = jobs.all_jobs()
    assert isinstance(job.specification, jobs.FindScale) and not job.specification.labels
    blind = Scale(0.25, "validation split without labels, by agreement, 300 images a task", ((0.2, 0.6), (0.25, 0.7)))
    end(job, SetId.of(demo.vectors, "demo").hash, scale=blind)
    app.run()
    assert not app.exception and app.slider(key="task_arithmetic.alpha").value == 0.25
    assert "The best without labels for Task Arithmetic is α = 0.25" in said(app)
    assert sum("Choice of α" in title for title in titles(app)) == 1
    press(app, "Find α")
    found = Scale(0.35, "validation split, 300 images a task", ((0.3, 0.7), (0.35, 0.8), (0.4, 0.75)))
    end(jobs.all_jobs()[0], SetId.of(demo.vectors, "demo").hash, scale=found)
    app.run()
    assert app.slider(key="task_arithmetic.alpha").value == 0.35
    assert sum("Choice of α" in title for title in titles(app)) == 2  # accuracies and agreement are no common scale
    press(app, "Use α = 0.25")
    assert not app.exception and app.slider(key="task_arithmetic.alpha").value == 0.25
    assert any("validation split without labels" in code.value for code in app.code)


def test_a_method_with_a_part_for_each_task_is_not_offered_the_choice_without_labels(open_page: Open) -> None:
    app = open_page(MERGE, method="emr", quick="25")
    assert next(button for button in app.button if button.label == "Choose α without labels").disabled


def test_a_mix_is_part_of_what_is_searched_looked_at_and_saved(open_page: Open, demo: ModelSet) -> None:
    mixed = {**METHOD, "mix.weight.letters": "2", "mix.alpha": "linear", "mix.depth.last": "0.5"}
    app = press(open_page(MERGE, **mixed), "Find α")
    assert not app.exception and "In every merge on this page: weights letters 2; α over depth linear:1:0.5" in said(app)
    [job] = jobs.all_jobs()
    assert isinstance(job.specification, jobs.FindScale)
    assert job.specification.mix == {"weights": {"letters": 2.0}, "depth": [1.0, 0.5]}
    end(job, SetId.of(demo.vectors, "demo").hash, scale=Scale(0.35, "validation split", ((0.35, 0.8),)))
    assert open_page(MERGE, **mixed).slider(key="task_arithmetic.alpha").value != 0.35  # another session is asked
    assert "The best for Task Arithmetic is α = 0.35" in said(open_page(MERGE, **mixed))
    assert "The best for" not in said(open_page(MERGE, **METHOD))  # without the mix it is another merge
    codes = [code.value for code in app.code]
    assert any("--weights letters=2" in code and "--depth linear:1:0.5" in code for code in codes)
    [look] = [run for run in RunStore().find(kind="look") if run.mix_text]
    assert look.mix_text == "weights letters 2; α over depth linear:1:0.5" and look.set == SetId.of(demo.vectors, "demo")
    press(app, "Set all to 1")
    assert app.slider(key="mix.weight.letters").value == 1 and "In every merge" not in said(app)


def test_a_result_of_other_models_of_that_name_is_not_shown(open_page: Open) -> None:
    app = open_page(MERGE, **METHOD)
    press(app, "Find α")
    end(jobs.all_jobs()[0], "0" * 32, scale=Scale(0.35, "validation", ((0.3, 0.7), (0.35, 0.8))))
    other = open_page(MERGE, **METHOD)
    assert not other.exception and "The best for" not in said(other)


def test_an_evaluation_is_found_again_with_its_bars(open_page: Open, demo: ModelSet) -> None:
    app = open_page(MERGE, **METHOD)
    press(app, "Evaluate on test")
    [job] = jobs.all_jobs()
    spec = job.specification
    assert (spec.kind, spec.split, spec.limit, spec.scale_origin) == ("evaluate", "test", None, "the method's usual α")
    measured = demo.images.zero_shot(limit=4)
    rows = {name: Row(name, name, evaluation=measured) for name in (ZERO_SHOT, EXPERTS, "merged")}
    end(job, SetId.of(demo.vectors, "demo").hash, **rows)
    other = open_page(MERGE, **METHOD)
    assert not other.exception and "absolute" in said(other) and "test split, 4 images a task" in said(other)
    assert sum("Accuracy per task" in title for title in titles(other)) == 2
    other.slider(key="task_arithmetic.alpha").set_value(0.8).run()
    assert sum("Accuracy per task" in title for title in titles(other)) == 1  # these figures are of another α
