"""The Diagnose page without a browser: what it says before a map, what it starts, and what it shows of one."""

from __future__ import annotations

from pathlib import Path

from dcmerge import jobs
from dcmerge.evaluation import Scale
from dcmerge.jobs.damaging import make_map
from dcmerge.sets.model_sets import open_set_by_name, roots
from dcmerge.studies.tells import Plan
from tests.ui.conftest import Open, opened, words_of

DIAGNOSE = "pages/7_Diagnose.py"


def test_one_click_starts_a_map_of_the_merge_as_it_is(queue: None) -> None:
    app = opened(DIAGNOSE).run()
    assert not app.exception and "19 parts take about" in words_of(app) and "no damage map of this set yet" in words_of(app)
    next(button for button in app.button if button.label == "Make the map").click().run()
    (job,) = jobs.all_jobs()
    spec = job.specification
    assert isinstance(spec, jobs.Damage) and (spec.set, spec.plan.slug, spec.scale) == ("demo", "dc_merge", 1.0)
    assert (spec.plan.parameters["smoothing"], spec.plan.changes, spec.plan.limit) == ("linear", ("expert", "base"), 50)


def test_a_map_is_shown(queue: None) -> None:
    plan = {"slug": "average", "changes": ["base"], "by": "blocks", "limit": 2}
    job = jobs.submit({"kind": "damage", "set": "demo", "plan": plan, "scale": 1.0})
    assert isinstance(job.specification, jobs.Damage)
    job.finish_step("scale", Scale(1.0, "given"))
    make_map(job, job.specification, open_set_by_name("demo", roots()), Scale(1.0, "given"), lambda share, text: None)
    jobs.cancel(job.id)
    app = opened(DIAGNOSE).run()
    assert not app.exception and "Change of accuracy when one part is changed" in words_of(app)
    assert any(box.label == "Show each part" and list(box.options) == ["back to the base"] for box in app.selectbox)


def test_one_click_starts_a_study_of_what_tells(queue: None, open_page: Open) -> None:
    asked = {"diagnose": "Does it tell?", "tells.merges": "12", "tells.limit": "25", "tells.methods": "average,ties"}
    app = open_page(DIAGNOSE, **asked)
    assert not app.exception and "12 merges take about" in words_of(app) and "no study of this set yet" in words_of(app)
    next(button for button in app.button if button.label == "Start the study").click().run()
    assert not app.exception and "The first figures appear after three merges" in words_of(app)
    (job,) = jobs.all_jobs()
    assert job.specification == jobs.Tells("demo", Plan.of(("average", "ties"), merges=12, limit=25, unlabeled=25))
    assert app.selectbox(key="tells.study").options[0].endswith("12 merges · 25 + 25 images a task · 2 methods")
    assert any(button.label == "Cancel" for button in app.button)
    jobs.cancel(job.id)
    assert "This study is cancelled" in words_of(app.run()) and any(button.label == "Resume" for button in app.button)


def test_a_set_without_images_is_asked_for_its_pairs(folder: Path, open_page: Open) -> None:
    app = open_page(DIAGNOSE, set=f"folder:{folder.name}")
    assert not app.exception and "3 experts make 3 pairs: 3 independent." in words_of(app).replace("\\", "")
    pairs, parts = (table.value for table in app.dataframe)
    assert len(pairs) == 3 and list(parts["part"]) == ["before the blocks", "block 0", "block 1", "after the blocks"]
    app.selectbox(key="verdict.pair").set_value(("birds", "digits")).run()
    assert set(app.dataframe[1].value["word"]) == {"independent"}
    for shown in ("cosine", "overlap, times chance", "opposite signs, %", "norm ratio"):
        next(group for group in app.get("button_group") if group.label == "Show").set_value(shown).run()
        assert not app.exception and f"Every pair of experts: {shown.split('%')[0]}" in words_of(app).replace("\\", "")
