"""One merge on a Ray cluster of two nodes, one of which is killed in the middle. Needs Ray (the extra "ray")."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dcmerge import InputError, Target, TaskVectors, merge_to
from dcmerge.errors import Cancelled
from dcmerge.runtime.engines import Ray
from tests.merging.test_workers import one_thread, vectors  # noqa: F401 (fixtures)

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that takes no work, and two nodes of one processor each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    found.workers = [found.add_node(num_cpus=1) for _ in range(2)]
    found.wait_for_nodes()
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.parametrize("slug", ["dc_merge", "ties"])
def test_a_cluster_writes_what_one_process_writes_though_a_node_dies(
    cluster: Any,
    vectors: TaskVectors,  # noqa: F811
    tmp_path: Path,
    slug: str,
) -> None:
    told: list[float] = []

    def kill_one(share: float, text: str) -> None:
        told.append(share)
        if len(told) == 3:
            cluster.remove_node(cluster.workers.pop(), allow_graceful=False)

    one = merge_to(vectors, slug, Target(tmp_path / "one.safetensors", dtype="bfloat16"), scale=0.7)
    there = Target(tmp_path / "there.safetensors", dtype="bfloat16")
    spread = merge_to(vectors, slug, there, scale=0.7, workers=Ray(cluster.address), progress=kill_one)
    assert spread.path.read_bytes() == one.path.read_bytes()
    assert len(cluster.workers) == 1 and told == sorted(told) and len(told) == len(vectors.parameters)


def test_what_a_cluster_cannot_do_leaves_nothing_behind(cluster: Any, vectors: TaskVectors, tmp_path: Path) -> None:  # noqa: F811
    target = Target(tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="expected a node with 64 CPU"):
        merge_to(vectors, "ties", target, workers=Ray(cluster.address, cpus=64))
    with pytest.raises(Cancelled):
        merge_to(vectors, "ties", target, workers=Ray(cluster.address), cancelled=lambda: True)
    with pytest.raises(InputError, match="engine: expected whole models"):
        merge_to(vectors, "ties", Target(tmp_path / "out.safetensors", "delta"), workers=Ray(cluster.address))
    assert not list(tmp_path.glob("*out*"))
