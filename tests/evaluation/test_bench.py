"""The bench on a tiny real encoder, and the choice of the scale on a bench whose optimum is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, InputError, TaskVectors, merge
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Bench, Evaluation, ImageEncoder, Split, Task, choose_scale
from dcmerge.evaluation.accuracy import TaskAccuracy
from tests.builders import full_set, lora_set, random_deltas, random_tensors

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
    "preprocess": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}
TASKS = ("task0", "task1")
CLASSES = 3


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder(CONFIG)


def base_of(encoder: ImageEncoder) -> dict[str, Tensor]:
    return random_tensors(0, encoder.shapes, scale=0.5)


def tasks_for(encoder: ImageEncoder, weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Task]:
    """Random images, labelled by what the task's own expert says, but for one in ten."""
    tasks = {}
    for seed, name in enumerate(weights):
        draw = torch.Generator().manual_seed(seed)
        head = torch.nn.functional.normalize(torch.randn(CLASSES, 8, generator=draw), dim=-1)
        splits = {}
        for split, count in (("val", 40), ("test", 60)):
            images = torch.randint(0, 256, (count, 3, 16, 16), generator=draw, dtype=torch.uint8)
            labels = (encoder.encode(weights[name], images) @ head.T).argmax(dim=1)
            labels[::10] = (labels[::10] + 1) % CLASSES
            splits[split] = Split(images, labels.clone())
        tasks[name] = Task(name, name.title(), ("a", "b", "c"), head, splits)
    return tasks


