"""What the specification says of each method that needs nothing but weights, case by case."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import InputError, TaskVectors
from dcmerge.checkpoints import LowRank
from dcmerge.methods import merged_deltas
from dcmerge.methods.doge import correction, residuals, shared_directions
from dcmerge.methods.knots import joint_basis
from dcmerge.methods.opcm import cleaned
from dcmerge.methods.pcb import Ranges, scores
from dcmerge.methods.robustmerge import rank_shares
from dcmerge.methods.wudi import _quadratic
from dcmerge.vectors.layers import layer_of
from tests.builders import full_set, layer_set, lora_set, merged_dense, random_deltas, random_matrices, relative_error

A, B, C = random_matrices(3, 20, 30)


def merged(folder: Path, deltas: list[Tensor], slug: str, **parameters: object) -> Tensor:
    return merged_dense(layer_set(folder, deltas), slug, parameters)["weight"]


def experts_of(folder: Path, *weights: Tensor, base: Tensor | None = None) -> TaskVectors:
    """A model of one matrix given by the weights themselves."""
    base = torch.zeros_like(weights[0]) if base is None else base
    return full_set(folder, {f"task{t}": {"weight": w - base} for t, w in enumerate(weights)}, {"weight": base})


def adapter_set(folder: Path, deltas: list[LowRank]) -> TaskVectors:
    return lora_set(folder, {f"task{t}": {"q.weight": (d.left, d.right)} for t, d in enumerate(deltas)})


def adapters(count: int, rank: int = 3) -> list[LowRank]:
    left, right = random_matrices(count, 20, rank, 1), random_matrices(count, rank, 16, 2)
    return [LowRank(*pair) for pair in zip(left, right, strict=True)]


# DARE


def test_dare_with_nothing_dropped_is_task_arithmetic(tmp_path: Path) -> None:
    torch.testing.assert_close(merged(tmp_path, [A, B], "dare", density=1.0), A + B)


def test_dare_keeps_the_share_enlarged_and_follows_its_seed(tmp_path: Path) -> None:
    vectors = layer_set(tmp_path, [torch.ones(100, 200)])
    first, again, other = (merged_dense(vectors, "dare", {"density": 0.25, "seed": s})["weight"] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0.0, 4.0}
    assert abs((first > 0).float().mean().item() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / first.numel())


def test_dare_draws_for_every_task_by_itself(tmp_path: Path) -> None:
    found = merged(tmp_path, [torch.ones(50, 50), torch.ones(50, 50)], "dare", density=0.5)
    assert set(found.unique().tolist()) == {0.0, 2.0, 4.0}


def test_dare_rescales_by_the_density_by_the_sum_of_magnitudes_or_not_at_all(tmp_path: Path) -> None:
    delta = torch.arange(1.0, 2501).reshape(50, 50)
    plain, density, l1 = (merged(tmp_path, [delta], "dare", density=0.25, rescale=r) for r in ("none", "density", "l1"))
    kept = plain != 0
    assert torch.equal(plain[kept], delta[kept]) and 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(density, 4 * plain)
    torch.testing.assert_close(l1, plain * (delta.sum() / plain.sum()))


def test_dare_elects_signs_where_asked_to(tmp_path: Path) -> None:
    """Sums 3, −8, 4 and 1: B's −1 is outvoted."""
    a, b = torch.tensor([[4.0, -3], [2, 1]]), torch.tensor([[-1.0, -5], [2, 0]])
    for combine, wanted in (("elected_sum", [[4, -8], [4, 1]]), ("elected_mean", [[4, -4], [2, 1]]), ("sum", [[3, -8], [4, 1]])):
        assert merged(tmp_path, [a, b], "dare", density=1.0, combine=combine).tolist() == wanted
    assert merged(tmp_path, [a, -a], "dare", density=1.0, combine="elected_sum").tolist() == [[4, 3], [2, 1]]


# Breadcrumbs


def test_breadcrumbs_worked_by_hand(tmp_path: Path) -> None:
    delta = torch.tensor([[10.0, -9, 8, -7, 6], [5, -4, 3, -2, 1]])
    found = merged(tmp_path, [delta], "breadcrumbs", form="mergekit", density=0.5, gamma=0.2)
    assert found.tolist() == [[0, 0, 8, -7, 6], [5, -4, 0, 0, 0]]


