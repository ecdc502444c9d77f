"""Methods side by side as a library: what the dashboard relies on beyond the figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dcmerge import Cancelled, InputError, merge
from dcmerge.evaluation import Bench
from dcmerge.studies.comparison import compare
from dcmerge.studies.measuring import Row, fixed_scale, measure
from tests.builders import tiny_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def test_rows_come_as_they_are_ready_and_progress_never_goes_back(bench: Bench) -> None:
    rows: list[Row] = []
    told: list[tuple[float, str]] = []
    found = compare(bench, ["ties", "ties"], on_row=rows.append, progress=lambda *step: told.append(step))
    assert [row.name for row in found.rows] == ["zero-shot", "average", "ties", "experts"]
    assert rows == list(found.rows)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert any("TIES" in text for _, text in told)
    assert found.row("ties").difference.value == pytest.approx(
        found.row("ties").evaluation.mean - found.row("average").evaluation.mean
    )


def test_task_arithmetic_has_a_second_row_at_the_papers_alpha(bench: Bench) -> None:
    """Asked for last, it comes before the methods that are compared to it."""
    found = compare(bench, ["ties", "task_arithmetic"], limit=6, val_limit=6)
    names = ["zero-shot", "average", "task_arithmetic-0.3", "task_arithmetic", "ties", "experts"]
    assert [row.name for row in found.rows] == names
    fixed, tuned, ties = found.rows[2:5]
    assert fixed.scale.value == 0.3 and "fixed" in fixed.scale.origin and fixed.slug == tuned.slug == "task_arithmetic"
    merged = merge(bench.vectors, "task_arithmetic").deltas
    assert fixed.evaluation.mean == bench.evaluate(bench.merged_weights(merged, 0.3), "", limit=6).mean
    assert {name: gain.value for name, gain in ties.gains.items()} == {
        row.name: pytest.approx(ties.evaluation.mean - row.evaluation.mean) for row in (fixed, tuned)
    }
    assert set(tuned.gains) == {fixed.name} and not fixed.gains and fixed.difference
    again = compare(bench, ["ties", "task_arithmetic"], limit=6, val_limit=6, known={row.name: row for row in found.rows})
    assert all(a is b for a, b in zip(again.rows, found.rows, strict=True))


def test_without_task_arithmetic_there_is_no_gain_over_it(bench: Bench) -> None:
    assert not compare(bench, ["ties"], limit=6, val_limit=6).row("ties").gains


def test_a_row_on_the_test_stream(bench: Bench) -> None:
    """The same method on the test images, which gets the method's other parameters."""
    given = {"adamerging": {"iterations": 2, "start": 0.3}}
    found = compare(bench, ["adamerging-test", "adamerging"], given, limit=6, val_limit=6)
    row = found.row("adamerging-test")
    assert row.parameters["images"] == "test" and row.parameters["iterations"] == 2 and row.slug == "adamerging"
    assert found.row("adamerging").parameters["images"] == "val" and row.curve != found.row("adamerging").curve


def test_parameters_reach_their_method(bench: Bench) -> None:
    found = compare(bench, ["ties"], {"ties": {"density": 0.5}}, limit=6, val_limit=6)
    assert found.row("ties").parameters == {"density": 0.5, "aggregate": "mean", "trim": "model"}


def test_one_method_appears_with_several_settings(bench: Bench) -> None:
    given = {"ties": {"density": 0.5}, "ties#2": {"density": 0.1}, "ties#3": {}}
    rows = {row.name: row for row in compare(bench, list(given), given, limit=8).rows if row.slug == "ties"}
    assert [row.parameters["density"] for row in rows.values()] == [0.5, 0.1, 0.2]
    assert [row.title for row in rows.values()] == ["TIES-Merging", "TIES-Merging (density=0.1)", "TIES-Merging (defaults)"]
    alone = compare(bench, ["ties"], {"ties": {"density": 0.1}}, limit=8).row("ties")
    assert rows["ties#2"].measured.to_dict() == alone.measured.to_dict() and rows["ties#2"].scale == alone.scale


