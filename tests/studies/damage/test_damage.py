"""The damage map against a few independent lines, a matrix damaged by hand, and looks that are not taken twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench, Scale
from dcmerge.evaluation.ordered import OrderedImages
from dcmerge.evaluation.prefixes import blocks_of
from dcmerge.merging.merge import merge
from dcmerge.studies.damage import BASE, BLOCKS, EXPERT, MATRICES, WITHOUT, DamageMap, Plan, paired_change, units_of
from dcmerge.studies.damage.measuring import Look, damage
from dcmerge.studies.damage.tables import as_csv, rows, to_data
from dcmerge.studies.small_sets import random_deltas, tiny_bench
from dcmerge.vectors.cache import Memo

HALF = Scale(0.5, "given")
QKV = "visual.transformer.resblocks.1.attn.in_proj_weight"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("set"), tasks=3)


@pytest.fixture(scope="module")
def whole(bench: Bench) -> DamageMap:
    return damage(bench, Plan.of("task_arithmetic", changes=(EXPERT, BASE, WITHOUT), limit=None), HALF)


def test_a_change_is_counted_on_the_same_images() -> None:
    """Of eight images two are gained and one lost: 1/8; Agresti and Min: p = 2.5/10, q = 1.5/10, se² = (0.4 − 0.01)/10."""
    before = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1], dtype=torch.bool)
    after = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    found = paired_change(after, before)
    assert (found.value, found.images) == (0.125, 8)
    half = 1.959963984540054 * (0.39 / 10) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half))
    assert not found.excludes_zero
    assert paired_change(torch.ones(30, dtype=torch.bool), torch.zeros(30, dtype=torch.bool)).excludes_zero


@pytest.mark.parametrize("change", [EXPERT, BASE, WITHOUT])
def test_cells_are_what_a_few_lines_find(bench: Bench, whole: DamageMap, change: str) -> None:
    merged, base = merge(bench.vectors, "task_arithmetic").deltas, bench.base_weights()
    for task in bench.tasks:
        fewer = merge(bench.vectors.select([one for one in bench.tasks if one != task]), "task_arithmetic").deltas
        back = {EXPERT: bench.vectors.delta(QKV, task), BASE: torch.zeros_like(base[QKV]), WITHOUT: 0.5 * fewer[QKV]}[change]
        weights = {name: value + 0.5 * merged[name] if name in merged else value for name, value in base.items()}
        before = bench.evaluate(weights, "merged", split="val").tasks[task].accuracy
        after = bench.evaluate(weights | {QKV: base[QKV] + back}, "changed", split="val").tasks[task].accuracy
        assert whole.cell(change, QKV, task).value == pytest.approx(after - before)


def test_what_is_kept_changes_no_prediction(bench: Bench, whole: DamageMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell once more by whole passes: where nothing may be kept, none begins at a block."""
    monkeypatch.setattr("dcmerge.studies.damage.measuring.KEPT_BYTES", 0)
    plain = damage(bench, Plan.of("task_arithmetic", changes=(EXPERT, BASE, WITHOUT), limit=None), HALF)
    for change, units in whole.changed.items():
        for unit, hits in units.items():
            assert all(torch.equal(own, plain.changed[change][unit][task]) for task, own in hits.items()), (change, unit)
    assert to_data(plain) == to_data(whole)


def test_the_first_blocks_are_passed_once(bench: Bench) -> None:
    blocks, seen = blocks_of(bench.encoder), []
    assert blocks is not None and len(blocks) == 2
    handle = blocks[0].register_forward_hook(lambda *_: seen.append(1))
    plan = Plan.of("task_arithmetic", changes=(BASE,), by=BLOCKS, limit=6)
    damage(bench, plan, HALF)
    handle.remove()
    # Merge, base and each expert; before the blocks and block 0 changed, for all tasks at once, as their passes are whole; then
    # once a task on the way to block 1, and once to see that it may begin there. Block 1 and what comes after need none.
    assert len(seen) == 2 + 3 + 2 + 3 + 1


def test_a_part_that_the_merge_has_from_the_expert_costs_nothing(tmp_path: Path) -> None:
    shapes = tiny_bench(tmp_path / "shapes", 1).encoder.shapes
    own = {name: 0.3 * value for name, value in random_deltas(1, shapes=shapes)["task0"].items()}
    bench = tiny_bench(tmp_path, deltas={"first": own, "second": own})
    found = damage(bench, Plan.of("average", changes=(EXPERT,), limit=None), Scale(1.0, "given"))
    assert {found.cell(EXPERT, unit, task).value for unit in found.units for task in found.tasks} == {0.0}


def test_all_at_once_is_the_expert_or_the_base(bench: Bench, whole: DamageMap) -> None:
    experts, zero_shot = bench.experts(split="val"), bench.zero_shot(split="val")
    for task in bench.tasks:
        merged = whole.merged[task].double().mean().item()
        expert, base = whole.joint(EXPERT, task), whole.joint(BASE, task)
        assert expert is not None and expert.value == pytest.approx(experts.tasks[task].accuracy - merged)
        assert base is not None and base.value == pytest.approx(zero_shot.tasks[task].accuracy - merged)
        assert whole.joint(WITHOUT, task) is None
        assert whole.singles(EXPERT, task) == pytest.approx(sum(whole.cell(EXPERT, u, task).value for u in whole.units))