@pytest.mark.parametrize(("density", "gamma", "kept"), [(0.9, 0.01, 540), (0.5, 0.0, 300), (1.0, 0.1, 540), (0.0, 0.0, 0)])
def test_breadcrumbs_keep_exactly_their_share(tmp_path: Path, density: float, gamma: float, kept: int) -> None:
    found = merged(tmp_path, [A], "breadcrumbs", form="mergekit", density=density, gamma=gamma)
    assert int((found != 0).sum()) == kept


# Consensus TA


def test_consensus_worked_by_hand(tmp_path: Path) -> None:
    a, b = torch.tensor([[1.0, 4, 1, 0]]), torch.tensor([[1.0, 1, -1, 3]])
    # |a| > 0.5 |b|: yes, yes, yes, no;  |b| > 0.5 |a|: yes, no, yes, yes
    assert merged(tmp_path, [a, b], "consensus_ta", strictness=0.5, agreement=2).tolist() == [[2, 0, 0, 0]]


def test_consensus_of_none_and_of_too_many(tmp_path: Path) -> None:
    torch.testing.assert_close(merged(tmp_path / "0", [A, B, C], "consensus_ta", agreement=0), A + B + C)
    assert not merged(tmp_path / "4", [A, B, C], "consensus_ta", agreement=4).any()
    torch.testing.assert_close(merged(tmp_path / "1", [A], "consensus_ta", agreement=1), A)


# Model Stock


def test_model_stock_between_the_mean_and_the_base(tmp_path: Path) -> None:
    e1, e2 = torch.eye(2)[:1], torch.eye(2)[1:]
    between = torch.tensor([[0.5, math.sqrt(0.75)]])  # 60 degrees from e1
    torch.testing.assert_close(merged(tmp_path / "same", [A, A, A], "model_stock"), A)
    assert not merged(tmp_path / "orthogonal", [e1, e2], "model_stock").any()
    torch.testing.assert_close(merged(tmp_path / "60", [e1, between], "model_stock"), 2 / 3 * (e1 + between) / 2)
    assert not merged(tmp_path / "opposite", [A, -0.5 * A], "model_stock").any()


def test_model_stock_goes_past_the_base_where_asked_to(tmp_path: Path) -> None:
    """cos 120° = −½: t = −1 / ½ for two experts; for three of them, −1 / 0 is the pole, which is the base."""
    e1, obtuse, third = (torch.tensor([[x, y]]) for x, y in ((1.0, 0.0), (-0.5, 0.75**0.5), (-0.5, -(0.75**0.5))))
    torch.testing.assert_close(merged(tmp_path / "2", [e1, obtuse], "model_stock", limit=False), -2 * (e1 + obtuse) / 2)
    assert not merged(tmp_path / "3", [e1, obtuse, third], "model_stock", limit=False).any()


# SLERP and Karcher mean


def test_slerp_runs_from_one_expert_to_the_other(tmp_path: Path) -> None:
    vectors = experts_of(tmp_path, A, B, base=C)
    ends = [merged_dense(vectors, "slerp", {"position": t})["weight"] for t in (0.0, 1.0)]
    torch.testing.assert_close(ends[0], A - C, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ends[1], B - C, atol=1e-5, rtol=1e-5)
    turned = experts_of(tmp_path / "turned", B, A, base=C)
    torch.testing.assert_close(merged_dense(vectors, "slerp")["weight"], merged_dense(turned, "slerp")["weight"])


def test_slerp_keeps_the_length_of_experts_of_one_length(tmp_path: Path) -> None:
    found = merged_dense(experts_of(tmp_path, A / A.norm(), B / B.norm()), "slerp", {"position": 0.3})["weight"]
    assert found.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_slerp_of_parallel_or_absent_weights_is_a_line(tmp_path: Path) -> None:
    torch.testing.assert_close(merged_dense(experts_of(tmp_path / "p", A, 3 * A), "slerp")["weight"], 2 * A)
    torch.testing.assert_close(merged_dense(experts_of(tmp_path / "z", A, 0 * A), "slerp")["weight"], A / 2)


@pytest.mark.parametrize("count", [1, 3])
def test_slerp_refuses_other_numbers_of_experts(tmp_path: Path, count: int) -> None:
    vectors = full_set(tmp_path, random_deltas(count))
    with pytest.raises(InputError, match=f"slerp merges 2 experts, got {count}"):
        next(merged_deltas(vectors, "slerp"))


