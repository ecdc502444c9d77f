"""What layers see, against a plain tower in float64 with hooks of its own, and which images a method may look at."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dcmerge import Cancelled, InputError
from dcmerge.evaluation import Bench, Split
from dcmerge.evaluation.calibration import Calibration, LayerInputs, layer_inputs
from dcmerge.methods.from_images import as_linear
from tests.builders import SPLITS, relative_error, tiny_bench

BLOCKS = [f"transformer.resblocks.{place}" for place in (0, 1)]
TOKENS = 5  # the class token and 2 x 2 patches


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def found(bench: Bench) -> LayerInputs:
    return layer_inputs(bench.encoder, bench.expert_weights("task0"), bench.tasks["task0"].splits["val"].images)


@pytest.fixture(scope="module")
def tower(bench: Bench) -> nn.Module:
    """The first expert as a module of its own, in float64."""
    tower = deepcopy(bench.encoder.visual).double()
    tower.load_state_dict({n.removeprefix("visual."): value for n, value in bench.expert_weights("task0").items()})
    return tower


@pytest.fixture(scope="module")
def pixels(bench: Bench) -> Tensor:
    return bench.encoder.pixels(bench.tasks["task0"].splits["val"].images).double()


def passed(tower: nn.Module, pixels: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The first input and the output of one submodule, (N, L, d)."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = tower.get_submodule(name).register_forward_hook(
        lambda module, given, output: seen.append((given[0], output[0] if isinstance(output, tuple) else output))
    )
    tower(pixels)
    hook.remove()
    return seen[0]


def in_batches_of(size: int, bench: Bench) -> Bench:
    return Bench(replace(bench.encoder, batch_size=size), bench.tasks, bench.vectors)


def assert_gram(found: LayerInputs, name: str, x: Tensor) -> None:
    """Whether Σ x xᵀ of these inputs is what was found."""
    rows = x.reshape(-1, x.shape[-1])
    assert found.grams[name].dtype == torch.float64 and found.tokens[name] == len(rows)
    assert relative_error(found.grams[name], rows.T @ rows) < 1e-5, name


# What layers see


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("linear", ["mlp.c_fc", "mlp.c_proj"])
def test_a_linear_layer_sees_its_input(found: LayerInputs, tower: nn.Module, pixels: Tensor, block: str, linear: str) -> None:
    x = passed(tower, pixels, f"{block}.{linear}")[0]
    assert x.shape[:2] == (SPLITS["val"], TOKENS)
    assert_gram(found, f"visual.{block}.{linear}.weight", x)


@pytest.mark.parametrize("block", BLOCKS)
def test_query_key_and_value_see_the_first_norms_output(found: LayerInputs, tower: nn.Module, pixels: Tensor, block: str) -> None:
    assert_gram(found, f"visual.{block}.attn.in_proj_weight", passed(tower, pixels, f"{block}.ln_1")[1])


@pytest.mark.parametrize("block", BLOCKS)
def test_the_projection_of_attention_sees_the_mixed_values(
    found: LayerInputs, tower: nn.Module, pixels: Tensor, block: str
) -> None:
    """softmax(Q Kᵀ / √d) V head by head; the projection of it is what nn.MultiheadAttention returns."""
    attention = tower.get_submodule(f"{block}.attn")
    x, output = passed(tower, pixels, f"{block}.ln_1")[1], passed(tower, pixels, f"{block}.attn")[1]
    Q, K, V = (x @ attention.in_proj_weight.T + attention.in_proj_bias).split(16, dim=-1)
    heads = []
    for own in (slice(0, 8), slice(8, 16)):
        shares = (Q[..., own] @ K[..., own].transpose(1, 2) / math.sqrt(8)).softmax(dim=-1)
        heads.append(shares @ V[..., own])
    mixed = torch.cat(heads, dim=-1)
    torch.testing.assert_close(mixed @ attention.out_proj.weight.T + attention.out_proj.bias, output)
    assert_gram(found, f"visual.{block}.attn.out_proj.weight", mixed)


def test_the_patch_embedding_is_a_linear_layer_of_pixels(found: LayerInputs, tower: nn.Module, pixels: Tensor) -> None:
    corners = [(row, column) for row in (0, 8) for column in (0, 8)]
    patches = torch.stack([pixels[:, :, r : r + 8, c : c + 8].flatten(1) for r, c in corners], dim=1)
    W = as_linear("visual.conv1.weight", tower.conv1.weight)
    torch.testing.assert_close(patches @ W.T, tower.conv1(pixels).flatten(2).transpose(1, 2))
    assert_gram(found, "visual.conv1.weight", patches)


def test_the_final_projection_sees_one_embedding_an_image(found: LayerInputs, tower: nn.Module, pixels: Tensor) -> None:
    bare = deepcopy(tower)
    bare.proj = None
    x = bare(pixels)
    torch.testing.assert_close(x @ as_linear("visual.proj", tower.proj).T, tower(pixels))
    assert len(x) == SPLITS["val"]
    assert_gram(found, "visual.proj", x)


@pytest.mark.parametrize("norm", ["ln_pre", f"{BLOCKS[0]}.ln_1", f"{BLOCKS[1]}.ln_2", "ln_post"])
def test_a_norm_sees_its_input_with_mean_0_and_variance_1(
    found: LayerInputs, tower: nn.Module, pixels: Tensor, norm: str
) -> None:
    (x, output), module = passed(tower, pixels, norm), tower.get_submodule(norm)
    normal = (x - x.mean(dim=-1, keepdim=True)) / (x.var(dim=-1, keepdim=True, correction=0) + module.eps).sqrt()
    torch.testing.assert_close(normal * module.weight + module.bias, output)
    rows, name = normal.reshape(-1, 16), f"visual.{norm}.weight"
    assert relative_error(found.squares[name], rows.square().sum(dim=0)) < 1e-5
    assert found.tokens[name] == len(rows) and found.squares[name].dtype == torch.float64


def test_every_matrix_and_every_norm_of_the_tower_is_seen(found: LayerInputs) -> None:
    linear = ["attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"]
    wanted = {f"visual.{block}.{name}" for block in BLOCKS for name in linear}
    assert set(found.grams) == wanted | {"visual.conv1.weight", "visual.proj"}
    norms = [f"{block}.{name}" for block in BLOCKS for name in ("ln_1", "ln_2")]
    assert set(found.squares) == {f"visual.{norm}.weight" for norm in ["ln_pre", "ln_post", *norms]}


@pytest.mark.parametrize("size", [1, 4])
def test_small_batches_give_the_same_sums(bench: Bench, found: LayerInputs, size: int) -> None:
    images, weights = bench.tasks["task0"].splits["val"].images, bench.expert_weights("task0")
    small = layer_inputs(replace(bench.encoder, batch_size=size), weights, images)
    assert small.tokens == found.tokens
    for kind in ("grams", "squares"):
        for name, value in getattr(found, kind).items():
            assert relative_error(getattr(small, kind)[name], value) < 1e-6, name


def test_nothing_is_watched_afterwards(bench: Bench) -> None:
    images, weights = bench.tasks["task0"].splits["val"].images, bench.expert_weights("task0")
    found = layer_inputs(bench.encoder, weights, images)
    tokens, features = dict(found.tokens), bench.encoder.encode(weights, images)
    assert found.tokens == tokens
    layer_inputs(bench.encoder, bench.base_weights(), images)
    assert found.tokens == tokens and torch.equal(bench.encoder.encode(weights, images), features)


# Which images


def places(images: Tensor, among: Tensor) -> list[int]:
    """Where each image stands among others."""
    same = (images[:, None] == among[None]).flatten(2).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1).tolist()


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_come_from_the_split_that_was_asked_for(bench: Bench, split: str) -> None:
    images = Calibration(bench).images("task1", 9, split)
    assert len(set(places(images, bench.tasks["task1"].splits[split].images))) == 9


def test_images_follow_their_seed(bench: Bench) -> None:
    first, again, other = (Calibration(bench).images("task0", 6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_more_images_than_there_are_is_all_of_them(bench: Bench) -> None:
    images = Calibration(bench).images("task0", 100)
    assert sorted(places(images, bench.tasks["task0"].splits["val"].images)) == list(range(SPLITS["val"]))


def test_labels_do_not_decide_which_images_are_drawn(bench: Bench) -> None:
    task = bench.tasks["task0"]
    shuffled = {name: Split(part.images, part.labels.flip(0) * 0) for name, part in task.splits.items()}
    other = Bench(bench.encoder, {**bench.tasks, "task0": replace(task, splits=shuffled)}, bench.vectors)
    assert torch.equal(Calibration(other).images("task0", 6), Calibration(bench).images("task0", 6))


def test_unknown_tasks_and_splits_are_refused(bench: Bench) -> None:
    with pytest.raises(InputError, match="expected images of the task cars, got images of task0, task1"):
        Calibration(bench).images("cars", 3)
    with pytest.raises(InputError, match="split: expected one of val, test, got 'train'"):
        Calibration(bench).images("task0", 3, "train")


@pytest.mark.parametrize("size", [4, 15, 20])
def test_batches_go_round_in_new_orders_with_every_image_once_a_round(bench: Bench, size: int) -> None:
    count, rounds = SPLITS["val"], 4
    stream = Calibration(bench).batches(size)
    drawn = [next(stream) for _ in range(rounds * count // math.gcd(size, count))]
    for task in bench.tasks:
        assert all(len(batch[task]) == size for batch in drawn)
        order = places(torch.cat([batch[task] for batch in drawn]), bench.tasks[task].splits["val"].images)
        turns = [order[start : start + count] for start in range(0, rounds * count, count)]
        assert all(sorted(turn) == list(range(count)) for turn in turns)
        assert len({tuple(turn) for turn in turns}) == rounds


def test_batches_follow_their_seed_and_differ_between_tasks(bench: Bench) -> None:
    first, again, other = (next(Calibration(bench).batches(6, "test", seed)) for seed in (0, 0, 1))
    images = {task: bench.tasks[task].splits["test"].images for task in bench.tasks}
    assert all(torch.equal(first[task], again[task]) and not torch.equal(first[task], other[task]) for task in images)
    assert places(first["task0"], images["task0"]) != places(first["task1"], images["task1"])


# Inputs of whole models, remembered and stopped


def test_experts_see_their_own_images_with_their_own_weights(bench: Bench) -> None:
    calibration = Calibration(bench)
    found = calibration.inputs_of_experts(6, "test", seed=3)
    for task in bench.tasks:
        images = calibration.images(task, 6, "test", seed=3)
        wanted = layer_inputs(bench.encoder, bench.expert_weights(task), images)
        assert all(torch.equal(found[task].grams[name], G) for name, G in wanted.grams.items())


def test_a_whole_step_is_the_expert_and_none_is_the_base(bench: Bench) -> None:
    calibration, name = Calibration(bench), f"visual.{BLOCKS[1]}.mlp.c_fc.weight"
    experts, whole, none = (
        calibration.inputs_of_experts(6),
        calibration.inputs_of_steps(1.0, 6),
        calibration.inputs_of_steps(0.0, 6),
    )
    for task in bench.tasks:
        base = layer_inputs(bench.encoder, bench.base_weights(), calibration.images(task, 6))
        assert torch.equal(whole[task].grams[name], experts[task].grams[name])
        assert relative_error(none[task].grams[name], base.grams[name]) < 1e-6
        assert relative_error(none[task].grams[name], whole[task].grams[name]) > 1e-2


def test_embeddings_are_those_before_their_length_is_made_one(bench: Bench) -> None:
    """In parts of the encoder's batch size, without gradients, in the order of the images."""
    images, weights = bench.tasks["task0"].splits["test"].images, bench.expert_weights("task1")
    found = Calibration(in_batches_of(7, bench)).embeddings(weights, "task0", "test")
    torch.testing.assert_close(found, bench.encoder.forward(weights, images))
    torch.testing.assert_close(nn.functional.normalize(found, dim=-1), bench.encoder.encode(weights, images))
    assert not found.requires_grad and found.norm(dim=-1).std() > 1e-2


