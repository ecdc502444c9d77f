"""The Merge page's box to save: the dtype of the file and what it rounds away; the pages say how q, k and v are merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.builders import write
from tests.ui.conftest import PAGES, Open

MERGE = "pages/3_Merge.py"


def said(app) -> str:
    return "\n".join(one.value for kind in ("caption", "warning", "info", "markdown") for one in getattr(app, kind))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_how_q_k_and_v_are_merged(folder: Path, open_page: Open, page: str) -> None:
    app = open_page(page, set=f"folder:{folder.name}")
    told = "\n".join(one.value for one in app.sidebar.caption)
    assert ("merged fused (as the files have them)" in told) or "Load" in page or "Runs" in page
    if page == "app.py":
        assert "fused" in [metric.value for metric in app.metric]


def test_a_set_without_attention_says_nothing(folder: Path, open_page: Open) -> None:
    for path in folder.iterdir():
        write(path, {name: value for name, value in load_file(path).items() if "attn.in_proj" not in name})
    app = open_page("app.py", set=f"folder:{folder.name}")
    assert not app.exception and not any("q, k and v" in one.value for one in app.sidebar.caption)


def test_rounding_is_told_where_it_is_asked_for(folder: Path, open_page: Open) -> None:
    """Without images nothing is merged before somebody asks."""
    app = open_page(MERGE, set=f"folder:{folder.name}", method="average")
    assert "save.rounding" not in [button.key for button in app.button]
    app.selectbox(key="save.dtype").set_value("bfloat16").run()
    assert not app.exception and any("--dtype bfloat16" in code.value for code in app.code)
    assert "rounding to bfloat16" not in said(app).lower()
    app.button(key="save.rounding").click().run()
    assert not app.exception and "rounding to bfloat16 changes the merged weights" in said(app).lower()


def test_a_large_loss_is_a_warning(folder: Path, open_page: Open) -> None:
    base = load_file(folder / "base.safetensors")
    for path in folder.iterdir():
        name = path.stem
        moved = {key: value.bfloat16().float() + (0 if name == "base" else 1e-4) for key, value in base.items()}
        write(path, moved, dtype=torch.bfloat16 if name == "base" else None)
    app = open_page(MERGE, set=f"folder:{folder.name}", method="average")
    app.button(key="save.rounding").click().run()
    assert not app.exception and any("much of the merge is lost" in one.value for one in app.warning)


def test_the_demo_says_it_at_once(open_page: Open) -> None:
    app = open_page(MERGE, set="demo", method="average")
    app.selectbox(key="save.dtype").set_value("bfloat16").run()
    assert not app.exception and "rounding to bfloat16" in said(app).lower()
