"""The Compare page: what is started, and what is shown of it while it runs and afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from streamlit.testing.v1 import AppTest

from dcmerge.errors import InputError
from dcmerge.studies.comparison import Comparison
from dcmerge.ui import comparing
from dcmerge.ui.compare_table import ranked
from dcmerge.ui.comparing import Shown
from tests.plots.builders import comparison
from tests.ui.conftest import Open
from tests.ui.test_pages import figures, texts, titles

COMPARE = "pages/4_Compare.py"


def shown(state: str = "done", found: Comparison | None = None, **more: Any) -> Shown:
    return Shown("a", state, comparison=found, **more)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``known(*shown)``: these are all comparisons there are."""

    def are(*entries: Shown) -> None:
        monkeypatch.setattr(comparing, "listed", lambda models: {entry.id: "a comparison" for entry in entries})
        monkeypatch.setattr(comparing, "find", lambda id: {entry.id: entry for entry in entries}.get(id))

    are()
    return are


def table(app: AppTest) -> Any:
    return app.dataframe[0].value.set_index("method")


def test_a_set_without_tasks_says_what_it_lacks(folder: Path, open_page: Open) -> None:
    app = open_page(COMPARE, set=f"folder:{folder.name}")
    assert not app.exception and not app.button and any("has no images" in text for text in texts(app))


