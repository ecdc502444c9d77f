"""The Load page with names of the hub: nothing is fetched before the click that says how much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from dcmerge.checkpoints.hub import HubName
from dcmerge.errors import InputError
from dcmerge.sets.hub_sets import HubSet
from dcmerge.sets.model_sets import open_set_by_name, roots
from dcmerge.sets.saved_sets import saved_sets
from tests.builders import random_tensors
from tests.hub import COMMIT, Hub, serving
from tests.ui.conftest import TOWER, Open

LOAD = "pages/0_Load.py"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path / "sets"))
    monkeypatch.setenv("DCMERGE_ROOTS", str(tmp_path / "roots"))
    models = {
        f"me/{name}": {"model.safetensors": save(random_tensors(seed, TOWER))} for seed, name in enumerate(("base", "a", "b"))
    }
    with serving(Hub(models)) as one:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield one


def named(open_page: Open) -> AppTest:
    app = open_page(LOAD)
    app.segmented_control(key="load.where").set_value("On the Hugging Face hub").run()
    app.text_input(key="load.hub.base").set_value("me/base").run()
    return app.text_area(key="load.hub.experts").set_value("cats = me/a\nme/b@main").run()


def test_from_names_to_a_set_that_is_opened(hub: Hub, open_page: Open) -> None:
    app = named(open_page)
    assert not app.exception and not app.error and "Not on this machine" in app.info[-1].value
    app.button(key="load.hub.ask").click().run()
    assert hub.asked == [] and not app.error
    fetch = app.button(key="load.hub.fetch")
    assert fetch.label == f"Fetch {sum(len(data) for one in hub.repositories.values() for data in one.values()) / 1e3:.1f} kB"
    fetch.click().run()
    deadline = time.monotonic() + 60
    while not any("All 3 models" in box.value for box in app.success) and time.monotonic() < deadline:
        app.run()
    assert len(hub.asked) == 3 and not app.exception and not app.error
    assert any("Names, shapes and dtypes fit" in box.value for box in app.success)
    next(one for one in app.button if one.label == "Open and show spectra").click()
    app.run()
    assert not app.exception and not app.error
    saved = saved_sets()["from the hub"]
    assert saved.base == f"hub:me/base@{COMMIT}" and dict(saved.experts) == {
        "cats": f"hub:me/a@{COMMIT}",
        "b": f"hub:me/b@{COMMIT}",
    }
    asked = list(hub.asked)
    assert open_set_by_name("saved:from the hub", roots()).vectors.tasks == ("cats", "b") and hub.asked == asked


def test_what_the_hub_does_not_have_is_told_in_a_box(hub: Hub, open_page: Open) -> None:
    del hub.repositories["me/b"]
    app = named(open_page)
    app.button(key="load.hub.ask").click().run()
    assert not app.exception and "no model me/b" in app.error[0].value.replace("\\", "")


def test_lines_of_experts() -> None:
    found = HubSet.of(" me/base@v1 ", "cats = me/a@v2\n\n me/b ")
    assert found == HubSet(HubName("me/base", "v1"), {"cats": HubName("me/a", "v2"), "b": HubName("me/b")})
    for base, experts in (("", ""), ("", "me/a\nyou/a"), ("../x", "me/a"), ("", "= me/a"), ("", "a=b=c")):
        with pytest.raises(InputError):
            HubSet.of(base, experts)
