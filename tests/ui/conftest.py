"""Sets in folders for the pages, and pages run without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.runtime.locks import locked
from tests.builders import random_tensors, write

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ("app.py", *sorted(f"pages/{path.name}" for path in (REPOSITORY / "pages").glob("[!_]*.py")))

#: A small image tower with open_clip's names.
TOWER = {
    "visual.conv1.weight": (12, 3, 2, 2),
    **{
        f"visual.transformer.resblocks.{block}.{name}": shape
        for block in (0, 1)
        for name, shape in {
            "attn.in_proj_weight": (36, 12),
            "attn.out_proj.weight": (12, 12),
            "mlp.c_fc.weight": (24, 12),
            "ln_1.bias": (12,),
        }.items()
    },
    "visual.proj": (12, 10),
}
TASKS = ("birds", "cars", "digits")

Open = Callable[..., AppTest]


def write_set(folder: Path) -> Path:
    """A base and three experts; returns the folder."""
    base = random_tensors(0, TOWER)
    write(folder / "base.safetensors", base)
    for seed, task in enumerate(TASKS, start=1):
        delta = random_tensors(seed, TOWER, scale=0.1)
        write(folder / f"{task}.safetensors", {name: value + delta[name] for name, value in base.items()})
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set below the only root. Its name is this test's own, because the app remembers sets by name."""
    monkeypatch.setenv("DCMERGE_ROOTS", str(tmp_path))
    return write_set(tmp_path / tmp_path.name)


@pytest.fixture
def open_page() -> Open:
    """Draw a page as a link to it would: ``open_page("pages/1_Spectra.py", set="folder:x", rho="7")``."""

    def opened(path: str, **query: str) -> AppTest:
        app = AppTest.from_file(REPOSITORY / "app.py", default_timeout=120)
        for key, value in query.items():
            app.query_params[key] = value
        app.switch_page(path)
        return app.run()

    return opened


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of jobs in which nothing runs by itself."""
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path))
    with locked(tmp_path / RUNNER_LOCK) as mine:
        assert mine is not None
        yield


def opened(path: str) -> AppTest:
    """A page as a visitor finds it who follows the sidebar; not run yet."""
    return AppTest.from_file("../../app.py", default_timeout=280).switch_page(path)


def words_of(app: AppTest) -> str:
    """What captions, boxes and paragraphs say."""
    kinds = (app.caption, app.info, app.markdown, app.error, app.warning)
    return "\n".join(element.value for kind in kinds for element in kind)
