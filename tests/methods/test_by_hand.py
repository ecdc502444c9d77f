"""Every method on matrices small enough to check with a pencil."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import TaskVectors
from dcmerge.methods import method
from dcmerge.methods.dc_merge import Trace, smoothing_in_use, trace, usual_scale_of
from dcmerge.methods.ties import kept_threshold, trim_thresholds
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.selection import magnitudes
from tests.builders import (
    full_set,
    layer_set,
    lora_set,
    merged_dense,
    random_deltas,
    random_factors,
    random_matrices,
    relative_error,
)


def merged(folder: Path, deltas: list[Tensor], slug: str, **parameters: object) -> Tensor:
    return merged_dense(layer_set(folder, deltas), slug, parameters)["weight"]


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float32))


A, B = matrix([4, -3], [2, 1]), matrix([-1, -5], [2, 0])


def test_average_and_task_arithmetic(tmp_path: Path) -> None:
    assert merged(tmp_path, [A, B], "task_arithmetic").tolist() == [[3, -8], [4, 1]]
    assert merged(tmp_path, [A, B], "average").tolist() == [[1.5, -4], [2, 0.5]]


@pytest.mark.parametrize(("aggregate", "wanted"), [("mean", [[4, -4], [2, 0]]), ("sum", [[4, -8], [4, 0]])], ids=["mean", "sum"])
def test_ties(tmp_path: Path, aggregate: str, wanted: list[list[float]]) -> None:
    """density ½ of 4 entries: the threshold is the 2nd smallest magnitude (2 for A, 1 for B) and is itself kept.

    A → 4 −3 2 ·, B → −1 −5 2 ·, sums 3 −8 4 0: B's −1 loses the election, the last entry has no voter.
    """
    assert merged(tmp_path, [A, B], "ties", density=0.5, aggregate=aggregate).tolist() == wanted


def test_ties_gives_undecided_entries_the_sign_of_the_majority(tmp_path: Path) -> None:
    """Sums 0 2 4 −1: two entries are positive, one negative, so of 3 and −3 the 3 remains."""
    first, second = matrix([3, 1], [2, 4]), matrix([-3, 1], [2, -5])
    assert merged(tmp_path, [first, second], "ties", density=1.0).tolist() == [[3, 1], [2, -5]]
    assert merged(tmp_path, [-first, -second], "ties", density=1.0).tolist() == [[-3, -1], [-2, 5]]


def test_ties_trims_over_the_whole_model(tmp_path: Path) -> None:
    """Half of eight entries: threshold 4 over both parameters; each one alone would keep entries of "small"."""
    small, large = matrix([1, 2], [3, 4]), matrix([5, 6], [7, 8])
    vectors = full_set(tmp_path, {"task": {"small": small, "large": large}})
    found = merged_dense(vectors, "ties", {"density": 0.5})
    assert found["small"].tolist() == [[0, 0], [0, 4]] and torch.equal(found["large"], large)


def test_ties_trims_each_parameter_by_itself_where_asked_to(tmp_path: Path) -> None:
    """Half of each four entries; 3 and −3 cancel, which counts as positive, whatever the majority."""
    small, large = matrix([1, 2], [3, 4]), matrix([5, 6], [7, 8])
    vectors = full_set(tmp_path, {"task": {"small": small, "large": large}})
    found = merged_dense(vectors, "ties", {"density": 0.5, "trim": "parameter"})
    assert found["small"].tolist() == [[0, 0], [3, 4]] and found["large"].tolist() == [[0, 0], [7, 8]]
    assert merged(tmp_path / "one", [small], "ties", density=0.01, trim="parameter").tolist() == [[0, 0], [0, 4]]
    assert not merged(tmp_path / "none", [small], "ties", density=0, trim="parameter").any()
    first, second = matrix([3, -1], [-2, 4]), matrix([-3, -1], [-2, -5])
    assert merged(tmp_path / "two", [first, second], "ties", density=1.0, trim="parameter").tolist() == [[3, -1], [-2, -5]]


def tilted() -> tuple[list[Tensor], Tensor]:
    """2 · e1 e1ᵀ and (0.6, 0.8) e2ᵀ, and the whitened left vectors: 45° from the bisector of e1 and (0.6, 0.8)."""
    angle = (math.atan2(0.8, 0.6) - math.pi / 2) / 2
    c, s = math.cos(angle), math.sin(angle)
    return [matrix([2, 0], [0, 0]), matrix([0, 0.6], [0, 0.8])], matrix([c, -s], [s, c])


def test_identical_experts_count_once_in_tsv_m(tmp_path: Path) -> None:
    """U⊥ = [u u] / √2 and V⊥ alike: the twins' components add up to the truncated delta itself, nothing else comes in."""
    delta = random_matrices(1, 6, 8)[0]
    U, s, Vt = torch.linalg.svd(delta)
    truncated = U[:, :3] @ torch.diag(s[:3]) @ Vt[:3]
    torch.testing.assert_close(merged(tmp_path, [delta, delta], "tsv_m"), truncated, rtol=0, atol=1e-5)


