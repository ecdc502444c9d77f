"""Whole sweeps on a tiny tower: every point once, whatever happens in between, and an honest account of the choice."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from dcmerge import InputError, merge
from dcmerge.errors import Cancelled
from dcmerge.evaluation import Bench
from dcmerge.runs import EVALUATION, POINT, RunStore
from dcmerge.runtime.plain import from_plain
from dcmerge.studies.measuring import Row
from dcmerge.studies.small_sets import tiny_bench
from dcmerge.studies.sweep import Arm, Found, Plan, Point
from dcmerge.studies.sweep.recording import Recorder
from dcmerge.studies.sweep.running import Worker, found_in, prepare, sweep
from dcmerge.studies.sweep.store import Store
from dcmerge.studies.sweep.tables import as_csv, rows, to_data
from dcmerge.vectors.mix import Mix


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def plan(**about: Any) -> Plan:
    given = {"over": ["density=0.1:0.9:4"], "test_limit": 8, **about}
    return Plan.of("ties", given.pop("over"), **given)


def swept(bench: Bench, path: Path, wanted: Plan, **how: Any) -> Found:
    store = Store(path / "study.sqlite3", wanted)
    try:
        return sweep(bench, wanted, store, **how)
    finally:
        store.close()


def test_every_point_of_a_grid_is_measured_as_the_bench_does(bench: Bench, tmp_path: Path) -> None:
    found = swept(bench, tmp_path, plan())
    assert [point.values["density"] for point in found.points] == pytest.approx([0.1, 0.37, 0.63, 0.9])
    for point in found.points:
        merged = merge(bench.vectors, "ties", **point.parameters)
        expected = bench.evaluate(merged.model(bench, point.scale), "ties", split="val")
        assert {task: int(own.sum()) for task, own in point.hits.items()} == {
            task: int(own.hits.sum()) for task, own in expected.tasks.items()
        }
        assert point.value("mean", found.yardstick) == pytest.approx(expected.mean_normalised)
    assert found.remaining == 0 and not found.errors
    best = found.best
    assert best is not None and found.estimate(best).value == max(found.estimate(point).value for point in found.points)


def test_the_mixer_is_swept_and_its_best_point_holds_the_mix(bench: Bench, tmp_path: Path) -> None:
    """Weights beside a fixed one, and the last block's share of α; the unweighted point is among them."""
    over, mix = ["weight.task0=0,1,2", "depth.last=0.5,1"], {"weights": {"task1": 0.5}}
    wanted, store = Plan.of("task_arithmetic", over, mix=mix, test_limit=8), RunStore(tmp_path / "runs.sqlite3")
    found = swept(bench, tmp_path, wanted, recorder=Recorder(bench, "tiny", "g", store))
    assert len(found.points) == 6 and not found.errors
    for point in found.points:
        weights, last = {"task0": point.values["weight.task0"], "task1": 0.5}, point.values["depth.last"]
        vectors = bench.vectors.mixed(weights=weights, depth=f"linear:1:{last}")
        expected = bench.evaluate(merge(vectors, "task_arithmetic").model(bench, point.scale), "x", split="val")
        assert point.value("mean", found.yardstick) == pytest.approx(expected.mean_normalised)
        assert Mix.from_data(point.mix).trimmed() == vectors.mix
    best = found.best
    assert best is not None and to_data(found)["best"]["mix"] == best.mix
    (test,) = store.find(kind=EVALUATION)
    assert test.recipe is not None and Mix.from_data(test.recipe["mix"]) == Mix.from_data(best.mix).trimmed()
    assert "task1 0.5" in test.mix_text and {run.mix_text for run in store.find(kind=POINT)} >= {test.mix_text}


