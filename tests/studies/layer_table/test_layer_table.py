"""The table of all matrices against a few independent lines; differences, filters, and what has no value."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench, Scale
from dcmerge.evaluation.drift import feature_drift
from dcmerge.merging.merge import merge
from dcmerge.spectral.spectra import effective_rank
from dcmerge.studies.damage import EXPERT, Plan
from dcmerge.studies.damage.measuring import damage
from dcmerge.studies.diagnosis import directional_similarity
from dcmerge.studies.inspection import consistency, matrices
from dcmerge.studies.layer_table import OF_SET, LayerTable, of_damage, of_drift, of_merge, of_set
from dcmerge.studies.layer_table.found import as_csv, rows, task_rows, two_as_csv, two_rows
from dcmerge.studies.small_sets import full_set, random_tensors, tiny_bench
from dcmerge.studies.verdict import verdict

QKV = "visual.transformer.resblocks.1.attn.in_proj_weight"
PROJ = "visual.proj"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("set"), tasks=3)


@pytest.fixture(scope="module")
def table(bench: Bench) -> LayerTable:
    return of_set(bench.vectors)


def merged_table(bench: Bench, slug: str) -> LayerTable:
    return of_merge(bench.vectors, consistency(bench.vectors, merge(bench.vectors, slug).deltas))


def test_columns_of_the_experts_are_what_a_few_lines_find(bench: Bench, table: LayerTable) -> None:
    assert list(table.layers) == matrices(bench.vectors) and tuple(table.values) == OF_SET
    at, pairs = table.layers.index(QKV), verdict(bench.vectors, by="matrices").pairs
    for row, task in enumerate(table.tasks):
        s = torch.linalg.svdvals(bench.vectors.delta(QKV, task).double())
        assert table.values["norm"][row, at].item() == pytest.approx(s.norm().item(), rel=1e-5)
        assert table.values["effective rank"][row, at].item() == pytest.approx(effective_rank(s), rel=1e-4)
        assert table.values["top share"][row, at].item() == pytest.approx(100 * (s[0] ** 2 / s.square().sum()).item(), rel=1e-4)
        own = [one.parts[QKV].overlap or 0 for one in pairs if task in (one.first, one.second)]
        assert table.values["overlap, times chance"][row, at].item() == pytest.approx(sum(own) / len(own), rel=1e-6)


def test_columns_of_a_merge_come_from_their_measures(bench: Bench, table: LayerTable) -> None:
    merged = merge(bench.vectors, "average")
    found = table | merged_table(bench, "average")
    similarity = directional_similarity(bench, merged.deltas)
    at = found.layers.index(QKV)
    assert found.values["DirSim"][:, at].tolist() == pytest.approx(
        [row[similarity.layers.index(QKV)] for row in similarity.table]
    )
    assert similarity.tasks[bench.vectors.tasks[0]] == pytest.approx(sum(similarity.table[0]) / len(similarity.layers))
    drift = feature_drift(bench, merged.model(bench, 1.0), split="val")
    assert drift is not None
    found = found | of_drift(bench.vectors, drift)
    for row in range(3):
        ratios = [m / b for m, b in zip(drift.merged[row], drift.base[row], strict=True)]
        assert found.values["drift"][row, at].item() == pytest.approx(ratios[1])
        assert found.values["drift"][row, found.layers.index(PROJ)].item() == pytest.approx(ratios[-1])
    first = found.layers.index("visual.positional_embedding")
    assert all(math.isnan(value) for value in found.values["drift"][:, first].tolist())


def test_damage_stands_where_a_map_has_it(bench: Bench, table: LayerTable) -> None:
    found = damage(bench, Plan.of("average", changes=(EXPERT,), limit=None), Scale(1.0, "given"))
    column = (table | of_damage(bench.vectors, found)).values["damage"]
    for row, task in enumerate(table.tasks):
        cell = 100 * found.cell(EXPERT, QKV, task).value
        assert column[row, table.layers.index(QKV)].item() == pytest.approx(cell)


def test_a_difference_is_of_what_depends_on_the_merge(bench: Bench, table: LayerTable) -> None:
    first, second = (table | merged_table(bench, slug) for slug in ("dc_merge", "average"))
    found = first - second
    torch.testing.assert_close(found.values["DirSim"], first.values["DirSim"] - second.values["DirSim"], equal_nan=True)
    assert found.values["norm"] is first.values["norm"]


def test_filters_and_orders(table: LayerTable) -> None:
    assert {name for name in table.layers if "mlp" in name} == set(table.matching("MLP").layers)
    assert table.matching("*.1.*in_proj*").layers == (QKV,) and table.matching("block 1").layers
    assert not table.matching("nothing like it").layers
    norms = table.sorted("norm").mean("norm")
    assert norms == sorted(norms, key=lambda value: -(value or 0))


def test_rows_are_means_and_cells(bench: Bench, table: LayerTable) -> None:
    found = table | merged_table(bench, "average")
    whole, cells = rows(found), task_rows(found)
    assert len(cells) == 3 * len(whole) == as_csv(found).count("\n") - 1
    own = [cell["norm"] for cell in cells if cell["matrix"] == QKV]
    assert next(row["norm"] for row in whole if row["matrix"] == QKV) == pytest.approx(sum(own) / 3)


def test_two_matrices_stand_beside_each_other(bench: Bench, table: LayerTable) -> None:
    found = table | merged_table(bench, "average")
    by_column = {row["column"]: row for row in two_rows(found, QKV, PROJ)}
    assert list(by_column) == [*OF_SET, "DirSim"]
    places = [found.layers.index(name) for name in (QKV, PROJ)]
    for column, row in by_column.items():
        one, two = (found.values[column][:, place] for place in places)
        known = [value for value in (one - two).tolist() if not math.isnan(value)]
        assert row["difference"] == (pytest.approx(sum(known) / len(known)) if known else None)
        assert row["first"] == found.mean(column)[places[0]] and row["second"] == found.mean(column)[places[1]]
        for task, a, b in zip(found.tasks, one.tolist(), two.tolist(), strict=True):
            assert row["tasks"][task] == (None if math.isnan(a - b) else pytest.approx(a - b))
    assert two_as_csv(found, QKV, PROJ).count("\n") == 1 + 3 * len(by_column)


def test_a_matrix_is_found_by_its_name_or_by_what_only_it_has(table: LayerTable) -> None:
    assert table.one(PROJ) == table.one("VISUAL.PROJ") == PROJ and table.one("1.attn.in_proj") == QKV
    with pytest.raises(InputError, match=r"layer: expected the name of one matrix, got 'in_proj', which fits .*in_proj"):
        table.one("in_proj")
    with pytest.raises(InputError, match="which fits none"):
        table.one("nowhere")


def test_one_expert_overlaps_with_nobody(tmp_path: Path) -> None:
    found = of_set(full_set(tmp_path, {"a": random_tensors(1)}))
    assert set(found.mean("overlap, times chance")) == {None} and None not in found.mean("norm")


def test_it_can_be_cancelled(bench: Bench) -> None:
    with pytest.raises(Cancelled):
        of_set(bench.vectors, cancelled=lambda: True)
