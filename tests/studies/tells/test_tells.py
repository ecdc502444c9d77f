"""What tells, against independent lines: a measure that is the accuracy, noise, and the measures of a real merge."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.merging.merge import merge
from dcmerge.studies.facts import rank_correlation
from dcmerge.studies.small_sets import tiny_bench
from dcmerge.studies.tells import ALL, ALPHAS, MERGES, Look, Plan, Row, Setting, Study, settings
from dcmerge.studies.tells.found import MISLEADS, SILENT, TELLS, sentence
from dcmerge.studies.tells.measures import AGREEMENT, COSINE, DIRSIM, DRIFT, ENTROPY, INTERFERENCE, LENGTH, MEASURES
from dcmerge.studies.tells.measuring import looks
from dcmerge.studies.tells.statistics import chance_regrets, drawn_weights, regrets, shuffled_spearman, spearman
from dcmerge.studies.tells.tables import as_csv, rows, to_data

FACTORS = (0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("set"), tasks=3)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.of(("average", "ties", "task_arithmetic"), FACTORS, merges=5, limit=4, unlabeled=4)


@pytest.fixture(scope="module")
def made(bench: Bench, plan: Plan) -> list[Look]:
    return looks(bench, plan)


def constructed(merges: int = 30, alphas: int = 3) -> Study:
    """Agreement is the accuracy itself, drift rises with it (so it misleads), entropy is noise, DirSim only knows the merge."""
    draw, found = random.Random(0), []
    for number in range(merges):
        of_merge = draw.random()
        own = []
        for place in range(alphas):
            accuracy = {task: 0.5 + 0.3 * of_merge + 0.1 * draw.random() for task in ("a", "b")}
            measures = {
                AGREEMENT: accuracy,
                DRIFT: {task: 2 * value for task, value in accuracy.items()},
                ENTROPY: {task: draw.random() for task in accuracy},
                DIRSIM: dict.fromkeys(accuracy, of_merge),
            }
            own.append(Row(FACTORS[place], FACTORS[place], accuracy, measures))
        found.append(Look(Setting(number, "ties"), tuple(own)))
    return Study(Plan.of(), tuple(found))


def test_a_measure_that_is_the_accuracy_has_correlation_1_and_no_regret() -> None:
    study = constructed()
    for scope in (ALL, MERGES, ALPHAS):
        found, regret = study.correlation(AGREEMENT, None, scope), study.regret(AGREEMENT, scope)
        assert found and regret and found.value == pytest.approx(1) and found.low == pytest.approx(1) and found.word == TELLS
        assert (regret.value, regret.low, regret.high) == pytest.approx((0, 0, 0))
    assert study.telling()[0] == AGREEMENT


def test_noise_does_not_tell_and_its_opposite_misleads() -> None:
    study = constructed()
    noise, turned = study.correlation(ENTROPY), study.correlation(DRIFT)
    assert noise and noise.low < 0 < noise.high and noise.null[0] < noise.value < noise.null[1] and noise.word == SILENT
    assert turned and turned.value == pytest.approx(-1) and turned.word == MISLEADS
    worst, chance = study.regret(DRIFT), study.chance()
    assert worst and chance and worst.value > chance.value > 0


def test_what_is_the_same_at_every_scale_tells_merges_apart_but_not_scales() -> None:
    study = constructed()
    assert study.word(DIRSIM, MERGES) == TELLS
    assert study.correlation(DIRSIM, None, ALPHAS) is None and study.regret(DIRSIM, ALPHAS) is None
    assert sentence(study, ALPHAS) == (
        "Which α, merge by merge: agreement tells; entropy does not tell; drift misleads; DirSim cannot, as it does not change "
        "here."
    )


def test_correlation_and_regret_are_those_of_scipy_and_of_a_loop() -> None:
    study = constructed(merges=12)
    flat = [(number, row) for number, look in enumerate(study.looks) for row in look.rows]
    accuracy = [np.mean(list(row.accuracy.values())) for _, row in flat]
    scores = [-np.mean(list(row.measures[ENTROPY].values())) for _, row in flat]
    found, regret = study.correlation(ENTROPY), study.regret(ENTROPY)
    assert found and regret and found.value == pytest.approx(spearmanr(scores, accuracy).statistic)
    assert regret.value == pytest.approx(max(accuracy) - accuracy[int(np.argmax(scores))])
    chance = study.chance()
    assert chance and chance.value == pytest.approx(max(accuracy) - np.mean(accuracy))
    one = study.correlation(ENTROPY, "b")
    pairs = [(-row.measures[ENTROPY]["b"], row.accuracy["b"]) for _, row in flat]
    assert one and one.value == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)


def test_weights_count_as_repeated_rows() -> None:
    """Ties included; the same for regrets, where a row that does not count is never chosen."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randint(5, (2, 14), generator=generator).double()
    weights = drawn_weights(torch.arange(14) // 2, resamples=6)
    assert (weights.sum(dim=1) == 14).all() and (weights[:, ::2] == weights[:, 1::2]).all()
    for row, value, cost, blind in zip(
        weights, spearman(x, y, weights), regrets(x, y, weights), chance_regrets(y, weights), strict=True
    ):
        times = row.long()
        a, b = x.repeat_interleave(times), y.repeat_interleave(times)
        assert value.item() == pytest.approx(rank_correlation(a.tolist(), b.tolist()))
        assert cost.item() == pytest.approx((b.max() - y[(row > 0) & (x == a.max())].mean()).item())
        assert blind.item() == pytest.approx((y[row > 0].max() - y[row > 0].mean()).item())


def test_shuffled_labels_are_centred_at_0_and_wider_where_rows_go_together() -> None:
    x = torch.arange(24, dtype=torch.float64)
    alone, together = shuffled_spearman(x, x, torch.arange(24)), shuffled_spearman(x, x, torch.arange(24) // 4)
    assert abs(alone.mean()) < 0.03 and abs(together.mean()) < 0.06
    assert together.std() > 1.5 * alone.std()
    assert alone.std() == pytest.approx(1 / 23**0.5, rel=0.15)


def test_measures_are_what_a_few_lines_find(bench: Bench, plan: Plan, made: list[Look]) -> None:
    look = next(look for look in made if look.setting.slug == "task_arithmetic")
    deltas = merge(bench.vectors, "task_arithmetic").deltas
    for row in look.rows:
        for task in bench.tasks:
            loss = base = 0.0
            for name in [name for name, info in bench.vectors.parameters.items() if len(info.shape) == 2]:
                D, M = bench.vectors.delta(name, task).double(), deltas[name].double()
                loss += ((((row.alpha * M - D) @ D.T) ** 2).sum() / (D**2).sum()).item()
                base += (((D @ D.T) ** 2).sum() / (D**2).sum()).item()
            assert row.measures[INTERFERENCE][task] == pytest.approx(loss / base, rel=1e-4)
            own = torch.cat([bench.vectors.delta(name, task).flatten() for name in bench.vectors.parameters])
            whole = torch.cat([deltas[name].flatten() for name in bench.vectors.parameters])
            assert row.measures[LENGTH][task] == pytest.approx((row.alpha * whole.norm() / own.norm()).item(), rel=1e-4)
            assert 0 <= row.measures[AGREEMENT][task] <= 1


def test_an_expert_agrees_with_itself(bench: Bench) -> None:
    """A merge of one expert's weight 1 is that expert: no drift, full agreement, cosine 1, length 1, no interference."""
    alone = bench.select([next(iter(bench.tasks))])
    plan = Plan.of(("task_arithmetic", "average", "ties"), (1.0,), merges=3, limit=4, unlabeled=4)
    row = next(look for look in looks(alone, plan) if look.setting.slug == "average").rows[0]
    values = {name: next(iter(own.values())) for name, own in row.measures.items()}
    expected = {DRIFT: 0, AGREEMENT: 1, COSINE: 1, LENGTH: 1, INTERFERENCE: 0}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert list(row.accuracy.values()) == pytest.approx([1.0])


def test_every_measure_is_there_at_every_scale(bench: Bench, plan: Plan, made: list[Look]) -> None:
    assert [look.setting for look in made] == settings(plan, bench.vectors)
    for look in made:
        for row in look.rows:
            assert set(row.measures) == set(MEASURES)


def test_merges_that_are_known_are_not_made_again(bench: Bench, plan: Plan, made: list[Look]) -> None:
    heard: list[Look] = []
    again = looks(bench, plan, known={look.setting.number: look for look in made[:3]}, on_look=heard.append)
    assert again[:3] == made[:3] and [look.setting.number for look in heard] == [3, 4]
    assert [look.rows for look in heard] == [look.rows for look in made[3:]]
    other = replace(made[0], setting=replace(made[0].setting, slug="ties"))
    heard.clear()
    looks(bench, replace(plan, merges=3), known={0: other, 1: made[1], 2: made[2]}, on_look=heard.append)
    assert [look.setting.slug for look in heard] == ["average"]


def test_settings_are_the_same_again_and_all_different(bench: Bench) -> None:
    plan = Plan.of(merges=30)
    found = settings(plan, bench.vectors)
    assert found == settings(plan, bench.vectors) and len(found) == 30
    assert len({(one.slug, one.label) for one in found}) == 30
    assert found[0].label == "Weight averaging" and len({one.slug for one in found}) > 8
    subsets = settings(replace(plan, subsets=True), bench.vectors)
    assert all(len(one.tasks) == 3 for one in subsets[::2]) and all(len(one.tasks) == 2 for one in subsets[1::2])


def test_subsets_leave_the_other_tasks_out(bench: Bench) -> None:
    plan = Plan.of(("average", "ties", "task_arithmetic"), (1.0,), merges=6, limit=4, unlabeled=4, subsets=True)
    study = Study(plan, tuple(looks(bench, plan)))
    assert set(study.looks[1].rows[0].accuracy) == set(study.looks[1].setting.tasks) != set(bench.tasks)
    assert study.correlation(DIRSIM) is not None and len(rows(study)) == 3 * 3 + 3 * 2


def test_tables_hold_what_was_found(made: list[Look], plan: Plan) -> None:
    study = Study(plan, tuple(made))
    data = to_data(study)
    first = data["scopes"][ALL]["measures"][0]
    one = study.correlation(first["measure"])
    assert one and first["over all tasks"]["value"] == one.value
    assert len(as_csv(study).splitlines()) == 1 + sum(len(row.accuracy) for look in made for row in look.rows)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"merges": 2}, "merges: expected an integer of at least 3, got 2"),
        ({"factors": (0.5, 2)}, "factors: expected numbers above 0 and up to 10 with 1 among them"),
        (
            {"methods": ("adamerging",)},
            "adamerging: expected a method that merges weights alone into one model, got one that needs",
        ),
        ({"methods": ("none such",)}, "method: expected one of"),
    ],
)
def test_what_no_study_can_be_made_of_is_refused(about: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan.of(**about)  # type: ignore[arg-type]


def test_two_merges_tell_nothing(made: list[Look], plan: Plan) -> None:
    with pytest.raises(InputError, match="expected at least 3 merges that succeeded, got 2"):
        Study(plan, tuple(made[:2]))
