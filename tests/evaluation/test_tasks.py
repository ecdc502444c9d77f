"""Splits, limits that keep the classes' shares, and tasks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.evaluation import Split, Task, stratified_indices

labelled = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(torch.tensor)


def split(labels: Tensor) -> Split:
    return Split(torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 1, 1), labels)


@given(labels=labelled, limit=st.integers(1, 250), seed=st.integers(0, 3))
def test_every_class_has_its_share_up_to_one_image(labels: Tensor, limit: int, seed: int) -> None:
    chosen = stratified_indices(labels, limit, seed)
    assert len(chosen) == min(limit, len(labels)) == len(chosen.unique())
    assert torch.equal(chosen, chosen.sort().values) and torch.equal(chosen, stratified_indices(labels, limit, seed))
    for label in labels.unique():
        share = len(chosen) * (labels == label).sum().item() / len(labels)
        assert abs((labels[chosen] == label).sum().item() - share) < 1


def test_a_large_class_beside_many_small_ones_keeps_its_share() -> None:
    """900 images of one class, 20 classes of 5: of 110 images 99 are of the large one."""
    labels = torch.cat([torch.zeros(900), torch.arange(1, 21).repeat(5)]).long()
    assert (labels[stratified_indices(labels, 110)] == 0).sum() == 99


def test_classes_of_equal_size_are_drawn_equally() -> None:
    labels = torch.arange(10).repeat(100)
    assert labels[stratified_indices(labels, 50)].bincount().tolist() == [5] * 10


def test_seeds_draw_other_images() -> None:
    labels = torch.arange(2).repeat(50)
    assert not torch.equal(stratified_indices(labels, 10, 0), stratified_indices(labels, 10, 1))


def test_a_split_without_or_with_a_large_limit_is_itself() -> None:
    whole = split(torch.tensor([0, 1, 0, 1]))
    assert whole.subset(None) is whole and whole.subset(4) is whole and whole.subset(9) is whole


def test_images_and_labels_stay_together() -> None:
    whole = split(torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]))
    part = whole.subset(5)
    assert len(part) == 5 and torch.equal(whole.labels[part.images[:, 0, 0, 0].long()], part.labels)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=f"limit: expected at least 1 image a task, got {limit}"):
        split(torch.tensor([0, 1])).subset(limit)


def test_a_task_names_its_splits() -> None:
    task = Task("t", "T", ("a", "b"), torch.eye(2), {"val": split(torch.tensor([0])), "test": split(torch.tensor([1]))})
    assert task.split("test").labels.tolist() == [1]
    with pytest.raises(InputError, match="split: expected one of val, test, got 'train'"):
        task.split("train")
