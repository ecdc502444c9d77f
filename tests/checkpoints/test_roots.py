"""Only what lies below the roots is read, whatever text comes from a browser."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dcmerge.checkpoints import Roots, open_checkpoint
from dcmerge.errors import InputError
from tests.checkpoints.builders import save_adapter


@pytest.fixture
def tree(tmp_path):
    """root/ (a file, folders, links inside and out), other/ (a second root), outside/ (forbidden)."""
    for folder in ("root/models", "other", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    for path in (
        "root/a.safetensors",
        "root/models/b.safetensors",
        "other/a.safetensors",
        "outside/secret.safetensors",
    ):
        save_file({"w": torch.ones(1)}, tmp_path / path)
    (tmp_path / "root/inside.safetensors").symlink_to(tmp_path / "root/a.safetensors")
    (tmp_path / "root/leaves.safetensors").symlink_to(tmp_path / "outside/secret.safetensors")
    (tmp_path / "root/leaves").symlink_to(tmp_path / "outside")
    (tmp_path / "root/dangling.safetensors").symlink_to(tmp_path / "gone")
    (tmp_path / "root/.hidden.safetensors").touch()
    os.mkfifo(tmp_path / "root/pipe.safetensors")
    return tmp_path


@pytest.fixture
def roots(tree):
    return Roots([tree / "root", tree / "other"])


@pytest.mark.parametrize(
    "text", ["a.safetensors", "models", "models/b.safetensors", "./a.safetensors", "inside.safetensors", "models/"]
)
def test_what_lies_inside_is_found(tree, roots, text):
    assert roots.resolve(text) == tree / "root" / text
    assert roots.resolve(str(tree / "root" / text)) == tree / "root" / text
    assert open_checkpoint(roots.resolve(text)).infos


REFUSED = {
    "empty": ("", "Expected the path"),
    "blank": ("  ", "Expected the path"),
    "NUL": ("a\0.safetensors", "without control characters"),
    "line break": ("a\n.safetensors", "without control characters"),
    "lone surrogate": ("a\udcff", "without control characters"),
    "parent": ("../outside/secret.safetensors", r"without \.\."),
    "parent inside": ("models/../a.safetensors", r"without \.\."),
    "absolute": ("/etc/passwd", "Expected a path below"),
    "device": ("/dev/zero", "Expected a path below"),
    "home": ("~/a.safetensors", "There is no"),
    "drive": ("C:/a.safetensors", "no drive or machine"),
    "drive without slash": ("c:a.safetensors", "no drive or machine"),
    "UNC": (r"\\host\share\a.safetensors", "no drive or machine"),
    "UNC with slashes": ("//host/share/a.safetensors", "no drive or machine"),
    "backslash parent": (r"..\a", "no drive or machine"),
    "missing": ("no.safetensors", "There is no"),
    "link out": ("leaves.safetensors", "is a link that leaves"),
    "through a link out": ("leaves/secret.safetensors", "is a link that leaves"),
    "dangling": ("dangling.safetensors", "Cannot open"),
    "pipe": ("pipe.safetensors", "device, pipe or socket"),
    "too long": ("a" * 5000, "There is no"),
    "folder with links out": (".", "is a link that leaves|Cannot open"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_leaves_is_refused(roots, text, message):
    with pytest.raises(InputError, match=message) as caught:
        roots.resolve(text)
    assert "\n" not in str(caught.value)


def test_a_neighbour_with_the_same_beginning_is_outside(tree):
    (tree / "root-more").mkdir()
    (tree / "root-more/a.pt").touch()
    with pytest.raises(InputError, match="Expected a path below"):
        Roots([tree / "root"]).resolve(str(tree / "root-more/a.pt"))


def test_text_alone_is_refused_before_the_disk_is_touched(roots, monkeypatch):
    def touched(*_, **__):
        raise AssertionError("the disk was touched")

    for name in ("stat", "lstat", "scandir", "open"):
        monkeypatch.setattr(os, name, touched)
    for text in ("../a", "/etc/passwd", r"\\host\a", "//host/a", "C:/a", "a\0"):
        with pytest.raises(InputError):
            roots.resolve(text)


def test_a_root_may_itself_be_a_link(tree):
    (tree / "link").symlink_to(tree / "root")
    roots = Roots([tree / "link"])
    assert roots.resolve("a.safetensors").samefile(tree / "root/a.safetensors")
    assert roots.resolve(str(tree / "link/a.safetensors")).samefile(tree / "root/a.safetensors")


def test_a_download_cache_of_links_opens(tmp_path):
    # The Hugging Face cache: names are links to files that are called by their hash.
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    save_file({"w": torch.ones(1)}, tmp_path / "blobs/0a1b")
    (tmp_path / "snapshots/model.safetensors").symlink_to("../blobs/0a1b")
    roots = Roots([tmp_path])
    for text in ("snapshots", "snapshots/model.safetensors"):
        assert list(open_checkpoint(roots.resolve(text)).infos) == ["w"]
    with pytest.raises(InputError, match="leaves"):
        Roots([tmp_path / "snapshots"]).resolve("model.safetensors")


@pytest.mark.parametrize("text", ["adapter", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"])
def test_files_that_are_opened_along_may_not_leave_either(tree, roots, text):
    save_adapter(tree / "root/adapter", target_modules=["c_fc"])
    assert open_checkpoint(roots.resolve(text)).kind == "lora"
    (tree / "root/adapter/adapter_config.json").rename(tree / "outside/adapter_config.json")
    (tree / "root/adapter/adapter_config.json").symlink_to(tree / "outside/adapter_config.json")
    with pytest.raises(InputError, match="leaves"):
        roots.resolve(text)


def test_lists_name_what_resolve_accepts(tree, roots):
    save_adapter(tree / "root/adapter", target_modules=["c_fc"])
    # other/a.safetensors is hidden by root/a.safetensors: only its absolute name is unambiguous.
    second = str(tree / "other/a.safetensors")
    assert roots.list("*.safetensors") == tuple(
        sorted(
            [
                "a.safetensors",
                "adapter/adapter_model.safetensors",
                "inside.safetensors",
                "models/b.safetensors",
                second,
            ]
        )
    )
    expected = ["a.safetensors", "adapter", "inside.safetensors", "models/b.safetensors", second]
    assert roots.checkpoints() == tuple(sorted(expected))
    assert all(open_checkpoint(roots.resolve(name)) for name in roots.checkpoints())
    assert len(roots.list("*", limit=2)) == 2


def test_a_root_that_does_not_exist_holds_nothing(tmp_path):
    roots = Roots([tmp_path / "none"])
    assert roots.list() == roots.checkpoints() == ()
    with pytest.raises(InputError, match="There is no a below"):
        roots.resolve("a")
    with pytest.raises(InputError, match="none was given"):
        Roots([]).resolve("a")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "/", "leaves", "models", "a.safetensors", "\\", "outside", "~", " "]), max_size=6))
def test_nothing_outside_is_ever_reached(tree, roots, pieces):
    for text in ("/".join(pieces), "".join(pieces)):
        try:
            found = roots.resolve(text)
        except InputError:
            continue
        real = os.path.realpath(found)
        assert real.startswith((str(tree / "root"), str(tree / "other")))
