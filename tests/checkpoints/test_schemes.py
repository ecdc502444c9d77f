"""The same CLIP under open_clip's and Hugging Face's names, checked by the libraries' own forward passes."""

from __future__ import annotations

import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from dcmerge.checkpoints.schemes import hugging_face_weights, open_clip_weights, stored_qkv
from dcmerge.errors import InputError

SIZES = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": 16, "patch_size": 8, "projection_dim": 8}
TEXT = {**SIZES, "vocab_size": 20, "max_position_embeddings": 6, "eos_token_id": 19, "projection_dim": 8}
TOWERS = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2},
}
ACTIVATIONS = ("quick_gelu", "gelu")


def open_clip_model(activation: str) -> open_clip.CLIP:
    torch.manual_seed(1)
    return shaken(open_clip.CLIP(**TOWERS, quick_gelu=activation == "quick_gelu"))


def hugging_face_model(activation: str) -> CLIPModel:
    torch.manual_seed(2)
    config = CLIPConfig(
        text_config={**TEXT, "hidden_act": activation}, vision_config={**VISION, "hidden_act": activation}, projection_dim=8
    )
    return shaken(CLIPModel(config))


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """No parameter at the zeros and ones it starts with, which would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def words() -> torch.Tensor:
    """Both libraries read the sentence at its last token, the largest number."""
    return torch.tensor([[18, 3, 4, 19, 0, 0], [18, 7, 19, 0, 0, 0], [18, 1, 2, 3, 4, 19]])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_open_clip_runs_hugging_faces_whole_clip(activation: str) -> None:
    theirs, ours = hugging_face_model(activation), open_clip_model(activation)
    ours.load_state_dict(open_clip_weights(theirs.state_dict()))
    with torch.no_grad():
        wanted = theirs(input_ids=words(), pixel_values=pictures()).logits_per_image
        image, text = ours.encode_image(pictures(), normalize=True), ours.encode_text(words(), normalize=True)
        torch.testing.assert_close(ours.logit_scale.exp() * image @ text.T, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hugging_face_runs_open_clips_whole_clip(activation: str) -> None:
    theirs, ours = open_clip_model(activation), hugging_face_model(activation)
    ours.load_state_dict(hugging_face_weights(theirs.state_dict()))
    with torch.no_grad():
        image, text = theirs.encode_image(pictures(), normalize=True), theirs.encode_text(words(), normalize=True)
        found = ours(input_ids=words(), pixel_values=pictures()).logits_per_image
        torch.testing.assert_close(found, theirs.logit_scale.exp() * image @ text.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_vision_tower_alone_both_directions(activation: str) -> None:
    tower = shaken(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, hidden_act=activation)))
    visual = open_clip_model(activation).visual
    visual.load_state_dict({n.removeprefix("visual."): v for n, v in open_clip_weights(tower.state_dict()).items()})
    twin = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, hidden_act=activation)).eval()
    twin.load_state_dict(hugging_face_weights({f"visual.{n}": v for n, v in visual.state_dict().items()}))
    with torch.no_grad():
        wanted = tower(pictures()).image_embeds
        torch.testing.assert_close(visual(pictures()), wanted, atol=1e-5, rtol=1e-5)
        assert torch.equal(twin(pictures()).image_embeds, wanted)


def test_tower_without_projection_and_without_its_name() -> None:
    tower = CLIPVisionModel(CLIPVisionConfig(**VISION))
    bare = {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
    named = {f"vision_model.{name}": value for name, value in bare.items()}
    ours = {n for n in open_clip_model("gelu").state_dict() if n.startswith("visual.")}
    assert set(open_clip_weights(bare)) == set(open_clip_weights(named)) == ours - {"visual.proj"}


def test_open_clips_own_weights_stay_the_same_tensors() -> None:
    weights = open_clip_model("gelu").state_dict()
    found = open_clip_weights(weights)
    assert list(found) == list(weights)
    assert all(found[name] is value for name, value in weights.items())


def test_there_and_back_is_exact() -> None:
    weights = open_clip_model("gelu").state_dict()
    split = hugging_face_weights(weights)
    assert stored_qkv(weights) == "fused"
    assert stored_qkv(split) == "split"
    assert stored_qkv({**weights, **split}) == "mixed"
    assert stored_qkv(["mlp.weight"]) == "none"
    back = open_clip_weights(split)
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], value) for name, value in weights.items())


def test_gradients_pass() -> None:
    weights = {name: value.clone().requires_grad_() for name, value in hugging_face_model("gelu").state_dict().items()}
    sum(value.square().sum() for value in open_clip_weights(weights).values()).backward()
    assert all(torch.allclose(value.grad, 2 * value) for value in weights.values())


def test_position_ids_are_no_weight() -> None:
    weights = hugging_face_model("gelu").state_dict()
    assert "vision_model.embeddings.position_ids" not in open_clip_weights(
        {**weights, "vision_model.embeddings.position_ids": torch.arange(5)}
    )


def test_a_classifier_stays() -> None:
    assert set(open_clip_weights({"classifier.weight": torch.ones(2, 2)})) == {"classifier.weight"}


def test_one_of_three_missing_is_named() -> None:
    weights = hugging_face_model("gelu").state_dict()
    del weights["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(InputError, match=r"got no visual\.transformer\.resblocks\.1\.attn\.k_proj\.bias"):
        open_clip_weights(weights)


@pytest.mark.parametrize(
    ("convert", "name"),
    [
        (open_clip_weights, "vision_model.head.probe"),
        (open_clip_weights, "vision_model.encoder.layers.0.adapter.weight"),
        (hugging_face_weights, "visual.attnpool.positional_embedding"),
        (hugging_face_weights, "visual.transformer.resblocks.0.ls_1.gamma"),
    ],
)
def test_what_the_other_scheme_has_no_name_for_is_refused(convert, name: str) -> None:
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        convert({name: torch.ones(3)})


def test_uneven_fused_rows_are_refused() -> None:
    with pytest.raises(InputError, match="got 4 rows"):
        hugging_face_weights({"visual.transformer.resblocks.0.attn.in_proj_bias": torch.ones(4)})