def test_a_bad_parameter_is_that_methods_own_row(bench: Bench) -> None:
    found = compare(bench, ["ties", "iso_c"], {"ties": {"density": 7}}, limit=6, val_limit=6)
    row = found.row("ties")
    assert "density" in row.error and row.evaluation is row.difference is row.scale is None
    assert row.to_dict()["accuracy"] is None and found.row("iso_c").error is None


def test_without_an_average_there_is_no_difference(bench: Bench) -> None:
    found = compare(bench, ["iso_c"], {"average": {"no_such": 1}}, limit=6, val_limit=6)
    assert found.row("average").error and found.row("iso_c").difference is None


def test_averaging_has_no_scale_to_choose_but_takes_one(bench: Bench) -> None:
    assert measure(bench, "average", limit=6).scale == fixed_scale("average")
    assert measure(bench, "average", scale=2, limit=6).scale.value == 2


@pytest.mark.parametrize("scale", [float("nan"), 1e9, "much", True])
def test_bad_scales(bench: Bench, scale: object) -> None:
    with pytest.raises(InputError, match="scale"):
        measure(bench, "average", scale=scale)


def test_an_unknown_method_is_refused_before_anything_is_computed(bench: Bench) -> None:
    with pytest.raises(InputError, match="other"):
        compare(bench, ["ties", "other"], progress=lambda share, text: pytest.fail("something was computed"))


def _after(calls: int) -> Callable[[], bool]:
    count = iter(range(1000))
    return lambda: next(count) >= calls


@pytest.mark.parametrize("calls", [0, 3, 8, 30])
def test_it_can_be_cancelled(bench: Bench, calls: int) -> None:
    fresh = Bench(bench.encoder, bench.tasks, bench.vectors)
    with pytest.raises(Cancelled):
        compare(fresh, ["ties", "iso_c", "tsv_m"], cancelled=_after(calls))


def test_a_diagnosis_is_made_when_asked_for(bench: Bench) -> None:
    found = compare(bench, ["ties"], limit=6, val_limit=6, diagnosed=True)
    ties = found.row("ties")
    assert set(ties.dirsim.tasks) == {"task0", "task1"} and 0 < ties.dirsim.mean <= 1
    assert ties.drift.places[-1] == "features" and all(value > 0 for value in ties.drift.mean)
    plain = ties.to_dict()
    assert plain["dirsim"]["mean"] == ties.dirsim.mean and plain["drift"]["mean"] == list(ties.drift.mean)
    assert plain["peak_bytes"] is None or plain["peak_bytes"] >= 0
    assert compare(bench, [], limit=6, val_limit=6).row("average").drift is None


def test_methods_with_a_part_for_each_task_are_diagnosed_too(bench: Bench) -> None:
    found = compare(bench, ["emr"], limit=6, val_limit=6, diagnosed=True)
    row = found.row("emr")
    assert row.error is None and row.drift.mean != found.row("average").drift.mean


def test_known_rows_are_taken_over_and_not_computed_again(bench: Bench) -> None:
    limits = {"limit": 6, "val_limit": 6}
    first = compare(bench, ["ties", "iso_c"], **limits)
    known = {row.name: row for row in first.rows if row.name != "iso_c"}
    rows: list[Row] = []
    told: list[float] = []
    fresh = Bench(bench.encoder, bench.tasks, bench.vectors)
    found = compare(fresh, ["ties", "iso_c"], known=known, on_row=rows.append, progress=lambda s, t: told.append(s), **limits)
    assert [row.name for row in rows] == ["iso_c"] and told[0] == pytest.approx(0.7)
    assert all(found.row(name) is row for name, row in known.items())
    assert found.row("iso_c").evaluation.to_dict() == first.row("iso_c").evaluation.to_dict()
    assert found.row("iso_c").difference == first.row("iso_c").difference
