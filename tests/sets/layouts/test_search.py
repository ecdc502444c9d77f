"""What the search reads and where it stops: links, devices, depth, number of files, changes on disk."""

from __future__ import annotations

import os
from collections import OrderedDict
from datetime import date
from pathlib import Path

import pytest
import torch
from torch import nn

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.sets.layouts import FoundSet, find_sets, glance, peek, search, tree
from tests.builders import random_tensors, write
from tests.sets.layouts.builders import LAYOUTS, TASKS, adapters, plain, task_vectors, vision_model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_anywhere_below_a_folder(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path / "deep" / "er")
    (found,) = find_sets(tmp_path)
    assert found.layout == layout and found.base is not None and len(found.experts) == 2 and not found.lacks
    (again,) = find_sets(found.folder)
    assert (again.base, again.experts, again.heads) == (found.base, found.experts, found.heads)
    (rooted,) = find_sets(tmp_path, Roots([tmp_path]))
    assert rooted == found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_value_is_read(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS[layout](tmp_path)
    read: list[str] = []
    for owner in ("safetensors_files.SafetensorsFile", "state_dicts.StateDictFile"):
        monkeypatch.setattr(f"dcmerge.checkpoints.{owner}.read", lambda self, name: read.append(name))
    assert find_sets(tmp_path) and read == []


def everything(found: FoundSet) -> list[Path]:
    return [*found.checkpoints, *found.heads.values()]


def test_links_out_of_the_roots_are_not_followed(tmp_path: Path) -> None:
    outside, allowed = plain(tmp_path / "outside"), tmp_path / "allowed"
    plain(allowed / "mine")
    (allowed / "whole").symlink_to(outside)
    (allowed / "mine" / "Cars.safetensors").symlink_to(outside / "DTD.safetensors")
    result = search(allowed, Roots([allowed]))
    (found,) = result.sets
    assert sorted(found.experts) == list(TASKS)
    assert all(path.resolve().is_relative_to(allowed) for path in everything(found))
    reasons = {s.path.name: s.reason for s in (*found.skipped, *result.skipped)}
    assert reasons == dict.fromkeys(("Cars.safetensors", "whole"), "is a link that leaves the folders that may be read")
    with pytest.raises(InputError, match="may be read"):
        search(outside, Roots([allowed]))


def test_a_model_folder_with_a_file_elsewhere_is_sealed(tmp_path: Path) -> None:
    """The folder is opened by its name, with all that lies in it."""
    allowed = tmp_path / "allowed"
    adapters(allowed)
    secret = (allowed / "dtd" / "adapter_model.safetensors").rename(tmp_path / "secret")
    (allowed / "dtd" / "adapter_model.safetensors").symlink_to(secret)
    (found,) = find_sets(allowed, Roots([allowed]))
    assert list(found.experts) == ["mnist"]
    assert "dtd" in {skipped.path.name for skipped in found.skipped}
    (mine,) = find_sets(allowed)
    assert sorted(mine.experts) == ["dtd", "mnist"]


def test_a_base_that_settings_name_outside_of_the_roots_is_not_taken(tmp_path: Path) -> None:
    vision_model(0).save_pretrained(tmp_path / "secret")
    allowed = adapters(tmp_path / "allowed", base=str(tmp_path / "secret"))
    (found,) = find_sets(allowed, Roots([allowed]))
    assert found.base is None
    assert find_sets(allowed)[0].base == tmp_path / "secret"


def test_without_roots_links_are_the_users_own(tmp_path: Path) -> None:
    place = plain(tmp_path / "set")
    (place / "DTD.safetensors").rename(tmp_path / "far.safetensors")
    (place / "DTD.safetensors").symlink_to(tmp_path / "far.safetensors")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "linked").symlink_to(place)
    (found,) = find_sets(tmp_path / "other")
    assert sorted(found.experts) == list(TASKS)


def test_links_in_circles_and_to_nowhere(tmp_path: Path) -> None:
    place = plain(tmp_path)
    (place / "around").symlink_to(place)
    (place / "gone.safetensors").symlink_to(place / "nothing")
    (found,) = find_sets(place)
    reasons = {s.path.name: s.reason for s in found.skipped}
    assert reasons == {
        "around": "is a link to a folder that is searched anyway",
        "gone.safetensors": "is a link that leads nowhere",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(plain(tmp_path) / "Cars.safetensors")
    (found,) = find_sets(tmp_path)
    assert [(s.path.name, s.reason) for s in found.skipped] == [("Cars.safetensors", "is a device, pipe or socket")]


def test_depth_and_number_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*"abcdefghijkl")
    plain(deep)
    result = search(tmp_path)
    assert result.sets == () and any("folders deep" in skipped.reason for skipped in result.skipped)
    monkeypatch.setattr(tree, "ENTRY_LIMIT", 4)
    many = search(plain(tmp_path / "many"))
    assert len(many.sets) == 1
    for number in range(5):
        (tmp_path / "many" / f"{number}.txt").write_text("")
    result = search(tmp_path / "many")
    assert any("more than 4 files" in s.reason for s in (*result.skipped, *(s for one in result.sets for s in one.skipped)))


def test_names_that_no_page_may_ask_for_are_left_out_below_roots(tmp_path: Path) -> None:
    plain(tmp_path)
    write(tmp_path / "a\nb.safetensors", random_tensors(1, {"a.weight": (6, 4), "b": (3,)}))
    (found,) = find_sets(tmp_path, Roots([tmp_path]))
    assert sorted(found.experts) == list(TASKS)
    assert ["control characters" in s.reason for s in found.skipped] == [True]


def test_headers_are_read_again_when_a_file_changes(tmp_path: Path) -> None:
    plain(tmp_path)
    path = tmp_path / "DTD.safetensors"
    assert peek(path) is peek(path)
    write(path, {"other": random_tensors(1, {"x": (9,)})["x"]})
    assert list(peek(path).shapes) == ["other"]
    (found,) = find_sets(tmp_path)
    assert list(found.experts) == ["MNIST"]


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        ({"w": torch.ones(2), "h": torch.ones(2).half()}, True),
        (OrderedDict(a=nn.Parameter(torch.ones(2)), name="cos\nsystem\n"), False),  # a text that looks like a name
        (nn.Linear(2, 2), False),
        ({"w": torch.ones(2), "when": date(2020, 1, 1)}, False),
    ],
)
def test_a_glance_says_no_more_than_the_reader(tmp_path: Path, content: object, sound: bool) -> None:
    torch.save(content, tmp_path / "a.pt")
    found, whole = glance(tmp_path / "a.pt"), peek(tmp_path / "a.pt")
    assert (found is whole) is not sound  # in doubt the reader decides
    assert (found.kind, found.size, found.error, found.pickled) == (whole.kind, whole.size, whole.error, whole.pickled)


def test_a_damaged_archive_is_left_to_the_reader(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-50])
    assert "damaged" in glance(tmp_path / "a.pt").error


def test_a_file_or_nothing_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected a folder"):
        find_sets(write(tmp_path / "x.safetensors", random_tensors(1)))
    with pytest.raises(InputError, match="There is no"):
        find_sets(tmp_path / "missing")


def test_another_base_is_no_expert_any_more(tmp_path: Path) -> None:
    (found,) = find_sets(task_vectors(tmp_path))
    named = found.with_base(found.experts["DTD"])
    assert list(named.experts) == ["MNIST"] and named.base == found.experts["DTD"]
    assert found.with_base(None) is found
    with pytest.raises(InputError, match="at least one expert"):
        named.with_base(found.experts["MNIST"]).checked()
