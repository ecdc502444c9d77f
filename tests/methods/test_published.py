"""Agreement with the published algorithms, in relative Frobenius norm, on whole models and many shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import merge
from dcmerge.checkpoints import dense
from dcmerge.vectors.layers import layer_of
from tests.builders import (
    full_set,
    layer_set,
    lora_set,
    merged_dense,
    random_deltas,
    random_matrices,
    random_tensors,
    relative_error,
)
from tests.methods import published

TOLERANCE = 1e-5
#: rows, columns, tasks: tall, wide, square, T not dividing min(m, n), two tasks, a rank of 1.
CASES = [(48, 20, 3), (20, 48, 3), (32, 32, 4), (17, 96, 8), (30, 30, 7), (24, 40, 2), (9, 9, 8), (40, 16, 1)]
case = pytest.mark.parametrize(("rows", "columns", "tasks"), CASES, ids=lambda value: str(value))


def double(deltas: list[Tensor]) -> list[Tensor]:
    return [delta.double() for delta in deltas]


def merged(folder: Path, deltas: list[Tensor], slug: str, **parameters: object) -> Tensor:
    return merged_dense(layer_set(folder, deltas), slug, parameters)["weight"]


@case
@pytest.mark.parametrize("keep", [1e-3, 0.05, 1.0])
def test_dc_merge_of_full_fine_tuning(tmp_path: Path, rows: int, columns: int, tasks: int, keep: float) -> None:
    deltas = random_matrices(tasks, rows, columns)
    wanted = published.dc_merge_full(double(deltas), keep)
    assert relative_error(merged(tmp_path, deltas, "dc_merge", keep=keep), wanted) < TOLERANCE


@pytest.mark.parametrize("smoothing", ["average", "linear"])
def test_dc_merge_of_full_fine_tuning_with_smoothing(tmp_path: Path, smoothing: str) -> None:
    deltas = random_matrices(3, 20, 31)
    wanted = published.dc_merge_full(double(deltas), 0.03, smoothing, rho=3.0)
    found = merged(tmp_path, deltas, "dc_merge", keep=0.03, smoothing=smoothing, rho=3.0)
    assert relative_error(found, wanted) < TOLERANCE


def test_dc_merge_of_full_fine_tuning_without_mask(tmp_path: Path) -> None:
    deltas = random_matrices(4, 16, 20)
    wanted = published.dc_merge_full(double(deltas), 0.2, mask=False)
    assert relative_error(merged(tmp_path, deltas, "dc_merge", keep=0.2, block_mask=False), wanted) < TOLERANCE


def test_dc_merge_of_a_whole_model_averages_the_rest(tmp_path: Path) -> None:
    """Names with text_projection, vectors, scalars and convolutions are means; every other matrix is merged."""
    deltas, base = random_deltas(3), random_tensors(0, scale=2.0)
    found = merged_dense(full_set(tmp_path, deltas, base), "dc_merge", {"keep": published.KEEP})
    for name, delta in found.items():
        own = [task[name] for task in deltas.values()]
        is_merged = delta.dim() == 2 and "text_projection" not in name
        wanted = published.dc_merge_full(double(own)) if is_merged else torch.stack(own).mean(dim=0)
        assert relative_error(delta, wanted) < TOLERANCE, name


@pytest.mark.parametrize(
    ("rows", "columns", "tasks", "rank"), [(64, 80, 4, 16), (140, 130, 8, 16), (60, 48, 12, 4), (64, 64, 3, 16)]
)
@pytest.mark.parametrize("smoothing", ["auto", "average", "linear", "none"])
def test_dc_merge_of_adapters(tmp_path: Path, rows: int, columns: int, tasks: int, rank: int, smoothing: str) -> None:
    draw = torch.Generator().manual_seed(3)
    decay = torch.logspace(0, -1, rank)
    factors = [
        (torch.randn(rows, rank, generator=draw) * decay, torch.randn(rank, columns, generator=draw)) for _ in range(tasks)
    ]
    vectors = lora_set(tmp_path, {f"task{t}": {"q_proj.weight": pair} for t, pair in enumerate(factors)})
    found = merged_dense(vectors, "dc_merge", {"smoothing": smoothing, "keep": published.KEEP})["q_proj.weight"]
    used = "average" if smoothing == "auto" else smoothing
    wanted = published.dc_merge_lora(double([B @ A for B, A in factors]), used, rank=rank)
    assert relative_error(found, wanted) < TOLERANCE


@case
def test_tsv_m(tmp_path: Path, rows: int, columns: int, tasks: int) -> None:
    deltas = random_matrices(tasks, rows, columns)
    assert relative_error(merged(tmp_path, deltas, "tsv_m"), published.tsv_m(double(deltas))) < TOLERANCE


def test_tsv_m_with_a_chosen_rank(tmp_path: Path) -> None:
    deltas = random_matrices(3, 20, 14)
    assert relative_error(merged(tmp_path, deltas, "tsv_m", rank=2), published.tsv_m(double(deltas), 2)) < TOLERANCE


@case
def test_iso_c(tmp_path: Path, rows: int, columns: int, tasks: int) -> None:
    deltas = random_matrices(tasks, rows, columns)
    assert relative_error(merged(tmp_path, deltas, "iso_c"), published.iso_c(double(deltas))) < TOLERANCE


def published_rounding_fits(rows: int, columns: int, tasks: int, fraction: float) -> bool:
    """Whether the published code does not ask for more task-specific directions than there are."""
    k = min(rows, columns)
    return round((k - int(k * fraction)) / tasks) * tasks <= k


CTS_CASES = [(*sizes, f) for sizes in CASES for f in (0.0, 0.3, 0.8, 1.0) if published_rounding_fits(*sizes, f)]


@pytest.mark.parametrize(("rows", "columns", "tasks", "fraction"), CTS_CASES)
def test_iso_cts(tmp_path: Path, rows: int, columns: int, tasks: int, fraction: float) -> None:
    deltas = random_matrices(tasks, rows, columns)
    found = merged(tmp_path, deltas, "iso_cts", common_fraction=fraction)
    assert relative_error(found, published.iso_cts(double(deltas), fraction)) < TOLERANCE


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@pytest.mark.parametrize("density", [0.0, 0.2, 0.5, 1.0])
def test_ties(tmp_path: Path, density: float, aggregate: str) -> None:
    deltas = random_deltas(4)
    found = merged_dense(full_set(tmp_path, deltas), "ties", {"density": density, "aggregate": aggregate})
    wanted = published.ties(deltas, density, aggregate)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


def test_ties_in_half_integers_has_ties_and_undecided_entries(tmp_path: Path) -> None:
    """Few distinct magnitudes: many entries equal the threshold, and many sums are exactly zero."""
    deltas = {task: {name: (2 * d).round() / 2 for name, d in own.items()} for task, own in random_deltas(4).items()}
    vectors = full_set(tmp_path, deltas)
    for density in (0.3, 0.6, 1.0):
        for aggregate in ("mean", "sum"):
            found = merged_dense(vectors, "ties", {"density": density, "aggregate": aggregate})
            wanted = published.ties(deltas, density, aggregate)
            for name in wanted:
                torch.testing.assert_close(found[name], wanted[name])


def test_the_default_rank_is_the_published_one(tmp_path: Path) -> None:
    for tasks in (2, 5, 8):
        vectors = layer_set(tmp_path / str(tasks), random_matrices(tasks, 17, 23))
        assert layer_of(vectors, "weight").default_rank() == int(17 * (1 / tasks))


@pytest.mark.parametrize("ratio", [0.05, 0.2])
def test_pcb(tmp_path: Path, ratio: float) -> None:
    deltas = random_matrices(4, 25, 40)
    assert relative_error(merged(tmp_path, deltas, "pcb", ratio=ratio), published.pcb(double(deltas), ratio)) < TOLERANCE


@pytest.mark.parametrize("size", ["means", "entries"])
def test_emr(tmp_path: Path, size: str) -> None:
    deltas = random_deltas(4)
    merged = merge(full_set(tmp_path, deltas), "emr", size=size)
    wanted = published.emr([{name: value.double() for name, value in own.items()} for own in deltas.values()], size)
    for task, own in zip(deltas, wanted, strict=True):
        delta = merged.modules[task].delta
        assert delta is not None
        for name, value in own.items():
            assert relative_error(dense(delta(name, merged.deltas[name])), value) < TOLERANCE


@pytest.mark.parametrize(("density", "gamma"), [(0.14, 0.01), (0.5, 0.1), (0.05, 0.0)])
def test_breadcrumbs_by_row_and_by_parameter(tmp_path: Path, density: float, gamma: float) -> None:
    deltas = random_matrices(3, 30, 200)
    for form, by_row in (("published", True), ("mergekit", False)):
        found = merged(tmp_path / form, deltas, "breadcrumbs", form=form, density=density, gamma=gamma)
        assert relative_error(found, published.breadcrumbs(double(deltas), density, gamma, by_row)) < TOLERANCE


def test_what_breadcrumbs_keep_by_default(tmp_path: Path) -> None:
    (delta,) = random_matrices(1, 30, 200)
    for form, kept in (("published", 28), ("mergekit", 180)):
        assert int((merged(tmp_path / form, [delta], "breadcrumbs", form=form) != 0).sum()) == 30 * kept


@pytest.mark.parametrize("rank", [3, 5, 16])
def test_robustmerge_in_both_forms(tmp_path: Path, rank: int) -> None:
    draw = torch.Generator().manual_seed(rank)
    factors = [(torch.randn(30, rank, generator=draw), torch.randn(rank, 44, generator=draw)) for _ in range(3)]
    vectors = lora_set(tmp_path, {f"task{t}": {"q_proj.weight": pair} for t, pair in enumerate(factors)})
    exact = [(B.double(), A.double()) for B, A in factors]
    for form, formula in (("sum", published.robustmerge_paper), ("published", published.robustmerge_code)):
        found = merged_dense(vectors, "robustmerge", {"form": form})["q_proj.weight"]
        assert relative_error(found, formula(exact, 0.2)) < TOLERANCE, form


@case
@pytest.mark.parametrize(("duration", "leading"), [(20.0, 0.65), (3.0, 1.0), (1e5, 0.3)])
def test_wudis_spectral_solver(tmp_path: Path, rows: int, columns: int, tasks: int, duration: float, leading: float) -> None:
    deltas = random_matrices(tasks, rows, columns)
    found = merged(tmp_path, deltas, "wudi", solver="spectral", duration=duration, leading=leading)
    assert relative_error(found, published.swudi(double(deltas), duration, leading)) < TOLERANCE
