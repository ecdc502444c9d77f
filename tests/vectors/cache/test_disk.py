"""Factors and bases in files: found again, bounded, and of no harm when they are damaged or the process dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.errors import InputError
from dcmerge.merging.merge import merge
from dcmerge.vectors.cache import Store, content_key, default_store
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import full_set, lora_set, random_deltas

NAME = "visual.mlp.c_fc.weight"
SHAPES = {NAME: (300, 256), "visual.ln.bias": (12,)}


def kilobytes(count: int, value: float = 0.0) -> dict[str, Tensor]:
    return {"tensor": torch.full((count * 256,), value)}


def never() -> dict[str, Tensor]:
    pytest.fail("computed again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_what_one_store_keeps_another_finds(store: Store) -> None:
    store.get("key", lambda: kilobytes(1, 3.0))
    found = Store(store.folder).get("key", never)
    assert torch.equal(found["tensor"], torch.full((256,), 3.0))
    assert store.usage().entries == 1 and store.usage().nbytes > 1024


def test_what_does_not_fit_is_computed_and_replaced(store: Store) -> None:
    store.save("key", kilobytes(1))
    assert store.get("key", lambda: kilobytes(2), fits=lambda known: len(known["tensor"]) >= 512)["tensor"].numel() == 512
    assert store.get("key", never)["tensor"].numel() == 512


def test_the_least_recently_used_leave_first(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=10_000)
    for age, key in enumerate(("old", "used", "new")):
        store.save(key, kilobytes(3))
        os.utime(tmp_path / f"{key}.safetensors", (age, age))
    assert store.load("used") is not None
    store.save("last", kilobytes(3))
    assert {path.stem for path in tmp_path.iterdir()} == {"used", "last"} and store.usage().nbytes <= 10_000


@pytest.mark.parametrize("damage", [b"", b"no header", bytes(200)])
def test_a_damaged_entry_is_removed_and_computed_again(store: Store, damage: bytes) -> None:
    store.save("key", kilobytes(1))
    (store.folder / "key.safetensors").write_bytes(damage)
    assert store.load("key") is None and store.usage().entries == 0
    assert store.get("key", lambda: kilobytes(1, 2.0))["tensor"][0] == 2.0


def zeroed(path: Path) -> None:
    """Its numbers lost behind an intact header, as a disk does that loses power."""
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:header] + bytes(len(data) - header))


@pytest.mark.parametrize("known", [False, True])
def test_lost_numbers_are_computed_again(store: Store, known: bool, caplog: pytest.LogCaptureFixture) -> None:
    store.save("key", kilobytes(1, 3.0))
    if known:
        assert store.load("key") is not None
    zeroed(store.folder / "key.safetensors")
    with caplog.at_level(logging.WARNING):
        assert store.get("key", lambda: kilobytes(1, 2.0))["tensor"][0] == 2.0
    assert "removed the damaged cache entry key.safetensors" in caplog.text and "computed again" in caplog.text
    assert Store(store.folder).get("key", never)["tensor"][0] == 2.0


def test_an_entry_without_a_digest_is_not_trusted(store: Store) -> None:
    store.folder.mkdir()
    save_file(kilobytes(1, 3.0), store.folder / "key.safetensors")
    assert store.load("key") is None


def test_a_merge_with_lost_factors_is_the_merge_without_them(tmp_path: Path, store: Store) -> None:
    wanted = merge(opened(tmp_path / "one", store), "dc_merge").deltas
    for path in store.folder.iterdir():
        zeroed(path)
    found = merge(opened(tmp_path / "two", Store(store.folder)), "dc_merge").deltas
    assert all(torch.equal(wanted[name], found[name]) and wanted[name].any() for name in wanted)


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        assert store.get("a", lambda: kilobytes(1))["tensor"].numel() == 256
        assert store.get("b", lambda: kilobytes(1))["tensor"].numel() == 256
    assert len(caplog.records) == 1 and "nothing is kept in the cache" in caplog.text


def test_clearing_removes_entries_and_parts_and_nothing_else(store: Store) -> None:
    store.save("a", kilobytes(1))
    (store.folder / ".b.part").write_bytes(b"x" * 10)
    (store.folder / "notes.txt").write_text("mine")
    removed = store.clear()
    assert removed.entries == 2 and [path.name for path in store.folder.iterdir()] == ["notes.txt"]
    assert Store(store.folder / "not there").clear().entries == 0


def test_parts_of_dead_processes_leave(store: Store) -> None:
    store.save("a", kilobytes(1))
    for name, age in ((".dead.part", 7200), (".alive.part", 60)):
        (store.folder / name).write_bytes(b"x")
        os.utime(store.folder / name, (time.time() - age,) * 2)
    store.save("b", kilobytes(1))
    assert sorted(path.name for path in store.folder.glob(".*")) == [".alive.part"]


WRITER = """
import sys, torch
from dcmerge.vectors.cache import Store
store = Store(sys.argv[1])
print("begun", flush=True)
while True:
    for key in "abcd":
        store.save(key, {"tensor": torch.full((1 << 18,), float(ord(key)))})
