"""What must hold for every registered method that looks at unlabeled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, InputError, merge, methods
from dcmerge.checkpoints import dense
from dcmerge.evaluation import Bench, Split
from dcmerge.merging.merge import Merged
from tests.builders import full_set, random_deltas, relative_error, tiny_bench

SLUGS = [slug for slug, method in methods().items() if "images" in method.needs]
every_method = pytest.mark.parametrize("slug", SLUGS)
#: A first look is enough here: set for every method that has such a parameter.
FEW: dict[str, Any] = {
    "iterations": 2,
    "steps": 2,
    "epochs": 1,
    "exemplars": 4,
    "batch_size": 2,
    "batch": 2,
    "start": 0.2,
    "merged_scale": 0.3,
}
#: Methods that work on transformer blocks, and say so of other towers.
BLOCKS_NEEDED = {"intervmerge", "rmm", "perturb_and_merge"}

#: Towers of open_clip with layers that are not the usual: a ResNet, attention that pools at the end, scaled residuals.
TOWERS: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "image_size": 32},
    "pooled": {"attentional_pool": True, "attn_pooler_heads": 2},
    "scaled": {"ls_init_value": 0.1, "pool_type": "avg"},
}


def few(slug: str) -> dict[str, Any]:
    """Parameters with which a method is done at once."""
    method = methods()[slug]
    return {**method.defaults(), **method.quick, **{name: value for name, value in FEW.items() if name in method.parameters}}


def run(bench: Bench, slug: str, **how: Any) -> Merged:
    return merge(bench.vectors, slug, bench=bench, **{**few(slug), **how})


def fresh(bench: Bench, **changes: Any) -> Bench:
    """The same bench that remembers nothing, with other vectors or tasks where given."""
    return Bench(bench.encoder, changes.get("tasks", bench.tasks), changes.get("vectors", bench.vectors))


def served(bench: Bench, merged: Merged) -> dict[str, Tensor]:
    """How the result, with each task's part, embeds that task's test images."""
    model, found = merged.model(bench, methods()[merged.method].usual_scale), {}
    for task in merged.vectors.tasks:
        module = model.modules.get(task)
        parts = {"edits": module.edits, "repair": module.repair} if module else {}
        encoder = model.encoder or bench.encoder
        found[task] = encoder.encode(model.weights_for(task), bench.tasks[task].splits["test"].images, **parts)
    return found


def assert_sound(bench: Bench, merged: Merged) -> None:
    """Every parameter once, in its shape, float32 and finite, and embeddings of unit length for every task."""
    wanted = {name: parameter.shape for name, parameter in merged.vectors.parameters.items()}
    assert {name: tuple(dense(delta).shape) for name, delta in merged.deltas.items()} == wanted
    for name, delta in merged.deltas.items():
        value = dense(delta)
        assert value.dtype == torch.float32 and torch.isfinite(value).all() and not value.requires_grad, name
    assert merged.modules.keys() in (set(), set(merged.vectors.tasks))
    for task, features in served(bench, merged).items():
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)), msg=task)


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        assert relative_error(found[name], wanted[name]) <= tolerance, name


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


@every_method
def test_results_are_sound(bench: Bench, slug: str) -> None:
    merged = run(bench, slug)
    assert_sound(bench, merged)
    assert all(isinstance(loss, float) for loss in merged.curve)


@every_method
def test_the_order_of_tasks_does_not_matter(bench: Bench, slug: str) -> None:
    if methods()[slug].order_matters:
        pytest.skip("treats tasks in turn")
    turned = fresh(bench, vectors=bench.vectors.select(["task1", "task0"]))
    assert_same(served(turned, run(turned, slug)), served(bench, run(bench, slug)), 1e-3)


@every_method
def test_equal_seeds_give_equal_results(bench: Bench, slug: str) -> None:
    torch.manual_seed(1)
    first = served(bench, run(fresh(bench), slug))
    torch.manual_seed(2)
    assert_same(served(bench, run(fresh(bench), slug)), first, 0)


@pytest.mark.parametrize("slug", ["lot", "cat", "regmean", "fisher"])
def test_another_seed_and_another_split_are_other_images(bench: Bench, slug: str) -> None:
    wanted = served(bench, run(bench, slug))
    for other in ({"seed": 1}, {"images": "test"}):
        found = served(bench, run(bench, slug, **other))
        assert any(not torch.allclose(found[task], wanted[task], atol=1e-4) for task in wanted), other


@every_method
def test_labels_are_never_looked_at(bench: Bench, slug: str) -> None:
    if "labels" in methods()[slug].needs:
        pytest.skip("needs labels")
    tasks = {
        name: replace(task, splits={s: Split(part.images, part.labels * 0) for s, part in task.splits.items()})
        for name, task in bench.tasks.items()
    }
    assert_same(served(bench, run(fresh(bench, tasks=tasks), slug)), served(bench, run(bench, slug)), 0)


@every_method
def test_on_validation_the_test_images_are_never_looked_at(bench: Bench, slug: str) -> None:
    if "images" not in methods()[slug].parameters:
        pytest.skip("has no choice of images")
    tasks = {name: replace(task, splits={"val": task.splits["val"]}) for name, task in bench.tasks.items()}
    found = run(fresh(bench, tasks=tasks), slug, images="val")
    assert_same(served(bench, found), served(bench, run(bench, slug, images="val")), 0)
    with pytest.raises(InputError, match="split: expected one of val, got 'test'"):
        run(fresh(bench, tasks=tasks), slug, images="test")


@every_method
def test_one_task(tmp_path: Path, slug: str) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    assert_sound(bench, run(bench, slug))


@every_method
def test_an_expert_without_change(tmp_path: Path, bench: Bench, slug: str) -> None:
    moved = {name: 0.3 * d for name, d in random_deltas(1, shapes=bench.encoder.shapes)["task0"].items()}
    idle = tiny_bench(tmp_path, deltas={"task0": moved, "task1": {name: 0 * d for name, d in moved.items()}})
    assert_sound(idle, run(idle, slug))


@every_method
def test_a_parameter_that_the_encoder_does_not_have(tmp_path: Path, bench: Bench, slug: str) -> None:
    """The text tower and the scalar of CLIP are merged as well, without any images."""
    rest = {"text_projection": (4, 4), "logit_scale": (), "transformer.ln.weight": (4,), "transformer.ln.bias": (4,)}
    parts = random_deltas(2, 5, rest)
    deltas = {task: {n: bench.vectors.delta(n, task) for n in bench.encoder.shapes} | parts[task] for task in bench.tasks}
    whole = fresh(bench, vectors=full_set(tmp_path, deltas, bench.base_weights() | parts["task0"]))
    assert_sound(whole, run(whole, slug))


@every_method
@pytest.mark.parametrize("tower", TOWERS)
def test_towers_with_other_layers(tmp_path: Path, slug: str, tower: str) -> None:
    bench = tiny_bench(tmp_path, tower=TOWERS[tower])
    if tower == "resnet" and slug in BLOCKS_NEEDED:
        with pytest.raises(InputError, match="expected"):
            run(bench, slug)
        return
    assert_sound(bench, run(bench, slug))


@every_method
def test_without_images_a_method_is_refused_in_one_sentence(bench: Bench, slug: str) -> None:
    with pytest.raises(InputError, match=f"{slug} needs unlabeled images of the tasks, got a set without images"):
        merge(bench.vectors, slug)


@every_method
def test_cancelling_raises_cancelled(bench: Bench, slug: str) -> None:
    with pytest.raises(Cancelled):
        run(fresh(bench), slug, cancelled=lambda: True)
    told: list[float] = []
    with pytest.raises(Cancelled):
        run(fresh(bench), slug, progress=lambda share, text: told.append(share), cancelled=lambda: len(told) >= 1)
    assert len(told) == 1 and told[0] < 0.9, "while it prepares"


@every_method
def test_progress_never_goes_back_and_names_every_parameter(bench: Bench, slug: str) -> None:
    told: list[tuple[float, str]] = []
    run(fresh(bench), slug, progress=lambda *step: told.append(step))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and all(0 <= share < 1 for share in shares)
    assert set(bench.vectors.parameters) <= {text for _, text in told}


@every_method
def test_nothing_is_changed_in_place(bench: Bench, slug: str) -> None:
    base = {name: value.clone() for name, value in bench.base_weights().items()}
    experts = bench.experts()
    first, again = (served(bench, run(bench, slug)) for _ in range(2))
    assert_same(again, first, 0)
    for name, value in bench.base_weights().items():
        assert torch.equal(value, base[name]) and not value.requires_grad, name
    assert all(torch.equal(fresh(bench).experts().tasks[t].hits, row.hits) for t, row in experts.tasks.items())


@every_method
def test_it_reaches_the_bench(bench: Bench, slug: str) -> None:
    merged = run(bench, slug)
    found = bench.evaluate(merged.model(bench, methods()[slug].usual_scale), slug)
    for name, features in served(bench, merged).items():
        hits = (features @ bench.tasks[name].head.T).argmax(dim=1) == bench.tasks[name].splits["test"].labels
        assert (found.tasks[name].hits == hits).double().mean() >= 0.95  # other batches round a close call otherwise