def test_a_matrix_that_was_damaged_by_hand_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experts agree, so that their mean is right everywhere, but for one matrix that the merge gets wrong."""
    shapes = tiny_bench(tmp_path / "shapes", 1).encoder.shapes
    own = {name: 0.3 * value for name, value in random_deltas(1, shapes=shapes)["task0"].items()}
    bench = tiny_bench(tmp_path, deltas={"first": own, "second": own})
    right = merge(bench.vectors, "average")
    wrong = replace(right, deltas={**right.deltas, QKV: -40 * torch.ones_like(own[QKV])})
    monkeypatch.setattr("dcmerge.studies.damage.measuring.merge", lambda *_, **__: wrong)
    found = damage(bench, Plan.of("average", limit=None), Scale(1.0, "given"))
    assert found.ranked(EXPERT)[0] == QKV and found.repaired[1].parts == (QKV,)
    assert found.repaired[1].mean > found.repaired[0].mean
    others = [abs(found.over_tasks(EXPERT, unit).value) for unit in found.units if unit != QKV]
    assert max(others) < found.over_tasks(EXPERT, QKV).value


def test_repairs_are_chosen_on_one_half_and_measured_on_the_other(bench: Bench, whole: DamageMap) -> None:
    half = min(map(len, whole.merged.values())) // 2
    images = OrderedImages(bench, "val").parts()
    best = whole.repaired[1]
    assert best.parts == (whole.ranked(EXPERT, half)[0],)
    merged, base = merge(bench.vectors, "task_arithmetic").deltas, bench.base_weights()
    shares = []
    for task, part in images.items():
        weights = {name: value + 0.5 * merged[name] if name in merged else value for name, value in base.items()}
        weights[best.parts[0]] = base[best.parts[0]] + bench.vectors.delta(best.parts[0], task)
        hits = bench.hits(weights, {task: part})[task]
        shares.append(hits[len(hits) // 2 :].double().mean().item())
    assert best.mean == pytest.approx(sum(shares) / len(shares))
    assert best.extra == 3 * bench.vectors.parameters[best.parts[0]].numel


def test_known_looks_are_not_taken_again(bench: Bench, whole: DamageMap) -> None:
    plan, taken = Plan.of("task_arithmetic", by=BLOCKS, limit=6), []

    class Stopped(Exception):
        pass

    def stop(look: Look) -> None:
        taken.append(look)
        if len(taken) == 6:
            raise Stopped

    with pytest.raises(Stopped):
        damage(bench, plan, HALF, on_look=stop)
    again: list[Look] = []
    resumed = damage(bench, plan, HALF, known={look.name: look for look in taken}, on_look=again.append)
    assert not {look.name for look in taken} & {look.name for look in again}
    assert to_data(resumed) == to_data(damage(bench, plan, HALF))


def test_blocks_hold_all_that_is_merged_in_them(bench: Bench) -> None:
    blocks = units_of(bench.vectors, BLOCKS)
    assert list(blocks) == ["before the blocks", "block 0", "block 1", "after the blocks"]
    assert sorted(name for names in blocks.values() for name in names) == sorted(bench.vectors.parameters)
    assert all(len(bench.vectors.parameters[name].shape) >= 2 for name in units_of(bench.vectors, MATRICES))


def test_fewer_images_are_the_beginning_of_the_same_order(whole: DamageMap) -> None:
    unit, task = whole.units[0], whole.tasks[0]
    few = whole.cell(EXPERT, unit, task, 5)
    after, before = whole.changed[EXPERT][unit][task], whole.merged[task]
    assert few == paired_change(after[:5], before[:5]) and few.images == 5
    assert len(rows(whole)) == 3 * len(whole.units) * 3 and as_csv(whole).count("\n") == 1 + len(rows(whole))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"changes": ("sideways",)}, "changes: expected some of expert, base, without, got 'sideways'"),
        ({"changes": ()}, "changes: expected at least one of"),
        ({"by": "rows"}, "by: expected matrices or blocks, got 'rows'"),
        ({"limit": 1}, "limit: expected at least 2 images a task"),
        ({"slug": "emr"}, "emr: expected a method that gives one model"),
    ],
)
def test_what_no_map_can_be_made_of_is_refused(plan: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan.of(**{"slug": "ties", **plan})


def test_one_expert_cannot_be_left_out(bench: Bench) -> None:
    with pytest.raises(InputError, match="at least two experts"):
        damage(bench.select(["task0"]), Plan.of("average", changes=(WITHOUT,)), HALF)


def test_a_cancelled_map_stops(bench: Bench) -> None:
    with pytest.raises(Cancelled):
        damage(replace(bench, memo=Memo()), Plan.of("average"), HALF, cancelled=lambda: True)