"""


def test_readers_never_see_half_an_entry_while_writers_are_killed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(2):
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout.readline() == b"begun\n"
        while store.load("d") is None:
            time.sleep(0.01)
        for key in "abcd" * 20:
            found = store.load(key)
            assert found is not None and (found["tensor"] == float(ord(key))).all()
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        assert all((store.load(key)["tensor"] == float(ord(key))).all() for key in "abcd")


def test_the_key_follows_the_content() -> None:
    a, b = torch.arange(6.0), torch.arange(6.0) + 1
    keys = [
        content_key(["x"], [a]),
        content_key(["y"], [a]),
        content_key(["x"], [b]),
        content_key(["x"], [a.reshape(2, 3)]),
        content_key(["x"], [a.double()]),
        content_key(["x"], [a, b]),
        content_key(["x"], [b, a]),
        content_key(["x"], [LowRank(a.reshape(2, 3), b.reshape(3, 2))]),
    ]
    assert len(set(keys)) == len(keys) and content_key(["x"], [a.clone()]) == keys[0]
    assert content_key(["x"], [torch.zeros(0)]) != content_key(["x"], [])


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DCMERGE_CACHE", "off")
    assert default_store() is None
    monkeypatch.setenv("DCMERGE_CACHE", str(tmp_path))
    monkeypatch.setenv("DCMERGE_CACHE_BYTES", "1000")
    assert (default_store().folder, default_store().max_bytes) == (tmp_path, 1000)
    monkeypatch.setenv("DCMERGE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert default_store().folder == tmp_path / "home" / "dcmerge"
    monkeypatch.setenv("DCMERGE_CACHE_BYTES", "many")
    with pytest.raises(InputError, match="DCMERGE_CACHE_BYTES: expected a number of bytes, got 'many'"):
        default_store()


def opened(folder: Path, store: Store, seed: int = 0) -> TaskVectors:
    vectors = full_set(folder, random_deltas(3, seed, SHAPES))
    vectors.store = store
    return vectors


def no_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("truncated_svds", "cover_basis"):
        monkeypatch.setattr(f"dcmerge.vectors.layers.{name}", lambda *_: pytest.fail("factors were computed again"))


@pytest.mark.parametrize("slug", ["dc_merge", "tsv_m"])
def test_a_second_start_computes_no_svd(tmp_path: Path, store: Store, slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = merge(opened(tmp_path / "one", store), slug).deltas
    no_svd(monkeypatch)
    second = merge(opened(tmp_path / "two", store), slug).deltas
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_smaller_rank_reuses_the_factors(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = layer_of(opened(tmp_path / "one", store), NAME).factors(20)
    no_svd(monkeypatch)
    narrow = layer_of(opened(tmp_path / "two", store), NAME).factors(5)
    for known, found in zip(wide, narrow, strict=True):
        assert torch.equal(known.truncate(5).U, found.U) and torch.equal(known.spectrum, found.spectrum)


def test_other_weights_are_other_entries(tmp_path: Path, store: Store) -> None:
    first = layer_of(opened(tmp_path / "one", store), NAME).factors(5)
    other = layer_of(opened(tmp_path / "two", store, seed=9), NAME).factors(5)
    assert store.usage().entries == 2 and not torch.equal(first[0].s, other[0].s)


def test_adapters_are_kept_too(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(folder: str) -> TaskVectors:
        draw = torch.Generator().manual_seed(0)
        factors = {
            t: {"q.weight": (torch.randn(300, r, generator=draw), torch.randn(r, 256, generator=draw))}
            for t, r in (("a", 4), ("b", 2))
        }
        opened = lora_set(tmp_path / folder, factors)
        opened.store = store
        return opened

    first = layer_of(vectors("one"), "q.weight")
    wanted, basis = first.factors(4), first.cover_basis(4)
    no_svd(monkeypatch)
    again = layer_of(vectors("two"), "q.weight")
    for known, found in zip(wanted, again.factors(4), strict=True):
        assert torch.equal(known.V, found.V) and torch.equal(known.spectrum, found.spectrum)
    assert torch.equal(basis.left, again.cover_basis(4).left)