@pytest.mark.parametrize("slug", ["slerp", "karcher"])
def test_methods_on_whole_weights_need_the_base(tmp_path: Path, slug: str) -> None:
    with pytest.raises(InputError, match=f"{slug} needs the base's own weights, got adapters without a base"):
        next(merged_deltas(adapter_set(tmp_path, adapters(2)), slug))


def test_the_karcher_mean_of_two_is_slerp_half_way(tmp_path: Path) -> None:
    vectors = experts_of(tmp_path, A / A.norm(), B / B.norm(), base=0.1 * C)
    found, wanted = (merged_dense(vectors, slug)["weight"] for slug in ("karcher", "slerp"))
    assert relative_error(found, wanted) < 1e-5


def test_at_the_karcher_mean_the_logarithms_cancel(tmp_path: Path) -> None:
    found = merged_dense(experts_of(tmp_path, A, B, C), "karcher", {"iterations": 100})["weight"]
    assert found.norm().item() == pytest.approx(sum(X.norm().item() for X in (A, B, C)) / 3, rel=1e-5)
    units = torch.stack([(X / X.norm()).double().flatten() for X in (A, B, C)])
    u = found.double().flatten() / found.double().norm()
    angles = torch.arccos(units @ u)
    across = units - torch.cos(angles)[:, None] * u
    logarithms = angles[:, None] * across / across.norm(dim=1, keepdim=True)
    assert logarithms.sum(dim=0).norm() < 1e-4


# WUDI


def loss(tau: Tensor, deltas: list[Tensor]) -> float:
    doubles = [D.double() for D in deltas]
    return sum(((tau.double() - D) @ D.T).square().sum().item() / D.square().sum().item() for D in doubles)


def test_wudis_exact_solution_is_the_minimum(tmp_path: Path) -> None:
    found = merged(tmp_path, [A, B, C], "wudi", solver="exact").double()
    total, target = _quadratic(torch.stack([A, B, C]))
    assert (found @ total - target).norm() < 1e-4 * target.norm()  # the gradient is zero
    best = loss(found, [A, B, C])
    for seed in range(5):
        assert loss(found + 1e-2 * random_matrices(1, 20, 30, seed)[0], [A, B, C]) > best


def test_wudis_adam_descends_from_the_sum_and_stays_above_the_minimum(tmp_path: Path) -> None:
    vectors = layer_set(tmp_path, [A, B, C])
    start, some, more = (merged_dense(vectors, "wudi", {"iterations": n, "learning_rate": 1e-2})["weight"] for n in (0, 50, 300))
    torch.testing.assert_close(start, A + B + C)
    least = loss(merged_dense(vectors, "wudi", {"solver": "exact"})["weight"], [A, B, C])
    assert loss(start, [A, B, C]) > loss(some, [A, B, C]) > loss(more, [A, B, C]) > least


def test_wudi_of_one_expert_is_the_expert(tmp_path: Path) -> None:
    for solver in ("adam", "spectral", "exact"):
        assert relative_error(merged(tmp_path / solver, [A], "wudi", solver=solver), A) < 1e-4


# KnOTS and RobustMerge


@pytest.mark.parametrize(("slug"), ["knots", "robustmerge"])
def test_methods_on_factors_need_adapters(tmp_path: Path, slug: str) -> None:
    with pytest.raises(InputError, match=f"{slug} needs LoRA experts, got full fine-tuning"):
        next(merged_deltas(layer_set(tmp_path, [A, B]), slug))


def test_the_joint_basis_of_knots_rebuilds_every_adapter() -> None:
    own = adapters(3)
    U, tasks = joint_basis(own)
    assert (U.T @ U - torch.eye(U.shape[1], dtype=U.dtype)).abs().max() < 1e-10
    for D, M in zip(own, tasks, strict=True):
        assert relative_error((U @ M).float(), D.dense()) < 1e-5
    joint = torch.linalg.svdvals(torch.cat([d.dense() for d in own], dim=1))[:9]
    torch.testing.assert_close(tasks.square().sum(dim=(0, 2)).sqrt().float(), joint, rtol=1e-4, atol=0)


def test_knots_of_one_adapter_untrimmed_is_the_adapter(tmp_path: Path) -> None:
    own = adapters(1)
    found = merged_dense(adapter_set(tmp_path, own), "knots", {"density": 1.0})["q.weight"]
    assert relative_error(found, own[0].dense()) < 1e-5