@pytest.fixture(scope="module")
def bench(encoder: ImageEncoder, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    base = base_of(encoder)
    moves = random_deltas(2, shapes={name: tuple(value.shape) for name, value in base.items()})
    deltas = {task: {name: 0.3 * d for name, d in own.items()} for task, own in moves.items()}
    vectors = full_set(tmp_path_factory.mktemp("bench"), deltas, base)
    experts = {task: {name: base[name] + d for name, d in own.items()} for task, own in deltas.items()}
    return Bench(encoder, tasks_for(encoder, experts), vectors)


def test_the_encoder_is_open_clips(encoder: ImageEncoder) -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(**{key: CONFIG[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}).eval()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(CONFIG["preprocess"][key])[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        wanted = model.encode_image((images / 255 - mean) / std, normalize=True)
    found = encoder.encode(model.state_dict(), images)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


def test_batches_and_weights_leave_no_trace(encoder: ImageEncoder) -> None:
    before, base = encoder.visual.state_dict(), base_of(encoder)
    images = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8)
    wanted = encoder.encode(base, images)
    told: list[float] = []
    found = replace(encoder, batch_size=3).encode(base, images, progress=told.append)
    torch.testing.assert_close(found, wanted)
    assert told == [0, pytest.approx(1 / 3), pytest.approx(2 / 3)]
    encoder.encode({name: value + 1 for name, value in base.items()}, images)
    assert all(torch.equal(value, before[name]) for name, value in encoder.visual.state_dict().items())


def test_other_weights_are_refused_by_name(encoder: ImageEncoder, bench: Bench) -> None:
    weights = base_of(encoder)
    del weights["visual.proj"]
    weights["visual.ln_pre.bias"] = torch.ones(3)
    with pytest.raises(InputError, match=r"missing visual.proj; visual.ln_pre.bias \(expected \[16\], got \[3\]\)"):
        encoder.encode(weights, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_a_base_of_another_architecture_is_refused_in_one_sentence(bench: Bench, tmp_path: Path) -> None:
    other = full_set(tmp_path, {"task0": {"lm.weight": torch.ones(2, 2)}})
    with pytest.raises(InputError, match="expected the weights of this image encoder, got other ones: missing visual"):
        Bench(bench.encoder, bench.tasks, other).zero_shot()


def test_the_experts_are_right_where_their_labels_come_from(bench: Bench) -> None:
    experts = bench.experts()
    assert {name: row.accuracy for name, row in experts.tasks.items()} == dict.fromkeys(TASKS, pytest.approx(0.9))
    assert (experts.model, experts.split, experts.mean_normalised) == (EXPERTS, "test", 1.0)
    assert bench.experts() is experts
    assert bench.experts(split="val").tasks["task0"].images == 40


def test_the_base_row(bench: Bench) -> None:
    base = bench.zero_shot()
    assert base.model == ZERO_SHOT and bench.zero_shot() is base and base.mean < 0.9
    row, task = base.tasks["task1"], bench.tasks["task1"]
    features = bench.encoder.encode(bench.base_weights(), task.splits["test"].images)
    assert torch.equal(row.hits, (features @ task.head.T).argmax(dim=1) == task.splits["test"].labels)
    assert row.normalised == pytest.approx(row.accuracy / 0.9)


def test_an_expert_is_base_plus_its_delta(bench: Bench) -> None:
    delta = {name: bench.vectors.delta(name, "task0") for name in bench.vectors.parameters}
    found = bench.evaluate(bench.merged_weights(delta, 1.0), "own")
    assert torch.equal(found.tasks["task0"].hits, bench.experts().tasks["task0"].hits)
    assert found.tasks["task0"].normalised == 1.0
    nothing = bench.evaluate(bench.merged_weights(delta, 0.0), "none", normalise=False)
    assert nothing.mean == bench.zero_shot().mean and nothing.mean_normalised is None


def test_a_limit_evaluates_the_same_part_for_every_model(bench: Bench) -> None:
    found = bench.evaluate(bench.base_weights(), "base", split="val", limit=10)
    assert found.limit == 10 and found.measured_on == "validation split, 10 images a task"
    assert {row.images for row in found.tasks.values()} == {10}
    part = bench.split("task0", "val", 10)
    assert bench.split("task0", "val", 10) is part
    expert = bench.experts(split="val", limit=10).tasks["task0"]
    assert found.tasks["task0"].expert == expert.accuracy and expert.images == 10


def test_merging_reaches_the_bench(bench: Bench) -> None:
    merged = merge(bench.vectors, "task_arithmetic").deltas
    before = {name: delta.clone() for name, delta in merged.items()}
    told: list[tuple[float, str]] = []
    found = bench.evaluate(bench.merged_weights(merged, 0.5), "merged", progress=lambda *step: told.append(step))
    assert 0 < found.mean <= 1 and told and all("merged: test images" in text for _, text in told)
    assert all(torch.equal(delta, before[name]) for name, delta in merged.items())
    base = bench.base_weights()
    assert all(torch.equal(value, bench.vectors.base_tensor(name)) for name, value in base.items())


def test_bad_requests_and_cancelling(bench: Bench) -> None:
    base = bench.base_weights()
    with pytest.raises(InputError, match="split: expected one of val, test, got 'train'"):
        bench.evaluate(base, "base", split="train")
    with pytest.raises(InputError, match="limit: expected at least 1"):
        bench.evaluate(base, "base", limit=0)
    with pytest.raises(Cancelled):
        bench.evaluate(base, "base", cancelled=lambda: True)


def test_adapters_on_the_bench(bench: Bench, tmp_path: Path) -> None:
    """The experts' deltas of one weight, as factors, give the same rows as dense."""
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    base = bench.base_weights()
    draw = torch.Generator().manual_seed(5)
    pairs = {t: {name: (torch.randn(64, 2, generator=draw), torch.randn(2, 16, generator=draw))} for t in TASKS}
    low = Bench(bench.encoder, bench.tasks, lora_set(tmp_path / "low", pairs, base=base))
    dense = {task: {name: B @ A for name, (B, A) in own.items()} for task, own in pairs.items()}
    padded = {t: {n: own.get(n, torch.zeros_like(value)) for n, value in base.items()} for t, own in dense.items()}
    full = Bench(bench.encoder, bench.tasks, full_set(tmp_path / "full", padded, base))
    for task in TASKS:
        found = (low.experts().tasks[task].hits == full.experts().tasks[task].hits).double().mean()
        assert found >= 0.98  # rounding of base + delta may turn a close call


class KnownBench:
    """A bench whose mean validation accuracy is a given function of α; counts what it is asked."""

    tasks: Mapping[str, Any] = {"task": None}

    def __init__(self, accuracy: Callable[[float], float], expert: float | None = 1.0) -> None:
        self.accuracy, self.expert, self.tried = accuracy, expert, []

    def merged_weights(self, merged: Mapping[str, Tensor], scale: float) -> float:
        self.tried.append(round(scale, 6))
        return scale

    def split(self, task: str, split: str, limit: int | None = None, seed: int = 0) -> Tensor:
        assert split == "val"
        return torch.zeros(limit or 1000)

    def evaluate(self, scale: float, model: str, *, split: str, limit: int | None, cancelled: Any) -> Evaluation:
        assert split == "val"
        if cancelled and cancelled():
            raise Cancelled
        hits = torch.arange(1000) < round(1000 * self.accuracy(scale))
        return Evaluation(model, split, {"task": TaskAccuracy("task", hits, self.expert)})


def peak(at: float, width: float = 1.0) -> Callable[[float], float]:
    return lambda scale: max(0.0, 0.9 - abs(scale - at) / (5 * width))


@pytest.mark.parametrize("at", [0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 1.0, 1.7, 2.2, 2.8, 2.9, 3.0])
@pytest.mark.parametrize("coarse", [1, 2, 4, 7])
def test_the_best_scale_of_the_grid_is_found(at: float, coarse: int) -> None:
    bench = KnownBench(peak(at))
    found = choose_scale(bench, {}, coarse=coarse)
    assert found.value == at and found.origin == "validation split, 1000 images a task"
    assert len(bench.tried) == len(set(bench.tried)), "every α is evaluated once"
    assert [point for point, _ in found.curve] == sorted(bench.tried)
    assert dict(found.curve)[at] == max(value for _, value in found.curve)


def test_coarse_to_fine_needs_a_third_of_the_grid() -> None:
    bench = KnownBench(peak(1.3))
    choose_scale(bench, {})
    assert len(bench.tried) <= 15


@pytest.mark.parametrize("at", [3.3, 4.0, 7.9])
def test_an_optimum_beyond_the_grid_is_followed(at: float) -> None:
    assert choose_scale(KnownBench(peak(at, width=3.0)), {}).value == at


@pytest.mark.parametrize("at", [0.02, 0.04, 0.06, 0.12, 0.016])
def test_an_optimum_near_the_first_value_is_found_in_fifths(at: float) -> None:
    found = choose_scale(KnownBench(lambda scale: peak(at, width=0.2)(scale)), {})
    assert found.value == at and "tried" not in found.origin


@pytest.mark.parametrize(("accuracy", "value", "end"), [(peak(0.0), 0.01, "smallest"), (peak(12.0, width=10.0), 10.0, "largest")])
def test_a_scale_at_the_border_of_what_was_tried_says_so(accuracy: Callable[[float], float], value: float, end: str) -> None:
    found = choose_scale(KnownBench(accuracy), {})
    assert found.value == value
    assert found.origin == f"validation split, 1000 images a task; the {end} value tried"


def test_ties_go_to_the_smaller_scale() -> None:
    plateau = KnownBench(lambda scale: 0.7 if 0.55 < scale < 1.25 else 0.2)
    assert choose_scale(plateau, {}, coarse=1).value == 0.6
    assert choose_scale(KnownBench(lambda scale: 0.5), {}).value == 0.1


def test_other_grids() -> None:
    assert choose_scale(KnownBench(peak(0.35)), {}, step=0.05, last=1.0).value == 0.35
    assert choose_scale(KnownBench(peak(0.5)), {}, step=0.5, last=0.5).value == 0.5


def test_experts_that_are_never_right_leave_the_absolute_accuracy() -> None:
    """On a few images an expert may miss all: its ratio has no meaning, the choice of α still has."""
    assert choose_scale(KnownBench(peak(0.8), expert=0.0), {}, limit=5).value == 0.8


def test_choosing_can_be_cancelled_and_tells_its_progress() -> None:
    told: list[tuple[float, str]] = []
    choose_scale(KnownBench(peak(0.8)), {}, progress=lambda *step: told.append(step))
    assert told[0] == (0.0, "α = 0.4 on validation") and all(0 <= share < 1 for share, _ in told)
    with pytest.raises(Cancelled):
        choose_scale(KnownBench(peak(0.8)), {}, cancelled=lambda: True)


def test_a_scale_chosen_on_the_real_bench_is_the_best_of_its_curve(bench: Bench) -> None:
    merged = merge(bench.vectors, "average").deltas
    found = choose_scale(bench, merged, limit=20, coarse=3, last=1.5)
    best = max(value for _, value in found.curve)
    assert dict(found.curve)[found.value] == best and found.origin == "validation split, 20 images a task"
    again = bench.evaluate(bench.merged_weights(merged, found.value), "merged", split="val", limit=20)
    assert again.mean_normalised == pytest.approx(best)


def test_vectors_are_what_the_bench_holds(bench: Bench) -> None:
    assert isinstance(bench.vectors, TaskVectors) and bench.vectors.tasks == TASKS
