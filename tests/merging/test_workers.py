"""A merge shared by processes: the same bytes as by one, and one sentence where it cannot be shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dcmerge import InputError, Target, TaskVectors, merge_to
from tests.builders import random_tensors, write

SHAPES = {f"model.layers.{i}.mlp.up_proj.weight": (24, 16) for i in range(5)} | {"model.norm.weight": (16,)}


@pytest.fixture
def vectors(tmp_path: Path) -> TaskVectors:
    base = random_tensors(0, SHAPES)
    paths = {}
    for seed, name in enumerate("ab", start=1):
        drawn = random_tensors(seed, SHAPES)
        paths[name] = write(tmp_path / f"{name}.safetensors", {n: value + 0.1 * drawn[n] for n, value in base.items()})
    found = TaskVectors.open(write(tmp_path / "base.safetensors", base), paths)
    found.store = None
    return found.mixed(weights={"a": 1.5}, depth="linear:0.5:1")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as each of two workers has on two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("slug", ["dc_merge", "ties"])
def test_two_processes_write_what_one_writes(vectors: TaskVectors, tmp_path: Path, slug: str) -> None:
    targets = {n: Target(tmp_path / f"{n}.safetensors", dtype="bfloat16") for n in (1, 2)}
    one, two = (merge_to(vectors, slug, target, scale=0.7, workers=n) for n, target in targets.items())
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.rounding and two.rounding and one.rounding.unchanged == two.rounding.unchanged
    assert one.rounding.error_square == pytest.approx(two.rounding.error_square)


def test_what_one_process_makes_alone_is_refused(vectors: TaskVectors, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers: expected whole models"):
        merge_to(vectors, "ties", Target(tmp_path / "out.safetensors", "delta"), workers=2)
    with pytest.raises(InputError, match="workers: emr looks at images"):
        merge_to(vectors, "emr", Target(tmp_path / "out.safetensors"), workers=2, task="a")
    assert not list(tmp_path.glob("*out*"))
