"""Sets that cannot be opened: a box that says why, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.builders import write
from tests.ui.conftest import PAGES, Open
from tests.ui.test_pages import texts


def truncated(folder: Path) -> str:
    path = folder / "birds.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "birds"


def not_a_number(folder: Path) -> str:
    path = folder / "birds.safetensors"
    write(path, {**load_file(path), "visual.proj": torch.full((12, 10), torch.nan)})
    return "cannot be merged"


def pickled_module(folder: Path) -> str:
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    return "python -m dcmerge convert"


def garbage(folder: Path) -> str:
    (folder / "birds.safetensors").write_bytes(b"\x00" * 8)
    return "birds"


LOAD = "pages/0_Load.py"
#: The page on which such a set is mended opens none, and that of runs needs none.
NO_SET = (LOAD, "pages/8_Runs.py")
BREAKS = (truncated, not_a_number, pickled_module, garbage)


@pytest.mark.parametrize("path", [path for path in PAGES if path not in NO_SET])
@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_a_set_that_cannot_be_opened_ends_the_page_in_one_box(
    folder: Path, open_page: Open, damage: Callable[[Path], str], path: str
) -> None:
    said = damage(folder)
    app = open_page(path, set=f"folder:{folder.name}")
    assert not app.exception
    (box,) = app.error
    assert said in box.value.replace("\\", "")
    assert len(app.title) == 1 and app.sidebar.selectbox(key="set").value == f"folder:{folder.name}"
    assert not app.metric and not app.get("plotly_chart") and not app.main.selectbox and not app.main.button
    reasons = app.dataframe
    assert len(reasons) == ("cannot be merged" in box.value)
    if reasons:
        (detail,) = reasons[0].value["detail"]
        assert "visual.proj" in detail and "birds" in detail
    assert not any("Traceback" in text for text in texts(app))


def test_a_set_that_cannot_be_opened_does_not_stand_in_the_way_of_loading_another(folder: Path, open_page: Open) -> None:
    said = truncated(folder)
    app = open_page(LOAD, set=f"folder:{folder.name}", folder=str(folder))
    assert not app.exception and any("What was found" in header.value for header in app.header)
    assert any(said in box.value for box in app.info) and said in app.error[0].value


def test_a_set_that_was_mended_opens(folder: Path, open_page: Open) -> None:
    path = folder / "birds.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    assert open_page("app.py", set=f"folder:{folder.name}").error
    path.write_bytes(good)
    app = open_page("app.py", set=f"folder:{folder.name}")
    assert not app.error and not app.exception
