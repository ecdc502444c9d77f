"""What tasks add to a merged model at inference: edits inside the encoder, repairs of its embeddings, own weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dcmerge import InputError, merge
from dcmerge.evaluation import Bench, ImageEncoder, Model, TaskModule
from dcmerge.merging.merge import own_delta
from tests.builders import TOWER, tiny_bench

BLOCK = "transformer.resblocks.1"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def images(bench: Bench) -> Tensor:
    return bench.tasks["task0"].splits["test"].images


@pytest.mark.parametrize("name", [BLOCK, f"{BLOCK}.mlp", f"{BLOCK}.attn", "ln_post", "conv1"])
def test_an_edit_that_changes_nothing_changes_nothing(bench: Bench, images: Tensor, name: str) -> None:
    weights, seen = bench.base_weights(), []
    found = bench.encoder.encode(weights, images, edits={name: lambda output: seen.append(1) or output})
    assert seen and torch.equal(found, bench.encoder.encode(weights, images))


def test_an_edit_that_silences_a_submodule_is_that_submodule_without_weights(bench: Bench, images: Tensor) -> None:
    weights = bench.base_weights()
    silent = {n: torch.zeros_like(v) if f"{BLOCK}.mlp.c_proj" in n else v for n, v in weights.items()}
    found = bench.encoder.encode(weights, images, edits={f"{BLOCK}.mlp": torch.zeros_like})
    torch.testing.assert_close(found, bench.encoder.encode(silent, images))
    assert not torch.allclose(found, bench.encoder.encode(weights, images), atol=1e-3)


def test_several_edits_act_together(bench: Bench, images: Tensor) -> None:
    weights = bench.base_weights()
    silent = {n: torch.zeros_like(v) if "mlp.c_proj" in n else v for n, v in weights.items()}
    edits = {f"transformer.resblocks.{place}.mlp": torch.zeros_like for place in (0, 1)}
    found = bench.encoder.encode(weights, images, edits=edits)
    torch.testing.assert_close(found, bench.encoder.encode(silent, images))


def test_edits_are_gone_afterwards_even_after_a_failure(bench: Bench, images: Tensor) -> None:
    weights = bench.base_weights()
    before = bench.encoder.encode(weights, images)
    bench.encoder.encode(weights, images, edits={BLOCK: lambda output: output + 1})
    assert torch.equal(bench.encoder.encode(weights, images), before)
    with pytest.raises(ZeroDivisionError):
        bench.encoder.encode(weights, images, edits={BLOCK: lambda output: 1 / 0})
    assert torch.equal(bench.encoder.encode(weights, images), before)


def test_a_repair_comes_before_the_length_is_made_one(bench: Bench, images: Tensor) -> None:
    weights, shift = bench.base_weights(), torch.arange(8.0)
    found = bench.encoder.encode(weights, images, repair=lambda z: z + shift)
    with torch.inference_mode():
        raw = bench.encoder.forward(weights, images)
    torch.testing.assert_close(found, torch.nn.functional.normalize(raw + shift, dim=-1))
    doubled = bench.encoder.encode(weights, images, repair=lambda z: 2 * z)
    torch.testing.assert_close(doubled, bench.encoder.encode(weights, images))


def test_gradients_reach_weights_and_edits(bench: Bench, images: Tensor) -> None:
    weights = {name: value.clone().requires_grad_() for name, value in bench.base_weights().items()}
    shift = torch.zeros(16, requires_grad=True)
    bench.encoder.forward(weights, images[:2], {f"{BLOCK}.mlp": lambda output: output + shift}).square().sum().backward()
    assert shift.grad.any()
    assert {name for name, value in weights.items() if value.grad is None or not value.grad.any()} == set()
    assert not any(parameter.requires_grad for parameter in bench.encoder.visual.parameters())


def test_every_task_is_served_by_its_own_module(bench: Bench) -> None:
    modules = {"task0": TaskModule(repair=torch.neg), "task1": TaskModule(edits={f"{BLOCK}.mlp": torch.neg})}
    found = bench.evaluate(Model(bench.base_weights(), modules, bench.expert_weights), "served")
    for name, task in bench.tasks.items():
        part, module, weights = task.splits["test"], modules[name], bench.expert_weights(name)
        features = bench.encoder.encode(weights, part.images, edits=module.edits, repair=module.repair)
        assert torch.equal(found.tasks[name].hits, (features @ task.head.T).argmax(dim=1) == part.labels)
        assert found.tasks[name].accuracy < bench.experts().tasks[name].accuracy == 1


def test_a_model_of_weights_is_evaluated_like_the_weights(bench: Bench) -> None:
    merged = merge(bench.vectors, "average")
    model = merged.model(bench, 1.0)
    found, wanted = bench.evaluate(model, "m"), bench.evaluate(bench.merged_weights(merged.deltas, 1.0), "m")
    assert model.is_one and all(torch.equal(found.tasks[t].hits, wanted.tasks[t].hits) for t in bench.tasks)


def test_tasks_with_deltas_of_their_own_have_weights_of_their_own(bench: Bench) -> None:
    merged = merge(bench.vectors, "average").deltas
    modules = {t: TaskModule(delta=lambda name, delta, f=f: f * delta) for t, f in (("task0", 0.0), ("task1", 2.0))}
    model = bench.model(merged, 0.5, modules)
    assert not model.is_one
    for name, value in bench.base_weights().items():
        assert torch.equal(model.weights_for("task0")[name], value)
        torch.testing.assert_close(model.weights_for("task1")[name], value + merged[name])
        torch.testing.assert_close(model.weights[name], value + 0.5 * merged[name])


def test_any_part_of_a_module_may_be_missing(bench: Bench) -> None:
    merged = merge(bench.vectors, "average").deltas
    modules = {"task0": TaskModule(delta=lambda name, delta: 2 * delta), "task1": TaskModule()}
    model = bench.model(merged, 0.5, modules)
    for name, value in bench.base_weights().items():
        torch.testing.assert_close(model.weights_for("task0")[name], value + merged[name])
        torch.testing.assert_close(model.weights_for("task1")[name], value + 0.5 * merged[name])
        assert torch.equal(own_delta("mixed", modules, "task1")(name, merged[name]), merged[name])


@pytest.mark.parametrize("modules", [{}, {"task0": TaskModule(repair=torch.neg), "task1": TaskModule(repair=torch.neg)}])
def test_a_model_may_bring_an_encoder_of_its_own(bench: Bench, modules: dict[str, TaskModule]) -> None:
    """Here the same tower with pixels of another scale."""
    other = ImageEncoder({**TOWER, "preprocess": {"mean": [0.0, 0.0, 0.0], "std": [0.1, 0.1, 0.1]}})
    weights = bench.expert_weights("task0")
    found = bench.evaluate(Model(weights, modules, encoder=other), "own")
    wanted = Bench(other, bench.tasks, bench.vectors).evaluate(Model(weights, modules), "own", normalise=False)
    assert all(torch.equal(found.tasks[task].hits, wanted.tasks[task].hits) for task in bench.tasks)
    usual = bench.evaluate(Model(weights, modules), "usual")
    assert any(not torch.equal(found.tasks[task].hits, usual.tasks[task].hits) for task in bench.tasks)


@pytest.mark.parametrize("module", [TaskModule(edits={BLOCK: torch.zeros_like}), TaskModule(repair=torch.zeros_like)])
def test_parts_that_are_no_weights_are_not_saved(module: TaskModule) -> None:
    with pytest.raises(InputError, match="surgery adds parts to the encoder, which a file of weights cannot hold"):
        own_delta("surgery", {"task0": module}, "task0")
