"""The Load page without a browser: what it says of a folder, and the set that its button opens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest

from dcmerge.errors import InputError
from dcmerge.sets.saved_sets import saved_sets
from dcmerge.ui.load_draft import _by_task
from tests.ui.conftest import TASKS, Open

LOAD = "pages/0_Load.py"


@pytest.fixture(autouse=True)
def sets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path_factory.mktemp("sets")))


def button(app: AppTest, label: str) -> object:
    return next(one for one in app.button if one.label == label)


def test_a_set_is_recognised_opened_and_remembered(folder: Path, open_page: Open) -> None:
    app = open_page(LOAD, folder=str(folder))
    assert not app.exception and not app.error
    assert any("3 experts" in text.value for text in app.markdown)
    assert any("Names, shapes and dtypes fit: 7 matrices" in box.value for box in app.success)
    app.text_input(key=f"load.name.{folder.name}").set_value("my birds").run()
    button(app, "Open and show spectra").click()
    app.run()
    assert not app.exception and not app.error
    one = saved_sets()["my birds"]
    assert tuple(one.experts) == TASKS and one.base == str(folder / "base.safetensors") and not one.bench
    assert app.query_params["set"] == "saved:my birds"
    again = open_page("pages/1_Spectra.py", set="saved:my birds")
    assert not again.exception and again.sidebar.selectbox(key="set").value == "saved:my birds"


def test_a_remembered_set_is_forgotten(folder: Path, open_page: Open) -> None:
    app = open_page(LOAD, folder=str(folder))
    button(app, "Open and show spectra").click()
    app.run()
    app = open_page(LOAD, folder=str(folder))
    assert any(header.value == "Remembered sets" for header in app.header)
    button(app, "Forget").click()
    app.run()
    assert saved_sets() == {} and not any(header.value == "Remembered sets" for header in app.header)


def test_a_set_that_does_not_fit_is_told_and_not_remembered(folder: Path, open_page: Open) -> None:
    (folder / "notes.txt").write_text("x")
    shutil.copy(folder / "birds.safetensors", folder / "cars.safetensors")
    (folder / "birds.safetensors").write_bytes(b"damaged")
    app = open_page(LOAD, folder=str(folder))
    assert not app.exception
    skipped = [row for table in app.dataframe for row in table.value.to_dict("records") if "why" in row]
    assert any("birds" in row["file"] for row in skipped) or app.error
    assert saved_sets() == {}


def test_bad_images_are_told_in_a_box_and_leave_nothing(folder: Path, open_page: Open) -> None:
    app = open_page(LOAD, folder=str(folder))
    app.toggle(key=f"load.images.{folder}").set_value(True).run()
    app.text_input(key=f"load.encoder.{folder}").set_value("no such encoder").run()
    button(app, "Open and show spectra").click()
    app.run()
    assert not app.exception and "no such encoder" in app.error[0].value
    assert saved_sets() == {}


def test_experts_need_names_of_their_own(tmp_path: Path) -> None:
    assert _by_task([(" cats ", tmp_path), ("dogs", tmp_path)]) == {"cats": tmp_path, "dogs": tmp_path}
    for chosen, got in (
        ([], "got none"),
        ([("", tmp_path)], "one without a name"),
        ([(None, tmp_path)], "one without a name"),
        ([("a", tmp_path), ("a ", tmp_path)], "a twice"),
    ):
        with pytest.raises(InputError, match=got):
            _by_task(chosen)


def test_an_empty_root_says_how_to_name_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_page: Open) -> None:
    monkeypatch.setenv("DCMERGE_ROOTS", str(tmp_path / "none"))
    app = open_page(LOAD)
    assert not app.exception and "can name other folders" in app.info[0].value


def test_what_is_merged_is_chosen_and_remembered(folder: Path, open_page: Open) -> None:
    app = open_page(LOAD, folder=str(folder))
    (without,) = [one for one in app.text_input if one.label == "Leave these parameters out"]
    without.set_value("*bias").run()
    assert not app.exception and not app.error
    button(app, "Open and show spectra").click()
    app.run()
    assert not app.exception and not app.error
    (one,) = saved_sets().values()
    assert one.fit == {"without": ["*bias"]}


def test_boxes_leave_groups_of_parameters_out(tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that all have are merged unless their box is unticked; of those that not all have there is nothing to choose."""
    monkeypatch.setenv("DCMERGE_ROOTS", str(tmp_path))
    shapes = {"layers.0.weight": (8, 8), "layers.1.weight": (8, 8), "pooler.dense.weight": (8, 8), "embed_tokens.weight": (9, 8)}
    for place, name in enumerate(("base", "cats", "dogs")):
        torch.manual_seed(place)
        own = {key: torch.randn(shape) for key, shape in shapes.items()} | {"classifier.weight": torch.randn(2 + place, 8)}
        save_file(own, tmp_path / f"{name}.safetensors")
    app = open_page(LOAD, folder=str(tmp_path))
    boxes = {box.label: box for box in app.checkbox if str(box.key).startswith("load.group.")}
    ticked = {label: (box.value, box.disabled) for label, box in boxes.items()}
    assert ticked == {
        "Poolers": (True, False),
        "Token embeddings": (True, False),
        "Classification heads": (False, True),
    }
    assert any("Names, shapes and dtypes fit: 4 matrices" in box.value for box in app.success)
    boxes["Poolers"].uncheck().run()
    assert any("Names, shapes and dtypes fit: 3 matrices" in box.value for box in app.success)
    told = [row["detail"] for table in app.dataframe for row in table.value.to_dict("records") if "detail" in row]
    assert any("left out by choice (pooler.dense.weight)" in text for text in told)
    button(app, "Open and show spectra").click()
    app.run()
    assert not app.exception and not app.error
    (one,) = saved_sets().values()
    assert one.fit == {"without": ["pooler.dense.weight"]}
