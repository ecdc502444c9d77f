"""Canonical names: wrappers' prefixes go where every weight carries them, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcmerge.checkpoints.names import PREFIXES, align, canonical_names, common_prefix
from dcmerge.errors import InputError

WORDS = st.sampled_from(["visual", "proj", "weight", "layers", "0", "attn", "head"])
NAMES = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=8, unique=True)
CHAINS = st.lists(st.sampled_from(PREFIXES), max_size=4).map("".join)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["visual.proj", "visual.conv1.weight"], ""),
        (["model.visual.proj", "model.ln.weight"], "model."),
        (["module.model.visual.proj", "module.model.ln.weight"], "module.model."),
        (["base_model.model.model.layers.0.w"], "base_model.model.model."),
        (["_orig_mod.module.w"], "_orig_mod.module."),
        (["model.layers.0.w", "lm_head.weight"], ""),
        (["model.", "model.w"], ""),
        ([], ""),
    ],
)
def test_prefixes_by_hand(names, prefix):
    assert common_prefix(names) == prefix


@given(NAMES, CHAINS)
def test_wrapping_changes_no_canonical_name(names, chain):
    wrapped = [chain + name for name in names]
    assert canonical_names(dict.fromkeys(wrapped, True), Path("p")) == dict(zip(names, wrapped, strict=True))


def test_integer_buffers_do_not_decide():
    floating = {"model.a": True, "model.position_ids": False, "step": False}
    names = canonical_names(floating, Path("p"))
    assert names == {"a": "model.a", "position_ids": "model.position_ids", "step": "step"}


def test_a_collision_is_refused():
    with pytest.raises(InputError, match="model.a and a of p have the same name"):
        canonical_names({"model.a": True, "a": False}, Path("p"))


@pytest.mark.parametrize(
    ("names", "base", "expected"),
    [
        (["a.w", "b.w"], ["a.w", "b.w", "c.w"], ["a.w", "b.w"]),
        (
            ["layers.0.w", "layers.1.w"],
            ["model.layers.0.w", "model.layers.1.w"],
            ["model.layers.0.w", "model.layers.1.w"],
        ),
        (["encoder.w"], ["vision_model.encoder.w", "text_model.b"], ["vision_model.encoder.w"]),
        (["vision_model.encoder.w"], ["encoder.w"], ["encoder.w"]),
        # Two towers fit equally well: nothing is guessed.
        (["encoder.w"], ["vision_model.encoder.w", "text_model.encoder.w"], ["encoder.w"]),
        (["layers.0.w", "head.w"], ["model.layers.0.w", "model.layers.1.w"], ["model.layers.0.w", "head.w"]),
        ([], ["a"], []),
    ],
)
def test_align_by_hand(names, base, expected):
    shapes, base_shapes = dict.fromkeys(names, (2, 2)), dict.fromkeys(base, (2, 2))
    assert align(shapes, base_shapes) == dict(zip(names, expected, strict=True))


def test_shapes_tell_one_tower_from_the_other():
    base = {"text_model.encoder.w": (2, 2), "vision_model.encoder.w": (3, 3), "text_model.b": (2,)}
    assert align({"encoder.w": (3, 3)}, base) == {"encoder.w": "vision_model.encoder.w"}
    assert align({"encoder.w": (2, 2)}, base) == {"encoder.w": "text_model.encoder.w"}
    assert align({"encoder.w": (4, 4)}, base) == {"encoder.w": "encoder.w"}


def test_the_same_name_with_another_shape_stays():
    # It is the compatibility report that tells of shapes; a name must not wander off because of one.
    assert align({"a.w": (2, 2), "b.w": (9,)}, {"a.w": (2, 2), "b.w": (3,), "c.b.w": (9,)}) == {
        "a.w": "a.w",
        "b.w": "b.w",
    }


@given(NAMES)
def test_align_leaves_equal_names_alone(names):
    shapes = dict.fromkeys(names, (2, 2))
    assert align(shapes, shapes) == {name: name for name in names}


COUNT = 20_000
ALIKE = {
    "one end": ("w", "p{}.w"),
    "all end alike": ("q{}.w", "p{}.w"),
    "all end alike, with a block's number": ("q{}.0.w", "p{}.0.w"),
    "many parts": ("a." * 400 + "q{}", "b." * 400 + "q{}"),
}


@pytest.mark.parametrize(("expert", "base"), ALIKE.values(), ids=ALIKE)
def test_names_that_all_end_alike_are_not_compared_with_each_other(expert, base):
    """Each with each would be half an hour: the test would not end."""
    count = COUNT if "a.a." not in expert else 500
    shapes, base_shapes = ({one.format(i): (1,) for i in range(count)} for one in (expert, base))
    assert set(align(shapes, base_shapes)) == set(shapes)


def test_a_prefix_of_many_names_is_found():
    shapes = {f"layers.{i}.w": (2, 3) for i in range(COUNT)}
    assert align(shapes, {f"model.{name}": shape for name, shape in shapes.items()})["layers.7.w"] == "model.layers.7.w"


def test_old_names_of_long_names_are_found_in_one_pass():
    long = "norm" * 240
    floating = {f"{long}.gamma": True, f"{long}.betas": True, "gamma": True, "conv.weight_g": True}
    assert list(canonical_names(floating, Path("x"))) == [
        f"{long}.weight",
        f"{long}.betas",
        "gamma",
        "conv.parametrizations.weight.original0",
    ]
