"""The order in which a sweep sees images: every beginning is a fair sample, and hits find back to their images."""

from __future__ import annotations

import pytest
import torch

from dcmerge.evaluation import Bench
from dcmerge.evaluation.ordered import OrderedImages, stratified_order
from dcmerge.studies.small_sets import tiny_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def test_every_beginning_has_each_class_in_its_share() -> None:
    labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 6)
    order = stratified_order(labels)
    assert sorted(order.tolist()) == list(range(24))
    for count in range(1, 25):
        seen = labels[order[:count]].bincount(minlength=3)
        wanted = count * torch.tensor([0.5, 0.25, 0.25])
        assert (seen - wanted).abs().max() <= 1.0, (count, seen)


def test_the_order_depends_on_the_seed_alone() -> None:
    labels = torch.arange(30) % 3
    assert torch.equal(stratified_order(labels, 1), stratified_order(labels, 1))
    assert not torch.equal(stratified_order(labels, 1), stratified_order(labels, 2))


def test_parts_together_are_the_whole_evaluation(bench: Bench) -> None:
    images = OrderedImages(bench, "val", 12)
    model = bench.base_weights()
    first, second = images.hits(model, 0.0, 0.5), images.hits(model, 0.5, 1.0)
    joined = {task: torch.cat([first[task], second[task]]) for task in first}
    assert {len(hits) for hits in first.values()} == {6} and {len(hits) for hits in joined.values()} == {12}
    expected = bench.evaluate(model, "base", split="val", limit=12, normalise=False)
    for task, hits in images.in_order_of_split(joined).items():
        assert torch.equal(hits, expected.tasks[task].hits)


def test_experts_are_right_where_the_bench_says_so(bench: Bench) -> None:
    images = OrderedImages(bench, "val")
    expected = bench.experts(split="val")
    found = images.in_order_of_split(images.experts())
    assert all(torch.equal(hits, expected.tasks[task].hits) for task, hits in found.items())


def test_shares_are_halves_that_hold_enough_images(bench: Bench) -> None:
    images = OrderedImages(bench, "val", 12)
    assert images.shares(least=12) == (1.0,)
    assert images.shares(least=6) == (0.5, 1.0)
    assert images.shares(least=3) == (0.25, 0.5, 1.0)
    assert [images.images(share) for share in images.shares(least=3)] == [3, 6, 12]
