"""What a merge is predicted to take. Whether it comes true is measured, not tested: no test depends on the clock."""

from __future__ import annotations

from pathlib import Path

import torch

from dcmerge.merging import prediction
from dcmerge.merging.prediction import Rates, measured_rates, predicted_costs
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import full_set, lora_set, random_deltas, random_factors

#: So many seconds for each, that every term can be told apart.
RATES = Rates(1e-6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
AVERAGE, MERGE = "Weight averaging", "DC-Merge"


def costs(vectors: TaskVectors) -> dict[str, prediction.Cost]:
    return predicted_costs(vectors.base, vectors.experts, vectors.report.parameters)


def test_rates_are_measured_once_and_positive() -> None:
    rates = measured_rates()
    assert rates is measured_rates()
    assert all(value > 0 for value in vars(rates).values())


def test_reading_is_counted_in_bytes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prediction, "measured_rates", lambda: RATES)
    monkeypatch.setattr(prediction, "_PER_MATRIX", 0.0)
    two, four = (costs(full_set(tmp_path / str(n), random_deltas(n))) for n in (2, 4))
    one = (tmp_path / "2" / "task0.safetensors").stat().st_size
    assert abs(four[AVERAGE].seconds - two[AVERAGE].seconds - 2 * one * RATES.byte) < 1e-9
    assert two[MERGE].seconds == two[AVERAGE].seconds  # nothing else has a price here


def test_eigenvectors_are_counted_by_the_smaller_side(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prediction, "measured_rates", lambda: Rates(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    monkeypatch.setattr(prediction, "_PER_MATRIX", 0.0)
    found = costs(full_set(tmp_path, random_deltas(2, shapes={"w": (6, 40), "v": (9, 3)})))
    assert abs(found[MERGE].seconds - found[AVERAGE].seconds - 2 * (6**3 + 3**3)) < 1e-9


def test_adapters_cost_by_their_rank(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prediction, "measured_rates", lambda: Rates(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(prediction, "_PER_MATRIX", 0.0)
    small, large = (costs(lora_set(tmp_path / str(r), {"a": random_factors(0, r, {"w.weight": (400, 300)})})) for r in (2, 4))
    factors = {r: 4 * 700 * r * r + 2 * (3 * r**3) + 2 * 700 * r * r for r in (2, 4)}
    assert abs(small[MERGE].seconds - small[AVERAGE].seconds - factors[2]) < 1e-3
    assert abs(large[MERGE].seconds - large[AVERAGE].seconds - factors[4]) < 1e-3
    assert large[MERGE].peak_bytes > small[MERGE].peak_bytes > small[prediction.AS_ADAPTER].peak_bytes


def test_an_adapter_is_written_without_dense_products(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prediction, "measured_rates", lambda: Rates(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(prediction, "_seconds", lambda *given: 0.0)
    found = costs(lora_set(tmp_path, {task: random_factors(n, 2, {"w.weight": (40, 30)}) for n, task in enumerate("ab")}))
    assert found[AVERAGE].seconds - found[prediction.AS_ADAPTER].seconds > 4 * 40 * 30 - 1
    assert prediction.AS_ADAPTER not in costs(full_set(tmp_path / "full", random_deltas(2)))


def test_state_dicts_stay_mapped(tmp_path: Path) -> None:
    deltas = random_deltas(2)
    plain = costs(full_set(tmp_path, deltas))
    for task, own in deltas.items():
        torch.save(own, tmp_path / f"{task}.pt")
    mapped = costs(TaskVectors.open(tmp_path / "base.safetensors", {task: tmp_path / f"{task}.pt" for task in deltas}))
    held = sum((tmp_path / f"{task}.pt").stat().st_size for task in deltas)
    assert plain[MERGE].mapped_bytes == 0 and mapped[MERGE].mapped_bytes == held
    assert mapped[AVERAGE].peak_bytes == plain[AVERAGE].peak_bytes + held