def test_a_teacher_is_the_expert_on_its_own_images_and_remembered(bench: Bench) -> None:
    for task in bench.tasks:
        found = Calibration(bench).embeddings_of_expert(task, "val")
        assert found is Calibration(bench).embeddings_of_expert(task, "val")
        assert torch.equal(found, Calibration(bench).embeddings(bench.expert_weights(task), task, "val"))
        assert len(Calibration(bench).embeddings_of_expert(task, "test")) == SPLITS["test"]


def test_embedding_stops_between_two_batches(bench: Bench) -> None:
    asked: list[int] = []
    small = in_batches_of(7, bench)
    with pytest.raises(Cancelled):
        Calibration(small, cancelled=lambda: asked.append(0) or len(asked) > 1).embeddings(bench.base_weights(), "task0")
    assert len(asked) == 2


def test_picks_are_the_places_of_a_batchs_images(bench: Bench) -> None:
    picks, batch = next(Calibration(bench).picks(6, "test", 3)), next(Calibration(bench).batches(6, "test", 3))
    for task, own in bench.tasks.items():
        assert torch.equal(own.splits["test"].images[picks[task]], batch[task])


def test_a_batch_larger_than_the_split_takes_every_image_before_any_twice(bench: Bench) -> None:
    for pick in next(Calibration(bench).picks(2 * SPLITS["val"])).values():
        assert sorted(pick.tolist()) == sorted([*range(SPLITS["val"])] * 2)


def test_the_bench_remembers_what_layers_see(bench: Bench) -> None:
    first, again = (Calibration(bench).inputs_of_experts(5) for _ in range(2))
    assert all(first[task] is again[task] for task in bench.tasks)
    for other in (
        Calibration(bench).inputs_of_experts(4),
        Calibration(bench).inputs_of_experts(5, "test"),
        Calibration(bench).inputs_of_experts(5, seed=1),
        Calibration(bench).inputs_of_steps(0.5, 5),
    ):
        assert not any(torch.equal(first[t].grams["visual.proj"], other[t].grams["visual.proj"]) for t in bench.tasks)


def test_progress_names_each_task_and_cancelling_raises_cancelled(bench: Bench) -> None:
    told: list[tuple[float, str]] = []
    fresh = Bench(bench.encoder, bench.tasks, bench.vectors)
    with pytest.raises(Cancelled):
        Calibration(fresh, lambda *step: told.append(step), lambda: len(told) >= 1).inputs_of_experts(5)
    assert told == [(0.0, "layer inputs of task0")]
    Calibration(fresh, lambda *step: told.append(step)).inputs_of_experts(5)
    assert told[1:] == [(0.0, "layer inputs of task0"), (0.5, "layer inputs of task1")]
