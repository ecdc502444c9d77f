"""Methods side by side as a library: what the dashboard relies on beyond the figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, InputError
from dcmerge.comparison import FIXED_SCALES, Row, compare, measure
from dcmerge.evaluation import Bench, ImageEncoder, Split, Task
from tests.builders import full_set, random_tensors

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.manual_seed(0)
    encoder = ImageEncoder(CONFIG)
    base = {f"visual.{name}": value.clone() for name, value in encoder.visual.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in base.items()}
    deltas = {f"task{seed}": random_tensors(seed, shapes, scale=0.3) for seed in (0, 1)}
    vectors = full_set(tmp_path_factory.mktemp("bench"), deltas, base)
    return Bench(encoder, {task: _task(encoder, task, base, delta) for task, delta in deltas.items()}, vectors)


def _task(encoder: ImageEncoder, name: str, base: dict[str, Tensor], delta: dict[str, Tensor]) -> Task:
    """Random images, labelled by what the expert says."""
    draw = torch.Generator().manual_seed(len(name) + int(name[-1]))
    head = torch.nn.functional.normalize(torch.randn(3, 8, generator=draw), dim=-1)
    splits = {}
    for split, count in (("val", 15), ("test", 20)):
        images = torch.randint(0, 256, (count, 3, 16, 16), generator=draw, dtype=torch.uint8)
        labels = (encoder.encode({n: base[n] + delta[n] for n in base}, images) @ head.T).argmax(dim=1)
        splits[split] = Split(images, labels.clone())
    return Task(name, name.title(), ("a", "b", "c"), head, splits)


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


def test_parameters_reach_their_method(bench: Bench) -> None:
    found = compare(bench, ["ties"], {"ties": {"density": 0.5}}, limit=6, val_limit=6)
    assert found.row("ties").parameters == {"density": 0.5, "aggregate": "mean"}


def test_a_bad_parameter_is_that_methods_own_row(bench: Bench) -> None:
    found = compare(bench, ["ties", "iso_c"], {"ties": {"density": 7}}, limit=6, val_limit=6)
    row = found.row("ties")
    assert "density" in row.error and row.evaluation is row.difference is row.scale is None
    assert row.to_dict()["accuracy"] is None and found.row("iso_c").error is None


def test_without_an_average_there_is_no_difference(bench: Bench) -> None:
    found = compare(bench, ["iso_c"], {"average": {"no_such": 1}}, limit=6, val_limit=6)
    assert found.row("average").error and found.row("iso_c").difference is None


def test_averaging_has_no_scale_to_choose_but_takes_one(bench: Bench) -> None:
    assert measure(bench, "average", limit=6).scale == FIXED_SCALES["average"]
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