def test_an_expert_that_is_not_there_is_refused_before_the_first_point(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights: expected experts of task0"):
        swept(bench, tmp_path, Plan.of("ties", ["weight.nobody"]))
    with pytest.raises(InputError, match="rmm .* expected none of them"):
        swept(bench, tmp_path, Plan.of("rmm", ["weight.task0"]))


def test_the_chosen_point_is_looked_at_once_on_test(bench: Bench, tmp_path: Path) -> None:
    first = swept(bench, tmp_path, plan())
    again = swept(bench, tmp_path, plan(), on_point=lambda point, found: pytest.fail("a point was looked at twice"))
    assert len(first.tests) == len(again.tests) == 1 and again.best is not None
    row = from_plain(Row, again.tests[0]["row"])
    merged = merge(bench.vectors, "ties", **again.best.parameters)
    expected = bench.evaluate(merged.model(bench, again.best.scale), "ties", limit=8)
    assert row.measured.split == "test" and row.measured.mean == expected.mean


def test_a_sweep_goes_on_after_a_cancel_and_finds_every_point_once(bench: Bench, tmp_path: Path) -> None:
    seen: list[int] = []
    wanted = plan(over=["density=0.1:0.9:6"])

    def cancelled() -> bool:
        return len(seen) == 2

    with pytest.raises(Cancelled):
        swept(bench, tmp_path, wanted, on_point=lambda point, found: seen.append(point.number), cancelled=cancelled)
    found = swept(bench, tmp_path, wanted)
    densities = [point.values["density"] for point in found.points]
    assert len(densities) == len(set(densities)) == 6
    assert {point.number for point in found.points} >= set(seen)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_look_at_as_many_points_as_asked_for(bench: Bench, tmp_path: Path, sampler: str) -> None:
    wanted = plan(over=["density", "scale"], sampler=sampler, trials=5, test=False)
    found = swept(bench, tmp_path, wanted)
    assert len(found.points) == 5 and not found.tests
    assert all(0 <= point.values["density"] <= 1 and point.scale == point.values["scale"] for point in found.points)
    more = swept(bench, tmp_path, plan(over=["density", "scale"], sampler=sampler, trials=7, test=False))
    assert [point.values for point in more.points[:5]] == [point.values for point in found.points] and len(more.points) == 7


def test_a_random_sweep_is_the_same_wherever_it_is_cut_off(bench: Bench, tmp_path: Path) -> None:
    wanted = plan(over=["density", "scale"], sampler="random", trials=4, test=False)
    whole = swept(bench, tmp_path / "whole", wanted)
    left = iter([False] * 5)
    with pytest.raises(Cancelled):
        swept(bench, tmp_path / "cut", wanted, cancelled=lambda: next(left, True))
    cut = swept(bench, tmp_path / "cut", wanted)
    assert sorted(p.values["density"] for p in cut.points) == sorted(p.values["density"] for p in whole.points)


def test_two_workers_share_the_points(bench: Bench, tmp_path: Path) -> None:
    wanted = plan(over=["density=0.1:0.9:6"])
    first = Store(tmp_path / "study.sqlite3", wanted)
    prepare(bench, wanted, first)
    second = Store(tmp_path / "study.sqlite3", wanted, worker=1)
    theirs: list[float] = []

    def between(point: Point, found: Found) -> None:
        """While the one worker is at it, the other takes a point too."""
        taken = second.take()
        if taken:
            theirs.append(taken.values["density"])
            second.fail(taken, "not looked at")

    Worker(bench, wanted, first, on_point=between).run()
    found = found_in(wanted, first)
    assert found is not None and len(found.points) + len(theirs) == 6 and len(found.errors) == len(theirs) == 3
    assert {p.values["density"] for p in found.points}.isdisjoint(theirs)
    first.retry_failed()
    Worker(bench, wanted, first).run()
    found = found_in(wanted, first)
    assert found is not None and len(found.points) == 6 and not found.errors
    first.close()
    second.close()


def test_the_study_is_readable_by_optuna(bench: Bench, tmp_path: Path) -> None:
    found = swept(bench, tmp_path, plan(objectives=("mean", "worst")))
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.sqlite3'}")
    study = optuna.load_study(study_name="sweep", storage=storage)
    assert {trial.number for trial in study.best_trials} == {point.number for point in found.front}
    assert [trial.values for trial in study.trials] == [list(found.values(point)) for point in found.points]
    storage.remove_session()
    storage.engine.dispose()


def test_points_are_runs_that_stay(bench: Bench, tmp_path: Path) -> None:
    runs = RunStore(tmp_path / "runs.sqlite3")
    recorder = Recorder(bench, "tiny", "sweep-1", runs)
    found = swept(bench, tmp_path, plan(), recorder=recorder)
    points = runs.find(kind=POINT, group="sweep-1")
    assert len(points) == len(found.points) and {run.alpha for run in points} == {point.scale for point in found.points}
    expected = bench.evaluate(merge(bench.vectors, "ties", **points[0].values).model(bench, points[0].alpha), "", split="val")
    assert all(torch.equal(points[0].hits[task], own.hits) for task, own in expected.tasks.items())
    (test,) = runs.find(kind=EVALUATION, group="sweep-1")
    assert test.tried == found.tried == "best of 4 on 15 validation images a task"
    assert test.recipe is not None and "on the half of the images that did not choose it" in test.recipe["scale_origin"]


def test_what_a_killed_process_had_no_time_to_tell_is_told_once(bench: Bench, tmp_path: Path) -> None:
    wanted, runs, told = plan(), RunStore(tmp_path / "runs.sqlite3"), list[int]()
    swept(bench, tmp_path, wanted)  # points without runs, as after a kill between study and store
    store = Store(tmp_path / "study.sqlite3", wanted)
    recorder = Recorder(bench, "tiny", "sweep-1", runs)
    worker = Worker(bench, wanted, store, recorder=recorder, on_point=lambda point, found: told.append(point.number))
    worker.catch_up(lambda number: number != 2)
    found = found_in(wanted, store)
    assert found is not None and told == [2]
    kept = {run.values["density"] for run in runs.find(kind=POINT, group="sweep-1")}
    assert kept == {point.values["density"] for point in found.points}
    worker.catch_up(lambda number: True)
    assert told == [2] and len(runs.find(kind=POINT, group="sweep-1")) == len(found.points)
    store.close()


def test_a_method_that_fails_at_some_points_keeps_the_others(bench: Bench, tmp_path: Path) -> None:
    wanted = Plan.of("slerp", ["position=0:1:3"], test=False)
    one = tiny_bench(tmp_path / "three", tasks=3)
    with pytest.raises(InputError, match="merges 2 experts"):
        swept(one, tmp_path, wanted)


def test_rows_and_data_tell_the_same(bench: Bench, tmp_path: Path) -> None:
    found = swept(bench, tmp_path, plan())
    table = rows(found)
    assert table[0]["outcome"] == "chosen" and {row["point"] for row in table} == {0, 1, 2, 3}
    assert [row["mean"] for row in table] == sorted((row["mean"] for row in table), reverse=True)
    assert as_csv(found).splitlines()[0].startswith("point,density,alpha,mean,mean low,mean high,worst task,worst,task0,task1")
    data = to_data(found)
    assert data["best"]["tried"] == "best of 4 on 15 validation images a task" and data["remaining"] == 0
    assert data["best"]["interval"]["low"] <= data["best"]["interval"]["value"] <= data["best"]["interval"]["high"]


def test_a_file_that_is_no_study_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite3").write_text("not a database, " * 100)
    with pytest.raises(InputError, match="expected an Optuna study"):
        Store(tmp_path / "study.sqlite3", plan())
    connection = sqlite3.connect(tmp_path / "other.sqlite3")
    connection.execute("CREATE TABLE studies (a)")
    connection.close()
    with pytest.raises(InputError, match="expected an Optuna study"):
        Store(tmp_path / "other.sqlite3", plan())


# Choosing, by hand: one task of four images, two points. The first is right on images 0 and 2 (the even half), the second on 1.
FIRST, SECOND = torch.tensor([True, False, True, False]), torch.tensor([False, True, False, False])


def by_hand(*points: tuple[float, torch.Tensor, bool]) -> Found:
    made = tuple(
        Point(number, {"density": density}, {"density": density}, (Arm(1.0, {"a": hits}),), stopped)
        for number, (density, hits, stopped) in enumerate(points)
    )
    return Found(plan(over=["density"]), made, {"a": torch.ones(4, dtype=torch.bool)}, {"a": torch.zeros(4, dtype=torch.bool)})


def test_the_choice_is_judged_on_the_other_half() -> None:
    found = by_hand((0.1, FIRST, False), (0.2, SECOND, False))
    assert found.best is found.points[0] and found.estimate(found.points[0]).value == 0.5
    # The even half chooses the first point, which is wrong on both odd images; the odd half the second, wrong on both even ones.
    assert found.honest is not None and found.honest["a"].tolist() == [False, False, False, False]
    assert found.honest_estimate is not None and found.honest_estimate.value == 0
    assert found.origin.startswith("best of 2 on 4 validation images a task (grid over density from 0 to 1)")


def test_a_point_that_saw_fewer_images_is_not_chosen() -> None:
    found = by_hand((0.1, torch.tensor([True, True]), True), (0.2, SECOND, False))
    assert found.best is found.points[1] and [point.number for point in found.front] == [1]
    assert [row["outcome"] for row in rows(found)] == ["chosen", "stopped early"]


def test_without_points_nothing_is_chosen() -> None:
    found = by_hand()
    assert found.best is None and found.honest is None and to_data(found)["best"] is None
