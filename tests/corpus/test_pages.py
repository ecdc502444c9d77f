"""The same bad sets as the pages meet them: listed, opened, or named in an address that somebody sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.sets.layouts import Search, search
from dcmerge.sets.layouts.searcher import Searcher
from dcmerge.sets.model_sets import folder_sets, open_set_by_name
from dcmerge.sets.saved_sets import SavedSet, save_set, saved_sets
from tests.corpus import adapters, fake_files, headers, names, pickles
from tests.corpus.judging import state
from tests.corpus.making import Case, model
from tests.ui.conftest import Open, folder, open_page  # noqa: F401  (fixtures)

MODELS = (fake_files, headers, names, pickles, adapters)


def shortcomings(case: Case, place: Path) -> Iterator[str]:
    """What goes wrong where the Load page lists a case's folder and every set in it is opened."""
    place.mkdir(parents=True)
    case.make(place)
    before, allowed = state(place), Roots([place])
    try:
        found = search(place, allowed)
        # It crosses a pipe on its way to the page.
        assert Search.from_data(json.loads(json.dumps(found.to_data()))) == found
        for name in folder_sets(allowed):
            try:
                open_set_by_name(name, allowed)
            except InputError as error:
                if len(str(error).splitlines()[0]) > 5_000:
                    yield f"{case.name}: a sentence of {len(str(error))} characters"
    except InputError:
        pass
    except Exception as error:
        yield f"{case.name}: {type(error).__name__}: {error!s:.200}"
    if state(place) != before:
        yield f"{case.name}: the folder has changed"


@pytest.mark.parametrize("room", MODELS, ids=lambda room: room.__name__.rpartition(".")[2])
def test_every_set_is_listed_and_opened_or_refused(room: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    faults = [fault for place, case in enumerate(room.CASES) for fault in shortcomings(case, tmp_path / f"case{place}")]
    assert faults == []


def test_a_root_full_of_them_is_searched_beside_the_server(tmp_path: Path) -> None:
    """One visitor's folder must not hide another's: the sound set is found among hundreds of bad ones."""
    for seed, name in enumerate(("base", "birds", "cars")):
        model(tmp_path / "sound" / f"{name}.safetensors", seed)
    for place, case in enumerate(case for room in MODELS for case in room.CASES[::4]):
        bad = tmp_path / f"bad{place}"
        bad.mkdir()
        case.make(bad)
    searcher = Searcher()
    try:
        found = folder_sets(Roots([tmp_path]), searcher.search)
    finally:
        searcher.close()
    assert set(found["folder:sound"].experts) == {"birds", "cars"}


SAVED: dict[str, Any] = {
    "absent files": {"base": "/nowhere/base.safetensors", "experts": {"one": "/nowhere/one.safetensors"}},
    "files above": {"base": None, "experts": {"one": "../../../etc/passwd"}},
    "devices": {"base": "/dev/zero", "experts": {"one": "/dev/zero"}},
    "a way to cut that is none": {"base": "base.safetensors", "experts": {"one": "one.safetensors"}, "qkv": "thirds"},
    "a fit that is none": {"base": "base.safetensors", "experts": {"one": "one.safetensors"}, "fit": {"only": 5}},
    "a bench of numbers": {"base": "base.safetensors", "experts": {"one": "one.safetensors"}, "bench": {"encoder": 5}},
    "a bench elsewhere": {
        "base": "base.safetensors",
        "experts": {"one": "one.safetensors"},
        "bench": {"encoder": "ViT-B-32", "data": "/etc"},
    },
}


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of remembered sets; two sound models lie in ``root``."""
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path / "sets"))
    for seed, name in enumerate(("base", "one")):
        model(tmp_path / "root" / f"{name}.safetensors", seed)
    return tmp_path / "sets"


@pytest.mark.parametrize("about", SAVED.values(), ids=SAVED)
def test_a_remembered_set_of_anything_is_refused(about: Any, remembered: Path) -> None:
    save_set(SavedSet("mine", **about))
    with pytest.raises(InputError):
        open_set_by_name("saved:mine", Roots([remembered.parent / "root"]))


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[]", b"{}", b"[" * 50_000, b"\xff", b'{"name": 5, "base": null, "experts": {}}']
)
def test_a_file_that_is_no_remembered_set_is_passed_over(content: bytes, remembered: Path) -> None:
    remembered.mkdir()
    (remembered / "odd.json").write_bytes(content)
    save_set(SavedSet("mine", None, {"one": "one.safetensors"}))
    assert list(saved_sets()) == ["mine"]


#: Pages, and what a link to them may ask for beside a set that is there.
ADDRESSES = [
    ("app.py", {"set": "folder:../../../etc"}),
    ("app.py", {"set": "saved:\x1b[2J<script>alert(1)</script>"}),
    ("app.py", {"set": "x" * 20_000}),
    ("pages/0_Load.py", {"folder": "/etc"}),
    ("pages/1_Spectra.py", {"rho": "1e999", "smoothing": "[click](javascript:alert(1))"}),
    ("pages/2_Alignment.py", {"layer": "../../x", "rank": "-5"}),
    ("pages/3_Merge.py", {"method": "no\u202esuch", "alpha": "nan"}),
    ("pages/3_Merge.py", {"method": "ties", "ties.density": "9" * 400}),
]


def shown(app: AppTest) -> str:
    boxes = [*app.error, *app.warning, *app.info, *app.markdown, *app.caption]
    return "\n".join(box.value for box in boxes)


@pytest.mark.parametrize(("path", "query"), ADDRESSES)
def test_a_hostile_address_draws_its_page(path: str, query: dict[str, str], folder: Path, open_page: Open) -> None:  # noqa: F811
    app = open_page(path, **{"set": f"folder:{folder.name}", **query})
    assert not app.exception
    assert len(app.title) == 1
    if set(query) & {"set", "method", "rho", "folder"} and "ties.density" not in query:
        assert app.error or app.warning  # whoever follows a link is told that something of it is not known here
    assert "<script>" not in shown(app) and "](javascript" not in shown(app)
    assert not any(one.allow_html for one in app.markdown)
