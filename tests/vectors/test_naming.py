"""Names of parameters as places in a model."""

from pathlib import Path

import pytest

from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.naming import Depth, Place, by_depth, depth_of, place_of, stacks_of
from tests.builders import full_set, lora_set, random_deltas, random_factors, random_tensors


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("visual.transformer.resblocks.3.attn.in_proj_weight", Place(3, "attention q, k, v")),
        ("visual.transformer.resblocks.11.mlp.c_fc.weight", Place(11, "MLP in")),
        ("visual.transformer.resblocks.0.mlp.c_proj.weight", Place(0, "MLP out")),
        ("vision_model.encoder.layers.5.self_attn.q_proj.weight", Place(5, "attention q")),
        ("vision_model.encoder.layers.5.self_attn.out_proj.weight", Place(5, "attention out")),
        ("model.layers.7.mlp.gate_proj.weight", Place(7, "MLP gate")),
        ("model.layers.7.self_attn.o_proj.weight", Place(7, "attention out")),
        ("visual.positional_embedding", Place(None, "positions")),
        ("visual.proj", Place(None, "projection")),
        ("token_embedding.weight", Place(None, "tokens")),
    ],
)
def test_common_names_are_understood(name: str, place: Place) -> None:
    assert place_of(name) == place


def test_an_unknown_name_is_its_own_kind() -> None:
    assert place_of("stem.odd_matrix") == Place(None, "stem.odd_matrix")
    assert place_of("trunk.2.odd.weight") == Place(2, "odd.weight")


def test_labels_are_words() -> None:
    assert place_of("visual.transformer.resblocks.3.mlp.c_fc.weight").label == "MLP in, block 3"
    assert place_of("visual.proj").label == "projection (outside the blocks)"


def test_order_is_that_of_computation() -> None:
    names = ["embedding", "blocks.10.mlp.c_fc.weight", "blocks.2.mlp.c_proj.weight", "blocks.2.mlp.c_fc.weight", "proj"]
    assert by_depth(names) == [names[0], names[2], names[3], names[1], names[4]]
    assert by_depth(["b", "a"]) == ["b", "a"]
    # A file sorted by name has all that is outside the blocks before them.
    sorted_names = ["visual.positional_embedding", "visual.proj", "visual.transformer.resblocks.0.mlp.c_fc.weight"]
    assert by_depth(sorted_names) == [sorted_names[0], sorted_names[2], sorted_names[1]]
    assert by_depth([]) == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("visual.transformer.resblocks.0.mlp.c_fc.weight", Depth(0, 12)),
        ("visual.transformer.resblocks.11.mlp.c_fc.weight", Depth(11, 12)),
        ("transformer.resblocks.2.mlp.c_fc.weight", Depth(2, 3)),
        ("model.layers.1.self_attn.q_proj.weight", Depth(1, 2)),
        ("h.4.attn.c_attn.weight", Depth(4, 5)),
        ("model.layers.0.mlp.experts.7.w1.weight", Depth(0, 2)),
        ("visual.proj", None),
    ],
)
def test_every_stack_counts_its_own_blocks(name: str, wanted: Depth | None) -> None:
    names = [
        *(f"visual.transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(12)),
        *(f"transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(3)),
        "model.layers.0.mlp.experts.7.w1.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "h.4.attn.c_attn.weight",
        "visual.proj",
    ]
    assert depth_of(name, stacks_of(names)) == wanted


def test_the_share_of_the_way_runs_from_0_to_1() -> None:
    assert [Depth(block, 5).share for block in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert Depth(0, 1).share == 0


def test_a_layer_tells_its_depth(tmp_path: Path) -> None:
    shapes = {f"layers.{i}.mlp.fc1.weight": (4, 3) for i in range(3)} | {"proj": (3, 3)}
    vectors = full_set(tmp_path / "full", random_deltas(2, shapes=shapes))
    assert [layer_of(vectors, name).depth for name in shapes] == [(0, 3), (1, 3), (2, 3), None]
    first = {"layers.0.mlp.fc1.weight": (4, 3)}
    adapters = {f"task{t}": random_factors(t, 1, first) for t in range(2)}
    alone, with_base = lora_set(tmp_path / "a", adapters), lora_set(tmp_path / "b", adapters, base=random_tensors(0, shapes))
    assert [layer_of(one, *first).depth for one in (alone, with_base)] == [(0, 1), (0, 3)], "the base knows all blocks"
