"""The pages on the embedded zoo: the screen shows what the library computes. No particular accuracy is expected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dcmerge import merge
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, paired_difference
from dcmerge.evaluation.accuracy import TaskAccuracy
from dcmerge.methods import methods
from dcmerge.runs import EVALUATION, RunStore
from dcmerge.runs.recording import measured_run
from dcmerge.sets.model_sets import ModelSet, open_set_by_name, roots
from dcmerge.spectral.spectra import smooth
from dcmerge.ui.text import percent
from dcmerge.zoo import DATA, ZOOS
from dcmerge.zoo.results import demo_results
from tests.ui.conftest import PAGES, Open
from tests.ui.test_pages import MERGE, SPECTRA, figures, smoothed_values, texts

QUICK = 25


@pytest.fixture(scope="module")
def demo() -> ModelSet:
    return open_set_by_name("demo", roots())


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests measured is not among this test's runs."""
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path))


def shown(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


@pytest.mark.parametrize("path", PAGES)
def test_every_page_draws_the_demo_with_no_choice_made(open_page: Open, path: str) -> None:
    app = open_page(path, quick=str(QUICK)) if path == MERGE else open_page(path)
    assert not app.exception and not app.error and len(app.title) == 1
    assert app.sidebar.selectbox(key="set").value == "demo"


def test_the_adapters_can_be_chosen(open_page: Open) -> None:
    if not (DATA / "lora").is_dir():
        pytest.skip("this zoo was built without adapters")
    app = open_page(SPECTRA, set="demo-lora", smoothing="average")
    assert not app.exception and not app.error
    values = smoothed_values(app)
    assert values == pytest.approx([values[0]] * len(values), rel=1e-3)


def test_the_home_page_begins_with_how_far_a_merge_gets(open_page: Open, demo: ModelSet) -> None:
    kept = demo_results()
    assert kept is not None
    app = open_page("app.py")
    assert app.metric[0].value == f"{100 * kept.rows['dc_merge'].normalised:.1f} %"
    (figure,) = figures(app)
    assert list(figure["data"][0]["x"]) == ["Base", "Weight averaging", "DC-Merge", "Experts"]

    bench, store = demo.images, RunStore()
    merged = merge(demo.vectors, "ties")
    for slug, weights in ((ZERO_SHOT, bench.base_weights()), ("ties", bench.merged_weights(merged.deltas, 1.0))):
        evaluation = bench.evaluate(weights, slug, split="test", limit=QUICK)
        store.record(measured_run(bench, "demo", EVALUATION, slug, evaluation))
    store.record(measured_run(bench, "demo", EVALUATION, EXPERTS, bench.experts(limit=QUICK)))
    app = open_page("app.py")
    assert app.metric[0].label.startswith("TIES") and app.metric[0].value == percent(evaluation.mean_normalised)


def test_the_home_page_shows_every_task(open_page: Open, demo: ModelSet) -> None:
    app = open_page("app.py")
    written = list(texts(app))
    for task in demo.bench.tasks.values():
        assert any(f"**{task.title}**" in text for text in written)
    assert len(app.get("image")) == len(demo.bench.tasks)
    assert shown(app)["Experts"] == str(len(demo.bench.tasks))


def test_rho_redraws_the_demo(open_page: Open) -> None:
    app = open_page(SPECTRA)
    arrived = smoothed_values(app)
    assert app.sidebar.slider(key="rho").value == 5.0 and "smoothing" not in app.query_params
    assert arrived[0] / arrived[-1] == pytest.approx(5.0, rel=1e-2), "the demo arrives smoothed"
    app.sidebar.selectbox(key="smoothing").set_value("none").run()
    raw = torch.tensor(smoothed_values(app))
    app.sidebar.selectbox(key="smoothing").set_value("linear").run()
    app.sidebar.slider(key="rho").set_value(2.0).run()
    assert not app.exception
    assert smoothed_values(app) == pytest.approx(smooth(raw, "linear", 2.0).tolist(), rel=2e-3)


def test_the_merge_page_shows_what_the_library_computes(open_page: Open, demo: ModelSet) -> None:
    app = open_page(MERGE, method="average", quick=str(QUICK))
    assert not app.exception
    bench, merged = demo.bench, merge(demo.vectors, "average")
    zero_shot = bench.zero_shot(split="val", limit=QUICK)
    for alpha in (1.0, 0.5):
        if alpha != 1.0:
            app.slider(key="average.alpha").set_value(alpha).run()
            assert not app.exception and app.query_params["average.alpha"] == "0.5"
        wanted = bench.evaluate(bench.merged_weights(merged.deltas, alpha), "average", split="val", limit=QUICK)
        told = shown(app)
        assert told["Mean accuracy"] == percent(wanted.mean)
        assert told["Normalised"] == percent(wanted.mean_normalised)
        assert told["Zero-shot"] == percent(zero_shot.mean)
        assert told["Worst task"] == percent(wanted.worst.accuracy)
        bars = figures(app)[0]["data"][1]
        assert bars["y"] == pytest.approx([100 * task.accuracy for task in wanted.tasks.values()])
        said = [text for text in texts(app) if "points against the state before your last change" in text]
        assert len(said) == (alpha != 1.0)
        gain = paired_difference(wanted, zero_shot)
        assert f"{100 * gain.value:+.1f} points over zero-shot" in app.metric[0].delta
    history = app.dataframe[0].value
    assert list(history["α"]) == [0.5, 1.0] and set(history["method"]) == {methods()["average"].title}


def test_an_expert_that_is_never_right_has_no_normalised_accuracy(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskAccuracy, "normalised", None)
    app = open_page(MERGE, method="average", quick=str(QUICK))
    assert not app.exception
    assert shown(app)["Normalised"] == "–" and app.dataframe[0].value["normalised"].isna().all()


def test_both_zoos_are_offered(open_page: Open) -> None:
    app = open_page("app.py")
    assert app.sidebar.selectbox(key="set").options[: len(ZOOS)] == list(ZOOS.values())
