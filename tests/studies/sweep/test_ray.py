"""Sweeps and comparisons on a Ray cluster of three nodes, one of which is killed in the middle. Needs Ray (the extra "ray")."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dcmerge import InputError
from dcmerge.errors import Cancelled
from dcmerge.evaluation import Bench
from dcmerge.runtime.engines import Engine, Here, Ray
from dcmerge.studies.comparison import compare
from dcmerge.studies.small_sets import tiny_bench
from dcmerge.studies.sweep import Found, Plan, Point
from dcmerge.studies.sweep.running import sweep
from dcmerge.studies.sweep.store import Store

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets to the collector
PLAN = Plan.of("ties", ["density=0.1:0.9:9"], limit=8, test=False, early=False, scale=0.5)
NODES = 3


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that takes no work, and three nodes of one processor each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    found.workers = [found.add_node(num_cpus=1) for _ in range(NODES)]
    found.wait_for_nodes()
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def opener(tmp_path: Path) -> partial[Bench]:
    return partial(opened_there, tmp_path)


def opened_there(folder: Path) -> Bench:
    """The same models in every process, each with files of its own."""
    own = folder / str(os.getpid())
    own.mkdir(exist_ok=True)
    return tiny_bench(own)


def swept(opener: partial[Bench], path: Path, engine: Engine, **how: Any) -> Found:
    store = Store(path, PLAN)
    try:
        return sweep(opener(), PLAN, store, engine=engine, opener=opener, **how)
    finally:
        store.close()


def hits(found: Found) -> dict[int, list[list[bool]]]:
    return {point.number: [own.tolist() for own in point.hits.values()] for point in found.points}


def test_a_node_is_killed_and_no_point_is_lost_or_counted_twice(cluster: Any, opener: partial[Bench], tmp_path: Path) -> None:
    seen: Counter[int] = Counter()

    def kill_after_two(point: Point, found: Found) -> None:
        seen[point.number] += 1
        if sum(seen.values()) == 2:
            cluster.remove_node(cluster.workers.pop(), allow_graceful=False)

    spread = swept(opener, tmp_path / "spread.sqlite3", Ray(cluster.address), on_point=kill_after_two)
    alone = swept(opener, tmp_path / "alone.sqlite3", Here())
    assert not spread.errors and not spread.remaining and seen == Counter(range(9))
    assert hits(spread) == hits(alone) and spread.best is not None and alone.best is not None
    assert (spread.best.number, spread.estimate(spread.best)) == (alone.best.number, alone.estimate(alone.best))
    assert len(cluster.workers) == NODES - 1


def test_rows_of_a_comparison_are_the_same_as_on_one_machine(cluster: Any, opener: partial[Bench]) -> None:
    on: dict[str, Any] = {"limit": 8, "val_limit": 8}
    slugs, arrived = ["task_arithmetic", "ties", "tsv_m"], []
    spread = compare(
        opener(), slugs, **on, engine=Ray(cluster.address), opener=opener, on_row=lambda row: arrived.append(row.name)
    )
    alone = compare(opener(), slugs, **on)
    assert [row.name for row in spread.rows] == [row.name for row in alone.rows] == [*dict.fromkeys(arrived)]
    for one, other in zip(spread.rows, alone.rows, strict=True):
        assert one.measured.to_dict() == other.measured.to_dict() and one.scale == other.scale and one.gains == other.gains


def test_a_cancelled_sweep_leaves_the_cluster_free(cluster: Any, opener: partial[Bench], tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(Cancelled):
        swept(
            opener,
            tmp_path / "study.sqlite3",
            Ray(cluster.address),
            on_point=lambda point, found: seen.append(point.number),
            cancelled=lambda: len(seen) >= 2,
        )
    found = swept(opener, tmp_path / "study.sqlite3", Ray(cluster.address))
    assert sorted(point.number for point in found.points) == list(range(9))


def test_what_the_cluster_cannot_do_is_said(cluster: Any, opener: partial[Bench], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a node with 1 CPU and 1 GPU for each piece of work"):
        swept(opener, tmp_path / "a.sqlite3", Ray(cluster.address, gpus=1))
    with pytest.raises(InputError, match="expected a node with 64 CPU"):
        list(Ray(cluster.address, cpus=64).map(torch.sqrt, [torch.ones(1)]))
    with pytest.raises(InputError, match="not this one"):
        list(Ray(cluster.address).map(_refuse, [1]))


def _refuse(item: int) -> None:
    raise InputError(f"expected another number, not this one, got {item}")
