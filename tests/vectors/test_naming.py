"""Names of parameters as places in a model."""

import pytest

from dcmerge.vectors.naming import Place, by_depth, place_of


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