def test_knots_where_all_signs_agree_is_the_mean(tmp_path: Path) -> None:
    one = adapters(1)[0]
    found = merged_dense(adapter_set(tmp_path, [one, one * 3.0]), "knots", {"density": 1.0})["q.weight"]
    assert relative_error(found, 2 * one.dense()) < 1e-5


def test_robustmerge_without_pruning_is_the_mean(tmp_path: Path) -> None:
    own = adapters(3)
    found = merged_dense(adapter_set(tmp_path, own), "robustmerge", {"density": 1.0})["q.weight"]
    assert relative_error(found, sum(d.dense() for d in own) / 3) < 1e-5


def test_shares_of_rank_directions_sum_to_one_and_favour_the_pruned() -> None:
    full = [torch.ones(2, 4), torch.ones(2, 4)]
    pruned = [torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]), torch.ones(2, 4)]
    torch.testing.assert_close(rank_shares(full, pruned), torch.tensor([[0.8, 0.5], [0.2, 0.5]]))
    nothing = rank_shares([torch.zeros(1, 4), torch.ones(1, 4)], [torch.zeros(1, 4), torch.ones(1, 4)])
    assert nothing.tolist() == [[0.5], [0.5]]


def test_robustmerge_in_the_form_of_factors_keeps_the_rank(tmp_path: Path) -> None:
    vectors = adapter_set(tmp_path, adapters(3))
    ((_, small),) = merged_deltas(vectors, "robustmerge", {"form": "factors"})
    ((_, large),) = merged_deltas(vectors, "robustmerge")
    assert (small.rank, large.rank) == (3, 9)


def test_robustmerge_follows_a_common_permutation_of_ranks(tmp_path: Path) -> None:
    own, order = adapters(3), [2, 0, 1]
    turned = [LowRank(d.left[:, order], d.right[order]) for d in own]
    for form in ("sum", "factors"):
        sets = [adapter_set(tmp_path / f"{form}{i}", deltas) for i, deltas in enumerate((turned, own))]
        found, wanted = (merged_dense(vectors, "robustmerge", {"form": form}) for vectors in sets)
        assert relative_error(found["q.weight"], wanted["q.weight"]) < 1e-5


def test_robustmerge_fills_smaller_ranks_up_with_zeros_after_pruning(tmp_path: Path) -> None:
    small, large = *adapters(1, 2), *adapters(1, 3)
    ((_, found),) = merged_deltas(adapter_set(tmp_path / "found", [small, large]), "robustmerge", {"density": 1.0})
    # Nothing is pruned: every direction has strength 1, a missing one too, shared by both tasks.
    assert relative_error(found.dense(), (small.dense() + large.dense()) / 2) < 1e-5


def test_model_stock_and_exact_wudi_of_factors_are_those_of_the_dense_deltas(tmp_path: Path) -> None:
    own = adapters(3)
    as_factors, as_matrices = adapter_set(tmp_path / "low", own), layer_set(tmp_path / "full", [d.dense() for d in own])
    for slug, parameters in (("model_stock", {}), ("wudi", {"solver": "exact"})):
        ((_, found),), ((_, wanted),) = (merged_deltas(v, slug, parameters) for v in (as_factors, as_matrices))
        assert isinstance(found, LowRank) and relative_error(found.dense(), wanted) < 1e-4


# OPCM


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_what_opcm_adds_is_orthogonal_to_the_model_so_far(share: float) -> None:
    D, T = A.double(), B.double()
    rest = cleaned(D, T, share)
    assert abs((rest * T).sum()) < 1e-10 * D.norm() * T.norm()
    torch.testing.assert_close(cleaned(rest, T, share), rest)
    assert rest.norm() <= D.norm()
    assert cleaned(2 * T, T, share).norm() < 1e-10


def test_opcm_has_the_mean_length_and_begins_with_the_expert(tmp_path: Path) -> None:
    deltas = random_deltas(3)
    found = merged_dense(full_set(tmp_path / "3", deltas), "opcm")
    lengths = [math.sqrt(sum(d.square().sum().item() for d in own.values())) for own in deltas.values()]
    assert math.sqrt(sum(d.square().sum().item() for d in found.values())) == pytest.approx(sum(lengths) / 3, rel=1e-5)
    alone = merged_dense(full_set(tmp_path / "1", random_deltas(1)), "opcm")
    assert all(relative_error(alone[name], d) < 1e-5 for name, d in deltas["task0"].items())


def test_opcm_learns_nothing_from_the_same_expert_twice(tmp_path: Path) -> None:
    found = merged(tmp_path, [A, A, A], "opcm")
    assert relative_error(found, A) < 1e-4


