"""Every page with a set of LoRA adapters of other ranks and targets, and what the Merge page saves of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dcmerge import merge
from dcmerge.checkpoints import open_checkpoint
from dcmerge.methods import method
from dcmerge.sets.model_sets import ModelSet
from dcmerge.ui.saving import _archive
from tests.builders import lora_set, random_factors, random_tensors
from tests.ui.conftest import PAGES, Open

SHAPES = {f"visual.transformer.resblocks.0.{n}.weight": s for n, s in {"mlp.c_fc": (24, 12), "attn.out_proj": (12, 12)}.items()}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSet:
    monkeypatch.setenv("DCMERGE_ROOTS", str(tmp_path))
    factors = {task: random_factors(seed, rank=seed + 1, shapes=SHAPES) for seed, task in enumerate("abc")}
    del factors["b"][next(iter(SHAPES))]
    folder = tmp_path / tmp_path.name
    return ModelSet(f"folder:{tmp_path.name}", "tiny", lora_set(folder, factors, base=random_tensors(0, SHAPES)))


@pytest.mark.parametrize("page", PAGES)
def test_pages_draw_the_union(models: ModelSet, open_page: Open, page: str) -> None:
    app = open_page(page, set=models.name)
    assert not app.exception and not app.error


def test_an_adapter_is_offered_with_its_command(models: ModelSet, open_page: Open) -> None:
    app = open_page("pages/3_Merge.py", set=models.name)
    assert not app.exception and not any("--as-adapter" in code.value for code in app.code)
    app.radio(key="save.as").set_value("PEFT adapter").run()
    app.number_input(key="save.rank").set_value(2).run()
    assert not app.exception
    (command,) = (code.value for code in app.code if code.value.startswith("python -m dcmerge merge"))
    assert command.replace("\\\n", "").split()[-5:] == ["--as-adapter", "--adapter-rank", "2", "--out", "merged-adapter"]


def test_the_archive_is_the_folder_that_peft_reads(models: ModelSet, tmp_path: Path) -> None:
    choice = SimpleNamespace(method=method("average"), parameters={}, scale=SimpleNamespace(value=0.5, origin="slider"))
    with zipfile.ZipFile(io.BytesIO(_archive(SimpleNamespace(models=models), choice, None, None))) as archive:
        archive.extractall(tmp_path / "out")
    found = open_checkpoint(tmp_path / "out")
    for name, delta in merge(models.vectors, "average").deltas.items():
        torch.testing.assert_close(found.read(name).dense(), 0.5 * delta.dense(), atol=1e-5, rtol=1e-5)
    assert "slider" in (tmp_path / "out/README.md").read_text()
