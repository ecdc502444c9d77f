"""The mixer: weights and profiles over depth as values, and what they do to task vectors; small cases worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dcmerge import InputError, Mix, TaskVectors, methods
from dcmerge.spectral.alignment import elected
from dcmerge.spectral.linalg import truncated_svds
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.mix import parsed_weights, profile, profile_text, value_at, weights_text
from dcmerge.vectors.naming import Depth
from tests.builders import full_set, lora_set, merged_dense, random_deltas, random_factors

BLOCKS = {f"visual.transformer.resblocks.{block}.mlp.c_fc.weight": (9, 7) for block in range(3)}
SHAPES = {"visual.positional_embedding": (8, 6), "visual.ln_post.weight": (6,), **BLOCKS}
SEPARABLE = [slug for slug, one in methods().items() if one.separable]


@pytest.fixture
def three(tmp_path: Path) -> TaskVectors:
    return full_set(tmp_path, random_deltas(3, shapes=SHAPES))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("constant", (1.0,)),
        ("constant:0.8", (0.8,)),
        ("linear:0.5:1.5", (0.5, 1.5)),
        ("linear:2:2", (2.0,)),
        ("blocks:0.2,1,-0.4", (0.2, 1.0, -0.4)),
        (" linear:0:1 ", (0.0, 1.0)),
        (0.5, (0.5,)),
        ([1, 2], (1.0, 2.0)),
    ],
)
def test_a_profile_is_read(text: Any, values: tuple[float, ...]) -> None:
    assert profile(text) == values
    assert profile(profile_text(values)) == values


@pytest.mark.parametrize(
    "bad",
    ["", "linear", "linear:1", "linear:1:2:3", "linear:a:b", "blocks:", "blocks:1,,2", "ramp:1:2", "linear:nan:1", "linear:inf:1"]
    + [[], [None], [True], [[1.0]], None, True, {"a": 1}, math.nan, "blocks:1e9,1"],
)
def test_a_bad_profile_is_refused_in_one_sentence(bad: Any) -> None:
    with pytest.raises(InputError, match="^depth: expected .*, got ") as error:
        profile(bad)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("cats=1.2,dogs=0.8", {"cats": 1.2, "dogs": 0.8}),
        (" cats = -1 , dogs=0", {"cats": -1.0, "dogs": 0.0}),
        ("a=b=1,c,d=2", {"a=b": 1.0, "c,d": 2.0}),
        ("cats=1e-3", {"cats": 0.001}),
    ],
)
def test_weights_are_read(text: str, weights: dict[str, float]) -> None:
    assert parsed_weights(text) == weights
    assert parsed_weights(weights_text(weights)) == weights


@pytest.mark.parametrize("bad", ["", " ", "cats", "cats=", "cats=x", "cats=nan", "cats=inf", "=1", "cats=1,,dogs=2", "cats=1 2"])
def test_bad_weights_are_refused_in_one_sentence(bad: str) -> None:
    with pytest.raises(InputError, match="expected .*, got ") as error:
        parsed_weights(bad)
    assert len(str(error.value).splitlines()) == 1


def test_an_expert_named_twice_is_refused() -> None:
    with pytest.raises(InputError, match="every expert once, got cats twice"):
        parsed_weights("cats=1,cats=2")


def test_a_profile_runs_from_the_first_block_to_the_last() -> None:
    linear, free = (0.5, 1.5), (0.2, 0.8, 0.4)
    assert [value_at(linear, Depth(block, 5)) for block in range(5)] == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert [value_at(free, Depth(block, 3)) for block in range(3)] == pytest.approx(list(free), abs=1e-15)
    assert [value_at(free, Depth(block, 5)) for block in range(5)] == pytest.approx([0.2, 0.5, 0.8, 0.6, 0.4])
    assert value_at(linear, None) == 0.5, "outside the blocks it is the first value, as in LiNeS and mergekit"
    assert value_at(linear, Depth(0, 1)) == 1.5, "a single block has the last value, as in mergekit"


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ({"weights": {"lions": 1}}, "weights: expected experts of task0, task1, task2, got lions"),
        ({"depths": {"lions": "constant"}}, "depth: expected experts of task0, .* got lions"),
        ({"weights": {"task0": math.nan}}, "weight of task0: expected a number"),
        ({"weights": {"task0": "1"}}, "weight of task0: expected a number"),
        ({"weights": {"task0": None}}, "weight of task0: expected a number"),
        ({"weights": {"task0": 1001}}, r"weight of task0: expected a number in \[-1000, 1000\], got 1001"),
        ({"weights": ["task0"]}, "weights: expected experts with values"),
        ({"depths": "linear:0:1"}, "depths: expected experts with values"),
        ({"depths": {"task0": "steep"}}, "depth of task0: expected constant"),
    ],
)
def test_a_bad_mix_is_refused(three: TaskVectors, mix: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        three.mixed(**mix)


def test_a_profile_needs_blocks(tmp_path: Path) -> None:
    flat = full_set(tmp_path, random_deltas(2, shapes={"stem.weight": (4, 3)}))
    with pytest.raises(InputError, match="depth: expected a model with numbered blocks"):
        flat.mixed(depth="linear:0:1")
    assert flat.mixed(depth="constant:0.5").mix.depth == (0.5,)


def test_data_and_back() -> None:
    mix = Mix.of({"cats": 1.2}, {"dogs": "linear:0:1"}, "blocks:1,2,3")
    assert Mix.from_data(mix.to_data()) == mix and hash(mix.key)
    assert mix.text == "weights cats 1.2; dogs over depth linear:0:1; α over depth blocks:1,2,3"
    assert not Mix.of({"cats": 1.0}, {"dogs": "constant"}) and Mix().to_data() == {} and mix
    with pytest.raises(InputError, match="mix: expected weights, depths, depth"):
        Mix.from_data({"weight": 1})


def test_deltas_are_scaled_by_weight_and_profile(three: TaskVectors) -> None:
    mixed = three.mixed(weights={"task0": 1.5}, depths={"task1": "linear:0:2"})
    for block, name in enumerate(BLOCKS):
        before, after = three.deltas(name), mixed.deltas(name)
        for old, new, factor in zip(before, after, (1.5, float(block), 1.0), strict=True):
            torch.testing.assert_close(new, old * factor)
    assert torch.equal(mixed.delta("visual.ln_post.weight", "task1"), torch.zeros(6)), "outside the blocks: the first value"
    assert mixed.mixed() is three and mixed.mixed(weights={"task0": 2}).mix.weights == {"task0": 2.0}
    assert mixed.fingerprint != three.fingerprint


def test_adapters_stay_factors(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path, {f"task{t}": random_factors(t) for t in range(2)})
    name = next(iter(vectors.parameters))
    old, new = (one.delta(name, "task1") for one in (vectors, vectors.mixed(weights={"task1": 0.5})))
    torch.testing.assert_close(new.dense(), 0.5 * old.dense())
    assert new.rank == old.rank


@pytest.mark.parametrize("slug", ["average", "task_arithmetic", "ties", "dare", "tsv_m", "dc_merge"])
def test_weights_of_one_change_no_bit(three: TaskVectors, slug: str) -> None:
    neutral = three.mixed(weights=dict.fromkeys(three.tasks, 1.0), depth="linear:1:1")
    wanted, found = merged_dense(three, slug), merged_dense(neutral, slug)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("slug", SEPARABLE)
def test_a_weight_of_zero_leaves_the_expert_out(three: TaskVectors, slug: str) -> None:
    without, zero = three.select(["task0", "task2"]), three.mixed(weights={"task1": 0})
    wanted, found = merged_dense(without, slug), merged_dense(zero, slug)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7)


def test_a_mean_divides_by_the_sum_of_the_weights(three: TaskVectors) -> None:
    found = merged_dense(three.mixed(weights={"task0": 3, "task1": 0.5, "task2": -1}), "average")
    for name, value in found.items():
        a, b, c = (delta.double() for delta in three.deltas(name))
        torch.testing.assert_close(value.double(), (3 * a + 0.5 * b - c) / 2.5, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="weights whose sum is not 0"):
        merged_dense(three.mixed(weights={"task0": 1, "task1": -1, "task2": 0}), "average")


def test_alpha_over_depth_is_lines(three: TaskVectors) -> None:
    """LiNeS: λ of block l is α + β l / (L - 1), and α for everything outside the blocks."""
    alpha, beta = 0.25, 0.5
    found = merged_dense(three.mixed(depth=f"linear:{alpha}:{alpha + beta}"), "task_arithmetic")
    for name, value in found.items():
        block = list(BLOCKS).index(name) if name in BLOCKS else 0
        wanted = (alpha + beta * block / 2) * torch.stack(three.deltas(name)).double().sum(dim=0)
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)


def test_the_disjoint_mean_is_weighted() -> None:
    """Entry 0: 2·1 and 1·4 agree, (2 + 4) / 3. Entry 1: 2·3 outvotes 1·(-5). Entry 2: an expert of weight 0 has no say."""
    weights = torch.tensor([2.0, 1.0, 0.0])
    D = torch.tensor([[1.0, 3.0, 0.0], [4.0, -5.0, 1.0], [9.0, 9.0, 9.0]]) * weights[:, None]
    assert torch.equal(elected(D, weights=weights), torch.tensor([2.0, 3.0, 1.0]))


@pytest.mark.parametrize("weights", [{"task0": 2.0}, {"task0": -1.5, "task1": 0.0}])
def test_factors_are_those_of_the_scaled_deltas(three: TaskVectors, weights: dict[str, float]) -> None:
    layer = layer_of(three.mixed(weights=weights), next(iter(BLOCKS)))
    for found, wanted in zip(layer.factors(2), truncated_svds(layer.deltas(), 2), strict=True):
        torch.testing.assert_close(found.dense(), wanted.dense(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.s, wanted.s, rtol=1e-4, atol=1e-5)
    for found, wanted in zip(layer.spectra(), layer.deltas(), strict=True):
        torch.testing.assert_close(found, torch.linalg.svdvals(wanted), rtol=1e-4, atol=1e-5)
    merged = merged_dense(layer.vectors, "dc_merge")
    assert all(value.isfinite().all() for value in merged.values())


def test_some_of_the_tasks_keep_their_weights(three: TaskVectors) -> None:
    some = three.mixed(weights={"task0": 2, "task1": 3}).select(["task1", "task2"])
    assert some.mix == Mix({"task1": 3.0}) and some.plain is not None and some.plain.tasks == ("task1", "task2")