def test_tsv_m(tmp_path: Path) -> None:
    deltas, Q = tilted()
    torch.testing.assert_close(merged(tmp_path, deltas, "tsv_m"), Q @ diagonal(2, 1))


def test_iso_c(tmp_path: Path) -> None:
    """The sum [[0, −3], [2, 0]] has singular values 3 and 2; both become 2.5."""
    found = merged(tmp_path, [matrix([0, -3], [0, 0]), matrix([0, 0], [2, 0])], "iso_c")
    torch.testing.assert_close(found, matrix([0, -2.5], [2.5, 0]))


CTS = [diagonal(5, 1, 2, 0), diagonal(5, 3, 0, 1)]


def test_iso_cts(tmp_path: Path) -> None:
    """Half of 4 directions are common (e1, e2 with 10, 4 in the sum); the residuals add e3 with 2 and e4 with 1."""
    found = merged(tmp_path, CTS, "iso_cts", common_fraction=0.5)
    torch.testing.assert_close(found, (10 + 4 + 2 + 1) / 4 * torch.eye(4))


def test_iso_cts_with_everything_common_is_iso_c(tmp_path: Path) -> None:
    for slot, deltas in enumerate((CTS, [A, B], random_matrices(3, 5, 8))):
        folder = tmp_path / str(slot)
        whole = merged(folder, deltas, "iso_cts", common_fraction=1.0)
        torch.testing.assert_close(whole, merged(folder, deltas, "iso_c"))


def test_iso_cts_with_more_tasks_than_directions(tmp_path: Path) -> None:
    """15 directions for 8 tasks and nothing common: the published rounding asks for 16, ours for the 8 that fit."""
    deltas = [torch.randn(15, 20, generator=torch.Generator().manual_seed(t)) for t in range(8)]
    singular = torch.linalg.svdvals(merged(tmp_path, deltas, "iso_cts", common_fraction=0.0))
    torch.testing.assert_close(singular, singular.mean().expand(15))


def test_iso_methods_give_no_weight_to_directions_that_nobody_has(tmp_path: Path) -> None:
    deltas = [diagonal(3, 0, 0, 0), diagonal(0, 1, 0, 0)]
    torch.testing.assert_close(merged(tmp_path, deltas, "iso_c"), diagonal(1, 1, 0, 0))
    torch.testing.assert_close(merged(tmp_path, deltas, "iso_cts"), diagonal(1, 1, 0, 0))


def test_iso_methods_spread_the_energy_of_adapters_over_their_own_directions(tmp_path: Path) -> None:
    """Two adapters of rank 1 on a 4 x 4 weight with singular values 3 and 1: the mean is over T·r = 2 directions."""
    e = torch.eye(4)
    pairs = [(3 * e[:, :1], e[:1]), (e[:, 1:2], e[1:2])]
    vectors = lora_set(tmp_path, {f"task{t}": {"q.weight": pair} for t, pair in enumerate(pairs)})
    for slug in ("iso_c", "iso_cts"):
        torch.testing.assert_close(merged_dense(vectors, slug)["q.weight"], diagonal(2, 2, 0, 0))


ORTHOGONAL = [diagonal(3, 1, 0, 0), diagonal(0, 0, 4, 2)]


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({}, (3, 1, 4, 2)),
        ({"keep": 1e-3}, (3, 0, 4, 0)),
        ({"keep": 0.0}, (3, 0, 4, 0)),
        ({"keep": 2 / 16}, (3, 1, 4, 2)),
        ({"keep": 1.0, "block_mask": False}, (3, 1, 4, 2)),
        ({"smoothing": "average", "keep": 2 / 16}, (2, 2, 3, 3)),
        ({"smoothing": "linear", "rho": 2.0, "keep": 2 / 16}, (8 / 3, 4 / 3, 4, 2)),
        ({"smoothing": "linear", "rho": 1.0, "keep": 2 / 16}, (2, 2, 3, 3)),
        ({"smoothing": "linear", "rho": 2.0, "keep": 1e-3}, (8 / 3, 0, 4, 0)),
        ({"elect": False, "keep": 1.0}, (3, 1, 4, 2)),
        ({"rank": 1, "keep": 1.0}, (3, 0, 4, 0)),
        ({"rank": 1, "smoothing": "average"}, (3, 0, 4, 0)),
    ],
    ids=str,
)
def test_dc_merge_of_orthogonal_tasks(tmp_path: Path, parameters: dict, wanted: tuple[float, ...]) -> None:
    """Tasks that share no direction are aligned already: every stage can be read off the diagonal."""
    torch.testing.assert_close(merged(tmp_path, ORTHOGONAL, "dc_merge", **parameters), diagonal(*wanted))


