"""RegMean and Fisher merging: means of the experts' weights, weighted by what images show of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import InputError
from dcmerge.evaluation import Bench, Split
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods import merged_deltas
from dcmerge.methods.fisher import diagonal_fisher, fisher
from dcmerge.methods.regmean import regmean, shrunk
from dcmerge.vectors.layers import layer_of
from tests.builders import layer_set, lora_set, random_matrices, relative_error, tiny_bench
from tests.methods.builders import grams, merged_on, solved, tokens

A, B, C = random_matrices(3, 8, 6)
BASE = random_matrices(1, 8, 6, 7)[0]
LINEAR = "visual.transformer.resblocks.1.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def bench_of_adapters(bench: Bench, folder: Path, *, base: bool) -> Bench:
    """The same tower and tasks with adapters of one weight."""
    draw = torch.Generator().manual_seed(5)
    pairs = {task: {LINEAR: (torch.randn(64, 2, generator=draw), torch.randn(2, 16, generator=draw))} for task in bench.tasks}
    return Bench(bench.encoder, bench.tasks, lora_set(folder, pairs, base=bench.base_weights() if base else None))


# RegMean


def test_plain_regression_has_no_gradient_left(tmp_path: Path) -> None:
    inputs = tokens(3, 40, 6)
    W = BASE.double() + solved(tmp_path, regmean, [A, B, C], inputs, BASE, off_diagonal=1.0)
    G, experts = grams(inputs), [BASE.double() + D.double() for D in (A, B, C)]
    gradient = sum((W - W_t) @ G[t] for t, W_t in enumerate(experts))
    assert gradient.norm() < 1e-6 * (experts[0] @ G[0]).norm()


@pytest.mark.parametrize("off_diagonal", [0.0, 0.9, 1.0])
def test_equal_experts_come_back(tmp_path: Path, off_diagonal: float) -> None:
    found = solved(tmp_path, regmean, [A, A, A], tokens(3, 40, 6), BASE, off_diagonal=off_diagonal)
    assert relative_error(found, A) < 1e-6


def test_without_off_diagonals_every_input_is_weighed_by_itself(tmp_path: Path) -> None:
    inputs = tokens(2, 40, 6)
    found = solved(tmp_path, regmean, [A, B], inputs, BASE, off_diagonal=0.0)
    a, b = (X.square().sum(dim=0) for X in inputs)
    assert relative_error(found, (a * A.double() + b * B.double()) / (a + b)) < 1e-6


def test_a_task_counts_the_same_however_many_images_it_has(tmp_path: Path) -> None:
    """Mean squares of the inputs: 1 and 4."""
    inputs = [torch.tensor([[1.0]]).double(), torch.tensor([[2.0], [2.0]]).double()]
    found = solved(tmp_path, regmean, [torch.tensor([[5.0]]), torch.tensor([[10.0]])], inputs)
    assert found.item() == pytest.approx((1 * 5 + 4 * 10) / 5)


def test_shrinking_worked_by_hand() -> None:
    G = torch.tensor([[[4.0, 2], [2, 3]], [[1, 6], [6, 8]]])
    assert shrunk(G, 0.5).tolist() == [[[4, 1], [1, 3]], [[1, 3], [3, 8]]]


def test_regmean_averages_everything_but_linear_layers(bench: Bench) -> None:
    merged, mean = merged_on(bench, "regmean"), merged_on(bench, "average")
    linear = set(Calibration(bench).inputs_of_experts(256)["task0"].grams)
    assert {name for name in mean if not torch.equal(merged[name], mean[name])} == linear


def test_regmean_needs_the_bases_weights(bench: Bench, tmp_path: Path) -> None:
    low = bench_of_adapters(bench, tmp_path, base=False)
    with pytest.raises(InputError, match="regmean needs the base's own weights, got adapters without a base"):
        next(merged_deltas(low.vectors, "regmean", bench=low))


# Fisher merging


def weighed(folder: Path, fishers: list[Tensor], floor: float = 0.0, normalise: bool = False) -> Tensor:
    """Fisher merging of A, B (and C) with this information on their entries."""
    vectors = layer_set(folder, [A, B, C][: len(fishers)])
    prepared = {task: {"weight": F} for task, F in zip(vectors.tasks, fishers, strict=True)}
    return fisher(layer_of(vectors, "weight"), prepared=prepared, floor=floor, normalise=normalise)


def test_equal_information_is_the_average_and_so_is_none(tmp_path: Path) -> None:
    F = random_matrices(1, 8, 6, 3)[0].abs() + 0.1
    torch.testing.assert_close(weighed(tmp_path / "equal", [F, F, F]), (A + B + C) / 3)
    torch.testing.assert_close(weighed(tmp_path / "none", [0 * F, 0 * F], floor=1e-6), (A + B) / 2)


def test_every_entry_is_weighed_by_itself(tmp_path: Path) -> None:
    first, second = torch.ones(8, 6), torch.full((8, 6), 3.0)
    first[0], second[0] = 1, 0
    found = weighed(tmp_path, [first, second])
    torch.testing.assert_close(found[1:], (A + 3 * B)[1:] / 4)
    torch.testing.assert_close(found[0], A[0])


def test_equal_norms_take_away_the_size_of_the_information(tmp_path: Path) -> None:
    F, G = (X.abs() for X in random_matrices(2, 8, 6, 3))
    equal = weighed(tmp_path / "once", [F, G], normalise=True)
    torch.testing.assert_close(weighed(tmp_path / "large", [100 * F, G], normalise=True), equal)
    assert relative_error(weighed(tmp_path / "raw", [100 * F, G]), equal) > 0.1


def test_every_entry_lies_between_those_of_the_experts(bench: Bench) -> None:
    merged, mean = merged_on(bench, "fisher", {"exemplars": 4}), merged_on(bench, "average")
    for name, delta in merged.items():
        low, high = torch.stack(bench.vectors.deltas(name)).aminmax(dim=0)
        assert (low - 1e-6 <= delta).all() and (delta <= high + 1e-6).all(), name
    assert relative_error(merged[LINEAR], mean[LINEAR]) > 0.05


def log_shares(bench: Bench, weights: dict[str, Tensor], image: Tensor) -> Tensor:
    features = bench.encoder.encode(weights, image[None])[0]
    return (bench.logit_scale.value * bench.tasks["task0"].head @ features).double().log_softmax(dim=0)


@pytest.mark.parametrize("name", ["visual.proj", LINEAR, "visual.ln_post.weight"])
def test_information_is_the_mean_square_of_finite_differences(bench: Bench, name: str) -> None:
    """Two images, three classes, the entry with the most information."""
    calibration, step = Calibration(bench), 2e-3
    F = diagonal_fisher(calibration, "task0", 2, 0, "val", 0)[name]
    place, weights = int(F.argmax()), bench.expert_weights("task0")
    expected = 0.0
    for image in calibration.images("task0", 2):
        moved = []
        for way in (step, -step):
            value = weights[name].clone()
            value.view(-1)[place] += way
            moved.append(log_shares(bench, {**weights, name: value}, image))
        slope = (moved[0] - moved[1]) / (2 * step)
        expected += (log_shares(bench, weights, image).exp() * slope.square()).sum().item() / 2
    assert F.flatten()[place].item() == pytest.approx(expected, rel=0.02)


def test_drawn_labels_come_close_to_all_classes(bench: Bench) -> None:
    exact, one, many = (diagonal_fisher(Calibration(bench), "task0", 2, draws, "val", 0) for draws in (0, 1, 300))
    for name in (LINEAR, "visual.proj"):
        assert exact[name].any() and relative_error(many[name], exact[name]) < 0.2
        assert relative_error(many[name], exact[name]) < relative_error(one[name], exact[name])


def test_labels_of_the_images_are_never_used(bench: Bench) -> None:
    tasks = {
        name: replace(task, splits={s: Split(part.images, (part.labels + 1) % 3) for s, part in task.splits.items()})
        for name, task in bench.tasks.items()
    }
    found = merged_on(Bench(bench.encoder, tasks, bench.vectors), "fisher", {"exemplars": 3})
    assert all(torch.equal(delta, found[name]) for name, delta in merged_on(bench, "fisher", {"exemplars": 3}).items())


def test_the_benchs_own_weights_stay_without_gradients(bench: Bench, tmp_path: Path) -> None:
    low = bench_of_adapters(bench, tmp_path, base=True)
    merged = merged_on(low, "fisher", {"exemplars": 2})
    assert set(merged) == {LINEAR} and not merged[LINEAR].requires_grad
    assert not any(value.requires_grad for value in low.base_weights().values())
