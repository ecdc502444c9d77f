"""What must hold for every registered method that needs nothing but weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, TaskVectors, methods
from dcmerge.checkpoints import LowRank
from dcmerge.methods import merged_deltas
from dcmerge.studies.invariants import HOLDS, INVARIANTS, NOT_CHECKED, Invariant
from dcmerge.studies.trials import Sets, Trial
from dcmerge.vectors.cache import Memo
from tests.builders import full_set, lora_set, merged_dense, random_deltas, random_factors, random_tensors, relative_error

SLUGS = [slug for slug, method in methods().items() if {"weights"} <= set(method.needs) <= {"weights", "task"}]
#: What needs the base or adapters besides is asked for the invariants too.
OTHERS = [slug for slug, method in methods().items() if slug not in SLUGS and "images" not in method.needs]
#: Parameters other than the defaults that take another way through a method.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ties": [{"aggregate": "sum"}, {"density": 1.0}, {"density": 0.0}],
    "tsv_m": [{"rank": 1}, {"rank": 4096}],
    "dare": [{"density": 0.1, "seed": 3}, {"density": 1.0}],
    "breadcrumbs": [{"density": 0.3, "gamma": 0.1}, {"form": "mergekit"}],
    "consensus_ta": [{"agreement": 0}, {"agreement": 3, "strictness": 0.2}],
    "wudi": [{"solver": "exact"}, {"solver": "spectral"}, {"learning_rate": 1e-2, "iterations": 20}],
    "doge": [{"iterations": 0}, {"density": 1.0, "divisor": 1.0, "iterations": 20, "learning_rate": 1e-2}],
    "pcb": [{"ratio": 0.5}, {"ratio": 1.0}],
    "opcm": [{"share": 0.0}, {"seed": 1}],
    "iso_cts": [{"common_fraction": 0.0}, {"common_fraction": 0.5}, {"common_fraction": 1.0}],
    "dc_merge": [
        {"smoothing": "average", "keep": 0.1},
        {"smoothing": "linear", "keep": 0.1},
        {"rank": 1},
        {"keep": 1.0},
        {"elect": False, "keep": 0.2},
        {"block_mask": False, "keep": 0.2},
        {"rank": 4096},
    ],
}
#: On other parameters than the defaults only these are asked: the rest of the code is the same.
NUMERIC = {
    *("one task", "permuted tasks", "zero delta", "zero deltas", "identical experts"),
    *("scaled deltas", "float64", "narrow matrices"),
}
CASES = [(slug, variant) for slug in SLUGS for variant in [{}, *VARIANTS.get(slug, [])]]
every_variant = pytest.mark.parametrize(("slug", "parameters"), CASES, ids=lambda value: str(value).replace("'", ""))

#: On adapters these never form a dense product (WUDI in closed form).
KEEP_FACTORS = [*(slug for slug, method in methods().items() if method.keeps_factors), "wudi"]

Deltas = Mapping[str, Mapping[str, Tensor]]


def run(vectors: TaskVectors, slug: str, parameters: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Tensor]:
    return merged_dense(vectors, slug, parameters, **how)


def assert_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = 1e-4) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        assert relative_error(found[name], wanted[name]) < tolerance, name


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> TaskVectors:
    """Three experts of a base that is not zero."""
    return full_set(tmp_path_factory.mktemp("three"), random_deltas(3), random_tensors(0))


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Mapping[str, Any]], Trial]:
    """Trials on one collection of sets; a method with its parameters has one trial, which remembers its merge."""
    sets, made = Sets(tmp_path_factory.mktemp("sets")), {}

    def on(slug: str, parameters: Mapping[str, Any]) -> Trial:
        key = (slug, str(parameters))
        return made.setdefault(key, Trial(slug, methods()[slug].check(parameters), sets))

    return on


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
@pytest.mark.parametrize(
    ("slug", "parameters"), [*CASES, *((slug, {}) for slug in OTHERS)], ids=lambda value: str(value).replace("'", "")
)
def test_what_every_method_promises(trial: Callable[..., Trial], slug: str, parameters: dict, invariant: Invariant) -> None:
    if parameters and invariant.name not in NUMERIC:
        pytest.skip("asked of the defaults")
    finding = invariant.on(trial(slug, parameters))
    if finding.outcome == NOT_CHECKED:
        pytest.skip(finding.text)
    assert finding.outcome == HOLDS, f"{invariant.promise} {finding.text}"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> TaskVectors:
    """Three LoRA experts of rank 2 without a base."""
    return lora_set(tmp_path_factory.mktemp("adapters"), {f"task{t}": random_factors(t) for t in range(3)}, alpha=3)


@pytest.mark.parametrize(
    ("slug", "parameters"),
    [("average", {}), ("task_arithmetic", {}), ("ties", {"density": 1.0}), ("tsv_m", {}), ("dc_merge", {"keep": 1.0})],
)
def test_one_task_comes_back_where_nothing_is_left_out(tmp_path: Path, slug: str, parameters: dict) -> None:
    deltas = random_deltas(1)
    assert_close(run(full_set(tmp_path, deltas), slug, parameters), deltas["task0"])


@pytest.mark.parametrize(("slug", "parameters"), [("tsv_m", {"rank": 2}), ("dc_merge", {"rank": 2, "keep": 1.0})])
def test_an_expert_without_change_changes_nothing(tmp_path: Path, slug: str, parameters: dict) -> None:
    deltas = {task: {"w": own["visual.mlp.c_fc.weight"]} for task, own in random_deltas(2).items()}
    without = run(full_set(tmp_path / "without", deltas), slug, parameters)
    idle = {"idle": {"w": torch.zeros(24, 12)}}
    assert_close(run(full_set(tmp_path / "with", {**idle, **deltas}), slug, parameters), without)


@pytest.mark.parametrize(
    ("slug", "parameters"),
    [
        ("average", {}),
        ("task_arithmetic", {}),
        ("ties", {}),
        ("tsv_m", {"rank": 2}),
        ("dc_merge", {"rank": 2, "smoothing": "linear", "keep": 0.1}),
    ],
)
def test_adapters_merge_like_their_products(tmp_path: Path, adapters: TaskVectors, slug: str, parameters: dict) -> None:
    dense = {task: {name: adapters.delta(name, task).dense() for name in adapters.parameters} for task in adapters.tasks}
    assert_close(run(adapters, slug, parameters), run(full_set(tmp_path, dense), slug, parameters))


@every_variant
def test_the_defaults_and_variants_are_valid(slug: str, parameters: dict) -> None:
    method = methods()[slug]
    assert method.check({}) == method.defaults()
    assert method.check(parameters) == method.defaults() | parameters


def snapshot(memo: Memo) -> list[Tensor]:
    """Copies of every tensor that is remembered, in order."""

    def tensors(value: Any) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        inside = value if isinstance(value, (list, tuple)) else getattr(value, "__dict__", {}).values()
        return [tensor for part in inside for tensor in tensors(part)]

    values = memo.values()
    return [tensor.clone() for key in sorted(values, key=str) for tensor in tensors(values[key])]


@pytest.mark.parametrize("kind", ["three", "adapters"])
def test_nothing_is_changed_in_place(kind: str, request: pytest.FixtureRequest) -> None:
    """All methods on one set, twice: equal bits, and the shared factors are what they were."""
    vectors: TaskVectors = request.getfixturevalue(kind)
    inputs = {path: path.read_bytes() for c in vectors.experts.values() for path in c.files}
    first = [run(vectors, slug, parameters) for slug, parameters in CASES]
    remembered = snapshot(vectors.memo)
    assert remembered
    for (slug, parameters), before in zip(CASES, first, strict=True):
        for name, delta in run(vectors, slug, parameters).items():
            assert torch.equal(delta, before[name]), (slug, parameters, name)
    assert all(torch.equal(a, b) for a, b in zip(remembered, snapshot(vectors.memo), strict=True))
    assert all(path.read_bytes() == content for path, content in inputs.items())


#: Iso's mean is over the directions that adapters have, RobustMerge looks at the factor A of an adapter whose B is zero.
COUNT_DIRECTIONS = {"iso_c", "iso_cts"}


@pytest.mark.parametrize("slug", [*(s for s in SLUGS if "base" not in methods()[s].needs and s not in COUNT_DIRECTIONS), "knots"])
def test_an_adapter_without_a_weight_counts_as_one_that_leaves_it_as_it_is(tmp_path: Path, slug: str) -> None:
    own = {f"task{t}": random_factors(t, rank) for t, rank in enumerate((2, 3, 3))}
    lacking = {task: dict(factors) for task, factors in own.items()}
    B, A = own["task1"]["mlp.fc1.weight"]
    own["task1"]["mlp.fc1.weight"] = torch.zeros_like(B), A
    del lacking["task1"]["mlp.fc1.weight"]
    parameters = {"iterations": 5} if slug == "doge" else {}
    found, wanted = (
        run(lora_set(tmp_path / kind, given), slug, parameters) for kind, given in (("lacking", lacking), ("zero", own))
    )
    assert found["mlp.fc1.weight"].any() or slug == "model_stock"  # random deltas do not agree
    assert_close(found, wanted, 1e-5)


@pytest.mark.parametrize("slug", KEEP_FACTORS)
def test_methods_that_can_never_form_the_product(tmp_path: Path, slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On adapters of other ranks and targets: the dense product is what the test forbids."""
    whole, part = random_factors(0), random_factors(1, 3)
    del part["mlp.fc1.weight"]
    vectors = lora_set(tmp_path, {"whole": whole, "part": part})
    parameters = {"solver": "exact"} if slug == "wudi" else {}
    wanted = run(vectors, slug, parameters)
    monkeypatch.setattr(LowRank, "dense", lambda self: pytest.fail("the dense product was formed"))
    for name, delta in merged_deltas(TaskVectors(None, vectors.experts, vectors.parameters, vectors.report), slug, parameters):
        assert isinstance(delta, LowRank) and delta.rank <= 2 * 3
        assert relative_error(delta.left @ delta.right, wanted[name]) < 1e-5


@pytest.mark.parametrize("slug", ["dc_merge", "knots"])
def test_weights_that_are_merged_ahead_come_in_order_and_alike(tmp_path: Path, slug: str) -> None:
    shapes = {f"layers.{i}.weight": (16 + i, 12) for i in range(9)}
    vectors = lora_set(tmp_path, {f"task{t}": random_factors(t, shapes=shapes) for t in range(3)})
    found, threads = {}, torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found[count] = run(TaskVectors(None, vectors.experts, vectors.parameters, vectors.report), slug)
            assert torch.get_num_threads() == count
        answers = iter([False, False, False])
        stopped = merged_deltas(vectors, slug, cancelled=lambda: next(answers, True))
        with pytest.raises(Cancelled):
            list(stopped)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert list(found[3]) == list(shapes)
    assert_close(found[3], found[1], 1e-6)