def test_dc_merge_of_many_orthogonal_tasks_keeps_every_smoothed_component(tmp_path: Path) -> None:
    """Eight adapters of rank 2: of 16 x 16 entries as many are kept as the rank, and those are the diagonal."""
    e, draw = torch.eye(16), torch.Generator().manual_seed(0)
    sizes = 1 + torch.rand(8, 2, generator=draw)
    pairs = [(e[:, 2 * t : 2 * t + 2] * sizes[t], e[2 * t : 2 * t + 2]) for t in range(8)]
    vectors = lora_set(tmp_path, {f"task{t}": {"q.weight": pair} for t, pair in enumerate(pairs)})
    found = merged_dense(vectors, "dc_merge", {"keep": 2 / 256})["q.weight"]
    torch.testing.assert_close(found, torch.diag(sizes.mean(dim=1).repeat_interleave(2)))


def tilted_trace(folder: Path, **parameters: object) -> Trace:
    stages = trace(layer_of(layer_set(folder, tilted()[0]), "weight"), **parameters)
    assert stages is not None
    return stages


@pytest.mark.parametrize(("tasks", "usual"), [(1, 2.0), (2, 2.0), (3, 1.65), (4, 1.4), (8, 1.0), (20, 1.0)])
def test_dc_merge_of_few_adapters_is_usually_as_long_as_of_eight(tasks: int, usual: float) -> None:
    assert usual_scale_of("lora", tasks, smoothing="auto") == pytest.approx(usual)
    assert usual_scale_of("full", tasks, smoothing="average") == pytest.approx(usual)
    assert usual_scale_of("full", tasks, smoothing="auto") == usual_scale_of("lora", tasks, smoothing="linear") == 1


@pytest.mark.parametrize(
    ("slug", "usual"),
    [("tsv_m", [1.0, 0.8, 0.7, 0.5]), ("wudi", [0.85, 0.7, 0.6, 0.4]), ("doge", [2.0, 1.65, 1.4, 1.0])],
)
def test_sums_of_adapters_are_usually_scaled_by_the_root_of_their_number(slug: str, usual: list[float]) -> None:
    """√2/√T and 1.2/√T, at most 1, and √8/√T, at least 1: 1.2/√3 = 0.693 is 0.7. Fully fine-tuned experts have 1."""
    scale_of = method(slug).usual_scale_of
    assert scale_of is not None
    defaults = method(slug).defaults()
    assert [scale_of("lora", tasks, **defaults) for tasks in (2, 3, 4, 8)] == pytest.approx(usual)
    assert {scale_of("full", tasks, **defaults) for tasks in (1, 2, 3, 4, 8)} == {1.0}


@pytest.mark.parametrize("slug", ["task_arithmetic", "dare", "breadcrumbs", "consensus_ta"])
def test_few_summed_experts_are_usually_as_long_as_the_papers_eight(slug: str) -> None:
    """0.3 · √(8/T), rounded to 0.05: 0.6, 0.49, 0.42 and 0.3; more than eight experts keep the papers' 0.3."""
    scale_of = method(slug).usual_scale_of
    assert scale_of is not None
    for kind in ("full", "lora"):
        found = [scale_of(kind, tasks, **method(slug).defaults()) for tasks in (1, 2, 3, 4, 8, 20)]
        assert found == pytest.approx([0.6, 0.6, 0.5, 0.4, 0.3, 0.3])


def test_doge_with_learned_coefficients_is_not_scaled_again() -> None:
    scale_of = method("doge").usual_scale_of
    assert scale_of is not None
    assert scale_of("lora", 2, **{**method("doge").defaults(), "stage": "adamerging"}) == 1


def test_dc_merge_stages_of_tilted_tasks(tmp_path: Path) -> None:
    """M_1 = Qᵀ (2, 0) in column 1, M_2 = Qᵀ (0.6, 0.8) in column 2: no entry has two voters, the diagonal is left."""
    _, Q = tilted()
    first, second = Q.T @ torch.tensor([2.0, 0]), Q.T @ torch.tensor([0.6, 0.8])
    stages = tilted_trace(tmp_path, keep=1.0)
    torch.testing.assert_close(stages.basis.U, Q)
    torch.testing.assert_close(stages.aligned[0], torch.stack([first, torch.zeros(2)], dim=1))
    torch.testing.assert_close(stages.aligned[1], torch.stack([torch.zeros(2), second], dim=1))
    torch.testing.assert_close(stages.elected, torch.stack([first, second], dim=1))
    torch.testing.assert_close(stages.masked, diagonal(first[0].item(), second[1].item()))
    torch.testing.assert_close(stages.merged.dense(), Q @ stages.masked)
    torch.testing.assert_close(stages.surviving.sum(dim=0), stages.masked)


