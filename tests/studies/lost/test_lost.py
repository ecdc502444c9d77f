"""Lost images against a few independent lines, two runs image by image, and files that stay with their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench, Preprocess
from dcmerge.evaluation.datasets import open_data_set
from dcmerge.merging.merge import merge
from dcmerge.runs import Run
from dcmerge.runs.recording import measured_run
from dcmerge.studies.lost import BOTH, LOST, NEITHER, WON, Lost, images_of_run, lost_images, runs_apart
from dcmerge.studies.lost.tables import apart_image_rows, apart_rows, as_csv, image_rows, task_rows, to_data
from dcmerge.studies.small_sets import tiny_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("set"), tasks=3)


@pytest.fixture(scope="module")
def weights(bench: Bench) -> dict[str, torch.Tensor]:
    return bench.merged_weights(merge(bench.vectors, "average").deltas, 1.0)


@pytest.fixture(scope="module")
def found(bench: Bench, weights: dict[str, torch.Tensor]) -> Lost:
    return lost_images(bench, weights, split="test")


def test_images_are_lost_and_won_as_a_few_lines_find(bench: Bench, weights: dict[str, torch.Tensor], found: Lost) -> None:
    for name, task in bench.tasks.items():
        part, one = task.splits["test"], found.tasks[name]
        models = {"base": bench.base_weights(), "expert": bench.expert_weights(name), "merged": weights}
        logits = {model: bench.encoder.encode(own, part.images) @ task.head.T for model, own in models.items()}
        right = {model: own.argmax(dim=1) == part.labels for model, own in logits.items()}
        assert sorted(one.places(LOST)) == (right["expert"] & ~right["merged"]).nonzero()[:, 0].tolist()
        assert sorted(one.places(WON)) == (right["merged"] & ~right["expert"]).nonzero()[:, 0].tolist()
        fates = [place for fate in (LOST, WON, BOTH, NEITHER) for place in one.places(fate)]
        assert sorted(fates) == list(range(len(part)))
        for model, own in logits.items():
            for place in range(len(part)):
                true = int(part.labels[place])
                others = [value for label, value in enumerate(own[place].tolist()) if label != true]
                margin = bench.logit_scale.value * (own[place, true].item() - max(others))
                assert one.answers(model).margin[place].item() == pytest.approx(margin, abs=1e-4)
            table = one.confusion(model)
            for true in range(len(task.classes)):
                for said in range(len(task.classes)):
                    count = int(((part.labels == true) & (own.argmax(dim=1) == said)).sum())
                    assert table[true, said] == count


def test_accuracies_are_those_of_the_bench(bench: Bench, weights: dict[str, torch.Tensor], found: Lost) -> None:
    measured, experts = bench.evaluate(weights, "merged", split="test"), bench.experts(split="test")
    for row in task_rows(found):
        assert row["merged"] == pytest.approx(100 * measured.tasks[row["task"]].accuracy, abs=0.01)
        assert row["expert"] == pytest.approx(100 * experts.tasks[row["task"]].accuracy, abs=0.01)
        assert row["merged"] - row["expert"] == pytest.approx(100 * (row["won"] - row["lost"]) / row["images"], abs=0.02)


def test_the_worst_losses_come_first(found: Lost) -> None:
    for one in found.tasks.values():
        apart = [(one.expert.margin - one.merged.margin)[place].item() for place in one.places(LOST)]
        assert apart == sorted(apart, reverse=True) and all(value > 0 for value in apart)


def test_new_mistakes_are_more_often_the_merges(found: Lost) -> None:
    for one in found.tasks.values():
        for true, said, count in one.confused():
            at = one.classes.index(true), one.classes.index(said)
            assert count == int(one.confusion("merged")[at] - one.confusion("expert")[at]) > 0 and true != said


def test_rows_hold_every_image(bench: Bench, found: Lost) -> None:
    rows = image_rows(found, bench)
    assert len(rows) == sum(len(task.splits["test"]) for task in bench.tasks.values()) == as_csv(found, bench).count("\n") - 1
    data = to_data(found)
    for name, one in found.tasks.items():
        own = [row for row in rows if row["task"] == name]
        assert [row["image"] for row in own if row["fate"] == LOST] == sorted(data["places"][name][LOST])
        assert all((row["merged"] == row["true"]) == (row["merged margin"] > 0) for row in own)
        assert sum(map(sum, data["confusion"][name]["merged"])) == len(one.labels)


def test_it_can_be_cancelled(bench: Bench, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(Cancelled):
        lost_images(bench, weights, cancelled=lambda: True)


def run_of(bench: Bench, slug: str, limit: int | None = None) -> Run:
    own = bench.merged_weights(merge(bench.vectors, slug).deltas, 1.0)
    return measured_run(bench, "tiny", "look", slug, bench.evaluate(own, slug, split="test", limit=limit))


def test_two_runs_are_told_apart_image_by_image(bench: Bench) -> None:
    first, second = run_of(bench, "average"), run_of(bench, "task_arithmetic")
    found, images = runs_apart(first, second), images_of_run(bench, first)
    for task, one in found.tasks.items():
        a, b = first.hits[task].tolist(), second.hits[task].tolist()
        assert one.only_first == [place for place in range(len(a)) if a[place] and not b[place]]
        assert one.only_second == [place for place in range(len(a)) if b[place] and not a[place]]
        assert one.both + one.neither + len(one.only_first) + len(one.only_second) == len(a)
        torch.testing.assert_close(images[task].images, bench.tasks[task].splits["test"].images)
    assert found.difference.value == pytest.approx(second.evaluation.mean - first.evaluation.mean)
    rows = apart_image_rows(found, images, bench)
    assert len(rows) == sum(row["only first"] + row["only second"] for row in apart_rows(found))
    assert all(row["true"] in bench.tasks[row["task"]].classes for row in rows)


def test_runs_on_other_images_are_refused(bench: Bench, tmp_path: Path) -> None:
    first = run_of(bench, "average")
    with pytest.raises(InputError, match="expected two on the same images"):
        runs_apart(first, run_of(bench, "average", limit=7))
    with pytest.raises(InputError, match="expected one on images of this set"):
        images_of_run(tiny_bench(tmp_path, tasks=2), first)


def test_a_run_on_some_images_finds_them_again(bench: Bench) -> None:
    some = images_of_run(bench, run_of(bench, "average", limit=7))
    assert {len(part) for part in some.values()} == {7}


def test_files_stay_with_their_images(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 9)):
        for label in ("cat", "dog"):
            folder = tmp_path / "pets" / part / label
            folder.mkdir(parents=True)
            for place in range(count):
                Image.new("RGB", (8, 8), (place * 10, 200 * (label == "dog"), 0)).save(folder / f"{place}.png")
    size = Preprocess((4, 4))
    part = open_data_set("pets", tmp_path).splits["test"].decoded(size).subset(6)
    assert len(part.files) == 6
    for place, file in enumerate(part.files):
        assert (file.parent.name == "dog") == bool(part.labels[place]) == bool(part.images[place, 1].float().mean() > 100)
        assert part.images[place, 0].float().mean().item() == pytest.approx(10 * int(file.stem), abs=1)
