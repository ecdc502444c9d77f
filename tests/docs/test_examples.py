"""Every command and every Python example of every page is run, in order, in a folder with models of the names it uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from transformers import CLIPVisionModel

import dcmerge
from dcmerge.checkpoints import dense
from dcmerge.evaluation.datasets import KnownDataSet, known
from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.methods import registry
from dcmerge.runtime import locks
from dcmerge.sets.layouts import find_sets
from dcmerge.ui import shell
from tests.cli.conftest import tiny_zoo, zoo_data  # noqa: F401  (fixtures)
from tests.docs import workshop
from tests.docs.pages import FILES, READ, RUN, blocks, pages
from tests.docs.walking import Walk, commands

EXAMPLES = [page for page in pages() if any(block.language in RUN for block in blocks(page))]
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_zoo: Path) -> Iterator[Path]:  # noqa: F811
    """An empty working folder, a cache and jobs of its own, tiny zoos. Jobs stay in the queue: the test holds its lock."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setenv("DCMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, workshop.NAME, workshop.SMALL)
    (tmp_path / "jobs").mkdir()
    with locks.locked(tmp_path / "jobs" / RUNNER_LOCK):
        yield place


@pytest.fixture
def registers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, ModuleType], None]:
    """Do with an example's file what the page tells the reader to do with it: name it where its kind is listed."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry.methods()))

    def register(path: Path, module: ModuleType) -> None:
        if path.parent.name == "layouts":
            search = sys.modules["dcmerge.sets.layouts.search"]  # the package has a function of that name
            monkeypatch.setattr(search, "LAYOUTS", (*search.LAYOUTS[:-1], module.find, search.LAYOUTS[-1]))
        elif path.parent.name == "pages":
            monkeypatch.setattr(shell, "PAGES", (*shell.PAGES, (f"pages/{path.name}", path.stem[2:], ":material/straighten:")))

    return register


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT still asks for it
@pytest.mark.parametrize("page", EXAMPLES)
def test_the_examples_of_a_page_work(
    page: str,
    folder: Path,
    registers: Callable[[Path, ModuleType], None],
    zoo_data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workshop.furnish(page, folder, zoo_data)
    walk = Walk(folder, registers)
    monkeypatch.setattr(known, "_BY_ALIAS", dict(known._BY_ALIAS))
    for block in blocks(page):
        walk.block(block)
        if isinstance(new := walk.names.pop("new", None), KnownDataSet):
            known._BY_ALIAS.update(dict.fromkeys((new.name.lower(), *new.aliases), new))
    CHECKS.get(page, lambda names, folder: None)(walk.names, folder)


def peft_loads_the_adapter(names: dict[str, Any], folder: Path) -> None:
    """The merged adapter in PEFT equals the module with base + 0.8 * merged as its weights."""
    (found,) = find_sets(folder / "adapters")
    merged = dcmerge.merge(dcmerge.TaskVectors.open(None, found.experts), "dc_merge")
    plain, before = (CLIPVisionModel.from_pretrained(folder / "base").eval() for _ in range(2))
    weights = plain.state_dict()
    for name, delta in merged.deltas.items():
        weights[next(own for own in weights if own.endswith(name))] += 0.8 * dense(delta)  # the module's own weights
    seen = names["model"].eval()(IMAGES).last_hidden_state
    torch.testing.assert_close(seen, plain(IMAGES).last_hidden_state, atol=1e-5, rtol=1e-5)
    assert (seen - before(IMAGES).last_hidden_state).abs().max() > 1e-3  # the adapter does something


def open_clip_loads_the_merged_model(names: dict[str, Any], folder: Path) -> None:
    """The merged file in open_clip equals the module with base + merged as its weights, in both towers."""
    clip = workshop.clip()
    (one,) = find_sets(folder / "checkpoints" / "ViT-B-32")
    merged = dcmerge.merge(dcmerge.TaskVectors.open(folder / "clip.pt", one.experts), "dc_merge")
    before, weights, words = clip.encode_image(IMAGES), clip.state_dict(), torch.arange(16).reshape(2, 8)
    for name, delta in merged.deltas.items():
        weights[name] += dense(delta)  # the module's own weights
    model = names["model"].eval()
    torch.testing.assert_close(model.encode_image(IMAGES), clip.encode_image(IMAGES), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode_text(words), clip.encode_text(words), atol=1e-5, rtol=1e-5)
    assert (clip.encode_image(IMAGES) - before).abs().max() > 1e-3  # the merge does something


#: What must be true after a page, beyond that its examples ran.
CHECKS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "docs/adapters.md": peft_loads_the_adapter,
    "docs/own-models.md": open_clip_loads_the_merged_model,
}


@pytest.mark.parametrize("page", pages())
def test_every_block_says_what_it_is(page: str) -> None:
    for place, block in enumerate(found := blocks(page)):
        assert block.language in (*RUN, *FILES, *READ), f"{block.place}: the language {block.language!r} says not what to do"
        if block.language in FILES:
            used = any(block.file in line for later in found[place:] if later.language == "sh" for line in commands(later.text))
            assert block.file and used, f"{block.place}: a recipe begins with '# NAME.yaml', and a later command runs NAME.yaml"


def test_a_wrong_example_is_seen(folder: Path) -> None:
    walk = Walk(folder)
    with pytest.raises(AssertionError, match=r"x.md:3: 'python -m dcmerge inspect nothing' ended with 2"):
        walk.command("python -m dcmerge inspect nothing", "x.md:3")
    with pytest.raises(AssertionError, match="nobody knows how to run 'curl x'"):
        walk.command("curl x", "x.md:3")
    with pytest.raises(dcmerge.InputError, match="--roots"):
        walk.command("python -m dcmerge app --roots x", "x.md:3")
    with pytest.raises(AssertionError, match="no target"):
        walk.command("make coffee", "x.md:3")
    with pytest.raises(AssertionError, match="pip knows no"):
        walk.command("pip install dcmerge[coffee]", "x.md:3")


def test_blocks_and_commands_are_read_as_a_reader_reads_them() -> None:
    text = "a\n```sh\none \\\n  two  # three\n\n# four\nfive\n```\n````text\n```\n````\n"
    shell, other = blocks("x.md", text)
    assert (shell.line, list(commands(shell.text))) == (3, ["one two  # three", "five"])
    assert (other.language, other.text) == ("text", "```\n")
    with pytest.raises(ValueError, match="x.md:1"):
        blocks("x.md", "```sh\none\n")
