"""The command that shows and empties the cache of factors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dcmerge.cli import main
from dcmerge.vectors.cache import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DCMERGE_CACHE", str(tmp_path))
    store = Store(tmp_path)
    store.save("one", {"tensor": torch.zeros(256)})
    return store


def test_show_then_clear(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["entries"], shown["bytes"]) == (1, store.usage().nbytes) and shown["folder"] == str(store.folder)
    assert main(["cache"]) == 0 and "1 entries" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0 and "removed 1 entries" in capsys.readouterr().out
    assert store.usage().entries == 0
    assert main(["cache", "clear", "--json"]) == 0 and json.loads(capsys.readouterr().out)["entries"] == 0


def test_no_cache_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DCMERGE_CACHE", "off")
    assert main(["cache", "clear"]) == 2
    assert capsys.readouterr().err == "error: expected a cache to clear, got none: DCMERGE_CACHE is off\n"
