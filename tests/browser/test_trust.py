"""Files below a root that once held the interpreter for minutes: the server answers, the other pages draw, the files are rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, expect
from safetensors.torch import save_file

from dcmerge.sets.model_sets import ROOTS_VARIABLE
from tests.browser.steps import LONG, visit
from tests.ui.conftest import write_set
from tools.app_server import is_healthy, running_app
from tools.browser import errors_shown, new_page

#: Names that all end alike; a walk over all pairs of them takes minutes.
NAMES = 20_000


def exponential_pattern(folder: Path) -> None:
    """PEFT's patterns are regular expressions; this one takes 2³⁴ steps where they are tried one after another."""
    module = "a" * 34
    for task in ("first", "second"):
        own = folder / task
        own.mkdir(parents=True)
        factors = {f"base_model.model.attn.{module}.lora_{half}.weight": torch.ones(shape) for half, shape in SHAPES.items()}
        save_file(factors, own / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [module], "rank_pattern": {"(a+)+b": 2}}
        (own / "adapter_config.json").write_text(json.dumps(settings))


SHAPES = {"A": (2, 12), "B": (16, 2)}


def long_text(folder: Path) -> None:
    folder.mkdir()
    torch.save({"w": torch.ones(4, 4), "note": "c" * 200_000}, folder / "expert.pt")


def names_that_end_alike(folder: Path) -> None:
    folder.mkdir()
    one = torch.zeros(1)
    save_file({f"p{i}.w": one.clone() for i in range(NAMES)}, folder / "base.safetensors")
    save_file({"w": one, **{f"q{i}": one.clone() for i in range(NAMES - 1)}}, folder / "expert.safetensors")


@contextmanager
def answers(url: str) -> Iterator[list[bool]]:
    """Whether the server said that it is well, each time that it was asked while the block ran."""
    found: list[bool] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.2):
            found.append(is_healthy(url))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield found
    finally:
        over.set()
        asking.join()


@pytest.mark.timeout(600)
def test_no_file_holds_up_the_server(browser: Browser, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_set(root / "good")
    exponential_pattern(root / "pattern")
    long_text(root / "text")
    names_that_end_alike(root / "names")
    with running_app(variables={ROOTS_VARIABLE: str(root)}) as app, answers(app.url) as found:
        page = new_page(browser)
        visit(page, f"{app.url}/Load")
        for folder in ("good", "pattern", "text", "names"):
            expect(page.get_by_text(folder).first).to_be_visible(timeout=LONG * 1000)
        assert not errors_shown(page)
        visit(page, f"{app.url}/Spectra", set="folder:good")
        expect(page.get_by_role("figure").first).to_be_visible(timeout=LONG * 1000)
        assert not errors_shown(page)
        page.context.close()
    assert len(found) > 5 and all(found)