def test_opcm_depends_on_the_order_that_the_seed_draws(tmp_path: Path) -> None:
    vectors = layer_set(tmp_path, [A, B, C])
    given, drawn, again = (merged_dense(vectors, "opcm", {"seed": s})["weight"] for s in (None, 3, 3))
    assert torch.equal(drawn, again) and not torch.allclose(given, drawn)


# DOGE


def test_doge_without_steps_or_trim_is_task_arithmetic_of_one_length(tmp_path: Path) -> None:
    found = merged(tmp_path, [A, 5 * B], "doge", iterations=0, density=1.0, eta=0.1)
    torch.testing.assert_close(found, 0.1 * (A / A.norm() + B / B.norm()))


def test_doge_leaves_everything_but_matrices_to_the_base(tmp_path: Path) -> None:
    found = merged_dense(full_set(tmp_path, random_deltas(2)), "doge", {"iterations": 2})
    assert not found["visual.ln.bias"].any() and found["visual.mlp.c_fc.weight"].any()


def test_doges_shared_directions_are_orthonormal(tmp_path: Path) -> None:
    shared = shared_directions(layer_of(layer_set(tmp_path, [A, B]), "weight"), 4.0)
    assert shared.shape == (20, 5)
    torch.testing.assert_close(shared.T @ shared, torch.eye(5), atol=1e-5, rtol=0)


def test_doges_gradient_is_that_of_its_loss_and_its_steps_lower_it() -> None:
    D, lambdas, nothing = torch.stack([A, B]).double(), torch.tensor([0.3, 0.4], dtype=torch.float64), torch.zeros(20, 0)
    delta = torch.zeros(20, 30, dtype=torch.float64, requires_grad=True)
    residuals(D, lambdas, delta).square().sum().backward()
    by_hand = -2 * lambdas.sum() * (residuals(D, lambdas, torch.zeros(20, 30).double())[:, :, None] * D).sum(dim=0)
    torch.testing.assert_close(delta.grad, by_hand)
    found = [correction(D, lambdas, nothing.double(), steps, 1e-2) for steps in (0, 20, 200)]
    losses = [residuals(D, lambdas, delta).square().sum().item() for delta in found]
    assert losses[0] > losses[1] > losses[2]


def test_doges_first_step_avoids_the_shared_directions() -> None:
    D, lambdas = torch.stack([A, B]).double(), torch.tensor([0.3, 0.4], dtype=torch.float64)
    shared = torch.eye(20, 6, dtype=torch.float64)  # the first six rows: Adam's scaling leaves them at zero
    assert not correction(D, lambdas, shared, 10, 1e-2)[:6].any()


# PCB


def test_pcbs_scores_worked_by_hand() -> None:
    D = torch.tensor([[1.0, 0.5, -1.0], [1.0, -0.5, 2.0]])
    ranges = Ranges(low=torch.zeros(2), high=torch.tensor([1.0, 2.0]), threshold=torch.zeros(2), top=torch.tensor([10.0, 10.0]))
    # sums are 2, 0, 1: beta_1 = e^2 tanh 2, 0, e^2 tanh(-1) -> below the threshold; beta_2 = e^0.5 tanh 2, 0, e^2 tanh 2
    e, t = math.exp, math.tanh
    wanted = torch.tensor([[e(2) * t(2), 0, 0], [e(0.5) * t(2), 0, e(2) * t(2)]]) / 10
    torch.testing.assert_close(scores(D, ranges), wanted)


@pytest.mark.parametrize("ratio", [0.05, 0.3])
def test_pcb_keeps_about_its_ratio(tmp_path: Path, ratio: float) -> None:
    found = merged(tmp_path, [random_matrices(1, 60, 80)[0]], "pcb", ratio=ratio)
    assert (found != 0).float().mean().item() == pytest.approx(ratio, abs=0.01)


def test_pcb_of_identical_experts_is_the_expert_where_it_is_kept(tmp_path: Path) -> None:
    """Apart from the largest 1 %, whose magnitude is that of the next smaller one."""
    found = merged(tmp_path, [A, A], "pcb", ratio=0.2)
    clamped = A.clamp(min=-found.abs().max(), max=found.abs().max())
    torch.testing.assert_close(found[found != 0], clamped[found != 0])
    assert (A.abs() > found.abs().max()).sum() == 0.01 * A.numel()
