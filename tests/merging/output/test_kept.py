"""What a killed merge had finished is taken over by the same merge, and by no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dcmerge import Target, TaskVectors, merge_to
from dcmerge.checkpoints import TensorInfo, leftovers
from dcmerge.merging.output import kept as kept_module
from dcmerge.merging.output.kept import Kept, claimed
from dcmerge.merging.output.rounding import Rounding
from tests.builders import full_set, random_deltas, random_tensors

SHAPES = {f"model.layers.{i}.mlp.up_proj.weight": (24, 16) for i in range(4)} | {"model.norm.weight": (16,)}
INFO = TensorInfo((3, 4), torch.bfloat16)
LOST = Rounding({"bfloat16"}, 12, 3, 0.25, 2.0)


@pytest.fixture(autouse=True)
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "_WORTH_KEEPING", 0)


@pytest.fixture
def vectors(tmp_path: Path) -> TaskVectors:
    return full_set(tmp_path, random_deltas(2, shapes=SHAPES), random_tensors(0, SHAPES))


def as_if_killed(path: Path, content: bytes) -> Path:
    """The file under the name that a process which is gone would have given it."""
    gone = 2**22 + 12345  # above the largest number of a process
    other = path.with_name(path.name.replace(f".{os.getpid()}.", f".{gone}."))
    other.write_bytes(content)
    return other


def content_after(path: Path, count: int) -> bytes:
    """The kept file when ``count`` parameters are finished."""
    with Kept(path, "a recipe") as kept:
        for place in range(count):
            kept.add(f"w{place}", torch.full((3, 4), place, dtype=torch.bfloat16), LOST, float(place))
        return path.read_bytes()


def test_what_is_kept_comes_back_and_a_torn_end_does_not(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    whole, last = content_after(path, 3), content_after(path, 2)
    assert not path.exists()
    path.write_bytes(whole[:-5])
    with Kept(path, "a recipe") as kept:
        assert [kept.has(f"w{place}", INFO) for place in range(4)] == [True, True, False, False]
        value, lost, square = kept.get("w1", INFO)
        assert torch.equal(value, torch.ones(3, 4, dtype=torch.bfloat16)) and (lost, square) == (LOST, 1.0)
        assert not kept.has("w0", TensorInfo((3, 4), torch.float32)) and path.stat().st_size == len(last)
        kept.add("w2", torch.full((3, 4), 2, dtype=torch.bfloat16), LOST, 2.0)
        assert path.read_bytes() == whole and "took 1 parameters over" in kept.notes[0]


@pytest.mark.parametrize("spoil", ["another recipe", "other bytes", "no merge's"])
def test_what_is_not_the_same_is_not_taken(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "kept"
    whole = bytearray(content_after(path, 1))
    if spoil == "other bytes":
        whole[-1] ^= 1
    path.write_bytes(b"x" * 300 if spoil == "no merge's" else bytes(whole))
    with Kept(path, "another recipe" if spoil == "another recipe" else "a recipe") as kept:
        assert not kept.has("w0", INFO) and kept.notes == ()
    assert not path.exists()


@pytest.mark.parametrize("folder", [False, True])
def test_a_merge_goes_on_where_a_killed_one_was_cut_off(
    vectors: TaskVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    seen: dict[str, bytes] = {}
    target = Target(tmp_path / ("out" if folder else "out.safetensors"), dtype="bfloat16")

    def look(share: float, name: str) -> None:
        for file in tmp_path.glob("*.kept.*"):
            seen[file.name] = file.read_bytes()  # the last look is what a kill before the last parameter leaves

    whole = merge_to(vectors, "dc_merge", target, progress=look)
    wanted = {file: (whole.path / file if folder else whole.path).read_bytes() for file in whole.files}
    ((name, content),) = seen.items()
    left = as_if_killed(tmp_path / name, content)
    merged: list[str] = []
    again = merge_to(
        vectors,
        "dc_merge",
        Target(target.path, dtype="bfloat16", replace=True),
        progress=lambda share, text: merged.append(text),
    )
    weights = [file for file in wanted if file.endswith(".safetensors")]
    assert all((again.path / file if folder else again.path).read_bytes() == wanted[file] for file in weights)
    assert any(f"took {len(SHAPES) - len(merged)} parameters over" in note for note in again.notes) and len(merged) < len(SHAPES)
    assert not left.exists() and not list(tmp_path.glob(".*.part"))


def test_a_part_of_a_living_process_is_not_claimed(tmp_path: Path) -> None:
    own = claimed(tmp_path / "out.safetensors")
    own.write_bytes(b"mine")
    assert claimed(tmp_path / "out.safetensors") != own and own.read_bytes() == b"mine"
    gone = as_if_killed(own, b"its")
    assert leftovers.left_by_others(tmp_path, "out.safetensors.kept") == [gone]
    assert claimed(tmp_path / "out.safetensors").read_bytes() == b"its" and not gone.exists()