def test_dc_merge_keeps_only_the_largest_entries_before_the_election(tmp_path: Path) -> None:
    stages = tilted_trace(tmp_path, keep=0.25)
    assert stages.kept.tolist() == [[[True, False], [False, False]], [[False, False], [False, True]]]
    unmasked = tilted_trace(tmp_path / "unmasked", keep=1.0, block_mask=False)
    torch.testing.assert_close(unmasked.masked, unmasked.elected)
    torch.testing.assert_close(unmasked.surviving, unmasked.aligned)


def test_dc_merge_elects_or_sums(tmp_path: Path) -> None:
    """Two opposite equal tasks: every entry of the one cancels the other's, and a sum of zero elects nobody."""
    deltas = [diagonal(2, 0), diagonal(-2, 0)]
    for elect in (True, False):
        stages = trace(layer_of(layer_set(tmp_path / str(elect), deltas), "weight"), keep=1.0, elect=elect)
        torch.testing.assert_close(stages.elected, torch.zeros(2, 2), atol=1e-6, rtol=0)


def test_dc_merge_of_one_task_is_its_kept_delta(tmp_path: Path) -> None:
    delta = diagonal(4, 3, 2, 1)
    assert torch.allclose(merged(tmp_path, [delta], "dc_merge", keep=1e-3), diagonal(4, 0, 0, 0), atol=1e-6)
    for keep in (None, 1.0):
        assert torch.allclose(merged(tmp_path, [delta], "dc_merge", keep=keep), delta, atol=1e-6)


def test_what_auto_smoothing_means() -> None:
    assert smoothing_in_use("auto", "full") == "none" and smoothing_in_use("auto", "lora") == "average"
    assert smoothing_in_use("linear", "full") == "linear"


def test_the_mean_where_no_component_fits(tmp_path: Path) -> None:
    """Three tasks on a 2 x 2 matrix."""
    deltas = [A, B, A - B]
    for slug in ("dc_merge", "tsv_m"):
        torch.testing.assert_close(merged(tmp_path / slug, deltas, slug), torch.stack(deltas).mean(dim=0))
    assert trace(layer_of(layer_set(tmp_path, deltas), "weight")) is None


@pytest.mark.parametrize("density", [0.0, 0.01, 0.2, 0.777, 1.0])
def test_thresholds_over_the_whole_model_are_the_kth_values_of_the_flattened_one(tmp_path: Path, density: float) -> None:
    deltas = random_deltas(2)
    deltas["task1"]["visual.mlp.c_fc.weight"] = deltas["task1"]["visual.mlp.c_fc.weight"].round(decimals=1)  # many equal ones
    vectors = full_set(tmp_path, deltas)
    layers = [layer_of(vectors, name) for name in vectors.parameters]
    wanted = torch.stack([kept_threshold(magnitudes(layers, task), density) for task in vectors.tasks])
    assert torch.equal(trim_thresholds(layers, density), wanted)


def test_adapters_of_other_ranks_are_each_smoothed_over_their_own(tmp_path: Path) -> None:
    """DC-Merge takes the largest rank at a weight; a smaller adapter keeps its sum of singular values, none goes to zeros."""
    shapes = {"q.weight": (24, 20), "k.weight": (24, 20)}
    factors = {f"task{rank}": random_factors(rank, rank, shapes) for rank in (2, 4)}
    del factors["task2"]["k.weight"]
    vectors = lora_set(tmp_path, factors)
    stages = trace(layer_of(vectors, "q.weight"), smoothing="average")
    assert stages.basis.block == 4
    for smoothed, svd, own in zip(stages.smoothed, stages.truncated, (2, 4), strict=True):
        torch.testing.assert_close(smoothed[:own], (svd.s.sum() / own).expand(own))
        assert not smoothed[own:].any() and not svd.U[:, own:].any()
    alone = trace(layer_of(vectors, "k.weight"), smoothing="average", keep=1.0).merged
    only = TaskVectors.open(None, {"task4": tmp_path / "task4"})
    wanted = trace(layer_of(only, "k.weight"), smoothing="average", keep=1.0).merged
    assert relative_error(alone.dense(), wanted.dense()) < 1e-5