def test_what_is_started(open_page: Open, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[comparing.Spec] = []
    monkeypatch.setattr(comparing, "submit", lambda spec: started.append(spec) or "a")
    app = open_page(COMPARE, compared="ties,dc_merge", limit="20", smoothing="linear")
    assert any("no comparison on this set yet" in text for text in texts(app))
    assert any("KnOTS" in text and "needs LoRA experts" in text for text in texts(app))
    app.slider(key="ties.density").set_value(0.5).run()
    next(button for button in app.button if button.label == "Start comparison").click().run()
    assert not app.exception
    (spec,) = started
    assert {key: spec[key] for key in ("kind", "set", "split", "limit", "val_limit", "diagnosed")} == {
        "kind": "compare",
        "set": "demo",
        "split": "test",
        "limit": 20,
        "val_limit": 40,
        "diagnosed": True,
    }
    ties, dc_merge = spec["methods"]
    assert ties == {"slug": "ties", "parameters": {"density": 0.5, "aggregate": "mean", "trim": "model"}}
    assert dc_merge["slug"] == "dc_merge" and dc_merge["parameters"]["smoothing"] == "linear"
    app.multiselect(key="compared").set_value([]).run()
    assert next(button for button in app.button if button.label == "Start comparison").disabled


def test_a_finished_comparison(open_page: Open, known: Callable[..., None]) -> None:
    known(shown(found=comparison()))
    app = open_page(COMPARE)
    assert not app.exception and not app.error
    rows = table(app)
    assert rows.loc["★ TIES-Merging", "accuracy"] == 65.0 and rows.loc["★ TIES-Merging", "difference"] == 15.0
    assert any("SLERP" in w.value and "merges 2 experts" in w.value for w in app.warning)
    assert [title.split(":")[0].split(" of ")[0] for title in titles(app)] == [
        "Normalised accuracy",
        "What accuracy costs",
        "DirSim",
        "Feature drift by depth",
        "DirSim",
        "Feature drift",
    ]
    assert [button.proto.label for button in app.get("download_button")] == ["CSV", "Markdown", "Report", *["Values"] * 6]
    by_layer, by_place = (figures(app)[place]["data"][0] for place in (4, 5))
    assert by_layer["x"] == ["MLP in, block 0", "projection (outside the blocks)"] and by_layer["z"] == [[0.1, 0.3], [0.2, 0.6]]
    assert by_place["x"] == ["block 1", "features"] and by_place["z"] == [[0.5, 0.25], [0.25, 1.0]]
    assert figures(app)[3]["layout"]["yaxis"]["title"]["text"] == "feature drift (1 is the base's drift)"


def test_the_rules_by_which_images_were_split_are_named(open_page: Open, known: Callable[..., None]) -> None:
    found = comparison()
    rows = {row: row.evaluation and replace(row.evaluation, split_rules={"a": "by *lot*"}) for row in found.rows}
    known(shown(found=replace(found, rows=tuple(replace(row, evaluation=told) for row, told in rows.items()))))
    assert any(r"a\: by \*lot\*" in text for text in texts(open_page(COMPARE)))


def test_rows_appear_while_it_runs(open_page: Open, known: Callable[..., None]) -> None:
    partial = replace(comparison(), rows=comparison().rows[:2])
    known(shown("running", partial, share=0.4, text="TIES: α = 0.4"))
    app = open_page(COMPARE)
    assert not app.exception and list(table(app).index) == ["★ Weight averaging", "Zero-shot (the base)"]
    assert "Cancel" in [button.label for button in app.button]


@pytest.mark.parametrize("found", [None, replace(comparison(), rows=())])
def test_before_the_first_row_there_is_a_hint(open_page: Open, known: Callable[..., None], found: Comparison | None) -> None:
    known(shown("running", found))
    app = open_page(COMPARE)
    assert not app.exception and any("first rows appear" in text for text in texts(app)) and not app.dataframe


def test_only_the_base_so_far(open_page: Open, known: Callable[..., None]) -> None:
    known(shown("running", replace(comparison(), rows=comparison().rows[:1])))
    app = open_page(COMPARE)
    assert not app.exception and len(titles(app)) == 1


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_what_stopped_can_go_on(open_page: Open, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    known(shown(state, comparison(), can_resume=True, error="the *disk* is full" if state == "failed" else ""))
    resumed: list[str] = []
    monkeypatch.setattr(comparing, "resume", resumed.append)
    app = open_page(COMPARE)
    assert any(state in w.value for w in app.warning) and not app.exception
    next(button for button in app.button if button.label == "Resume").click().run()
    assert resumed == ["a"] and not app.exception


def test_methods_that_need_more_can_be_hidden(open_page: Open, known: Callable[..., None]) -> None:
    known(shown(found=comparison()))
    app = open_page(COMPARE)
    app.multiselect(key="allowed").set_value([]).run()
    assert "SLERP" not in list(table(app).index) and "Experts, each on its own task" in list(table(app).index)


def test_what_cannot_be_started_says_why(open_page: Open, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: comparing.Spec) -> str:
        raise InputError("cannot write the job's folder /x")

    monkeypatch.setattr(comparing, "submit", refuse)
    app = open_page(COMPARE)
    next(button for button in app.button if button.label == "Start comparison").click().run()
    assert not app.exception and [box.value for box in app.error] == ["cannot write the job's folder /x"]


def test_a_setting_is_kept_as_a_row_of_its_own_and_dropped(
    open_page: Open, known: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[comparing.Spec] = []
    monkeypatch.setattr(comparing, "submit", lambda spec: sent.append(spec) or "a")
    app = open_page(COMPARE, compared="ties", **{"ties.density": "0.5"})
    app.button(key="compare.keep.ties").click().run()
    app.slider(key="ties.density").set_value(0.1).run()
    assert any("A row of its own" in text and "density" in text for text in texts(app))
    next(button for button in app.button if button.label == "Start comparison").click().run()
    assert [(one["slug"], one["parameters"]["density"]) for one in sent[0]["methods"]] == [("ties", 0.1), ("ties", 0.5)]
    app.button(key="compare.drop.0").click().run()
    next(button for button in app.button if button.label == "Start comparison").click().run()
    assert len(sent[1]["methods"]) == 1 and not app.exception


def test_any_row_is_what_the_others_are_compared_with(open_page: Open, known: Callable[..., None]) -> None:
    known(shown(found=comparison()))
    app = open_page(COMPARE)
    app.selectbox(key="compare.baseline").set_value("ties").run()
    rows = table(app)
    assert rows.loc["Weight averaging", "difference"] == -15.0 and pandas.isna(rows.loc["★ TIES-Merging", "difference"])


def test_the_best_comes_first_and_weak_tasks_are_named() -> None:
    rows = ranked(comparison(), {"birds": "Birds", "cars": "Cars"})
    assert [row["method"] for row in rows][1:] == ["★ TIES-Merging", "Weight averaging", rows[3]["method"], "SLERP"]
    assert [row["accuracy"] for row in rows[:4]] == sorted((row["accuracy"] for row in rows[:4]), reverse=True)
    ties = rows[1]
    assert ties["worst task"] == "60.0 % Birds" and ties["largest loss"] == "−20.0 Birds", "the expert has 80 % on birds"
    assert rows[-1]["worst task"] is None and rows[-1]["largest loss"] is None, "what failed has no numbers"
