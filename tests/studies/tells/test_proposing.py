"""α and ρ without labels: the same whatever the labels are, and what a few lines find."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.merging.merge import merge
from dcmerge.studies.small_sets import tiny_bench
from dcmerge.studies.tells.measures import AGREEMENT, COSINE, DRIFT, LENGTH
from dcmerge.studies.tells.measuring import Images
from dcmerge.studies.tells.proposing import propose, scale_without_labels
from dcmerge.vectors.cache import Memo


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("set"), tasks=2)


def test_one_expert_is_found_again(bench: Bench) -> None:
    """Half an expert's task vector must be doubled, by every measure that compares with the expert."""
    alone = bench.select([next(iter(bench.tasks))])
    merged = merge(alone.vectors, "task_arithmetic")
    half = replace(merged, deltas={name: 0.5 * alone.vectors.delta(name, alone.vectors.tasks[0]) for name in merged.deltas})
    for by in (DRIFT, LENGTH):
        assert scale_without_labels(alone, half, by).value == pytest.approx(2.0)


def test_labels_play_no_part(bench: Bench) -> None:
    """The images in the same order with one label for all of them: another accuracy, the same α."""
    merged = merge(bench.vectors, "ties")
    found = scale_without_labels(bench, merged, AGREEMENT)
    images = Images.of(bench, 0, None)
    parts = {task: replace(part, labels=torch.zeros_like(part.labels)) for task, part in images.parts.items()}
    blind = replace(images, parts=parts)
    assert scale_without_labels(bench, merged, AGREEMENT, images=blind) == found
    assert found.origin.startswith("validation split without labels, by agreement, ") and len(found.curve) > 8
    for alpha, score in found.curve[:3]:
        weights, shares = bench.merged_weights(merged.deltas, alpha), []
        for task in bench.tasks:
            pool, head = bench.split(task, "val", None).images, bench.tasks[task].head.T
            own, expert = (bench.encoder.encode(one, pool) @ head for one in (weights, bench.expert_weights(task)))
            shares.append((own.argmax(dim=1) == expert.argmax(dim=1)).double().mean().item())
        assert score == pytest.approx(sum(shares) / len(shares))


def test_rho_is_proposed_where_a_method_smooths_by_it(bench: Bench) -> None:
    bench = replace(bench, memo=Memo(1 << 20))
    found = propose(bench, "dc_merge", {"smoothing": "linear"}, DRIFT, rhos=(1.0, 5.0))
    assert found.parameters["rho"] in (1.0, 5.0) and [rho for rho, *_ in found.tried] == [1.0, 5.0]
    best = max(found.tried, key=lambda one: one[2])
    assert (found.parameters["rho"], found.scale.value) == best[:2]
    assert propose(bench, "ties", {}, LENGTH).tried == ()


def test_a_measure_that_scale_does_not_change_is_refused(bench: Bench) -> None:
    with pytest.raises(InputError, match="measure: expected one of agreement, .* which change with α, got 'cosine'"):
        scale_without_labels(bench, merge(bench.vectors, "ties"), COSINE)
    assert scale_without_labels(bench, merge(bench.vectors, "average")).origin.startswith("fixed")
