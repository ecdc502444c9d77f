"""Sets that people really have, saved by transformers: merged, loaded again, and run beside a merge worked out in float64."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dcmerge
from dcmerge.checkpoints import dense

#: PEFT asks transformers by a name that it is about to lose.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

TOKENS = torch.arange(1, 7)[None]
PIXELS = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 16, "patch_size": 8}
BERT = tf.BertConfig(**SMALL, vocab_size=32, max_position_embeddings=20)
VIT = tf.ViTConfig(**VISION)
LLAMA = {**SMALL, "vocab_size": 32, "num_key_value_heads": 2}


def bert_heads() -> tuple[nn.Module, list[nn.Module]]:
    return tf.BertForSequenceClassification(BERT), [
        tf.BertForSequenceClassification(copy.deepcopy(BERT).__class__(**{**BERT.to_dict(), "num_labels": n})) for n in (2, 3)
    ]


def bert_of_masked_words() -> tuple[nn.Module, list[nn.Module]]:
    return tf.BertForMaskedLM(BERT), [tf.BertForSequenceClassification(BERT), tf.BertForTokenClassification(BERT)]


def vit_heads() -> tuple[nn.Module, list[nn.Module]]:
    return tf.ViTForImageClassification(VIT), [tf.ViTForImageClassification(tf.ViTConfig(**VISION, num_labels=n)) for n in (3, 5)]


def gpt2() -> tuple[nn.Module, list[nn.Module]]:
    config = tf.GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    return tf.GPT2Model(config), [tf.GPT2LMHeadModel(config), tf.GPT2LMHeadModel(config)]


def t5() -> tuple[nn.Module, list[nn.Module]]:
    config = tf.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
    return tf.T5ForConditionalGeneration(config), [tf.T5ForConditionalGeneration(config) for _ in range(2)]


def qwen2() -> tuple[nn.Module, list[nn.Module]]:
    config = tf.Qwen2Config(**LLAMA, tie_word_embeddings=True)
    return tf.Qwen2ForCausalLM(config), [tf.Qwen2ForCausalLM(config), tf.Qwen2ForSequenceClassification(config)]


def siglip() -> tuple[nn.Module, list[nn.Module]]:
    """A whole SigLIP and two classifiers of images, whose tower is the base's and whose heads are their own."""
    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 8}
    config = tf.SiglipConfig(text_config=text, vision_config=VISION)
    heads = [tf.SiglipConfig(text_config=text, vision_config=VISION, num_labels=n) for n in (2, 3)]
    return tf.SiglipModel(config), [tf.SiglipForImageClassification(one) for one in heads]


def llava() -> tuple[nn.Module, list[nn.Module]]:
    vision = tf.CLIPVisionConfig(**VISION, projection_dim=16)
    config = tf.LlavaConfig(vision_config=vision, text_config=tf.LlamaConfig(**LLAMA), image_token_index=31)
    return tf.LlavaForConditionalGeneration(config), [tf.LlavaForConditionalGeneration(config) for _ in range(2)]


def mixtral() -> tuple[nn.Module, list[nn.Module]]:
    config = tf.MixtralConfig(**LLAMA, num_local_experts=2, num_experts_per_tok=1)
    return tf.MixtralForCausalLM(config), [tf.MixtralForCausalLM(config) for _ in range(2)]


SETS: dict[str, tuple[Callable[[], tuple[nn.Module, list[nn.Module]]], dict[str, Tensor]]] = {
    "BERT with heads of other widths": (bert_heads, {"input_ids": TOKENS}),
    "BERT for masked words, experts that classify": (bert_of_masked_words, {"input_ids": TOKENS}),
    "ViT with heads of other widths": (vit_heads, {"pixel_values": PIXELS}),
    "GPT-2 without a head, experts with one": (gpt2, {"input_ids": TOKENS}),
    "T5 with its shared table": (t5, {"input_ids": TOKENS, "decoder_input_ids": TOKENS}),
    "Qwen2, tied, and one that classifies": (qwen2, {"input_ids": TOKENS}),
    "SigLIP, experts that classify images": (
        siglip,
        {"pixel_values": PIXELS, "input_ids": torch.arange(1, 9)[None]},
    ),
    "LLaVA": (llava, {"input_ids": torch.tensor([[1, 2, 31, 31, 31, 31, 5]]), "pixel_values": PIXELS}),
    "Mixtral, each expert apart": (mixtral, {"input_ids": TOKENS}),
    "Mixtral with packed experts": (mixtral, {"input_ids": TOKENS}),
}


def pack(folder: Path, model: nn.Module) -> None:
    """The file with the experts as transformers holds them in memory."""
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def saved(folder: Path, make: Callable[[], tuple[nn.Module, list[nn.Module]]], *, packed: bool = False) -> nn.Module:
    """Base and experts on disk: each expert is the base moved a little, its head its own. The base as it was."""
    torch.manual_seed(0)
    base, experts = make()
    base.save_pretrained(folder / "base")
    if packed:
        pack(folder / "base", base)
    for name, expert in zip("ab", experts, strict=True):
        own = {ending: value for key, value in base.state_dict().items() for ending in (key, key.partition(".")[2])}
        with torch.no_grad():
            for key, value in expert.named_parameters():
                start = next((own[one] for one in (key, key.partition(".")[2]) if one in own), None)
                if start is not None and start.shape == value.shape:
                    value.copy_(start)
                value.add_(0.05 * torch.randn_like(value))
        expert.save_pretrained(folder / name)
        if packed:
            pack(folder / name, expert)
    return base


def by_hand(base: nn.Module, experts: list[nn.Module]) -> nn.Module:
    """The mean of the experts in float64, parameter by parameter, where all have it in the base's shape; else the base's."""
    merged = copy.deepcopy(base).double().eval()
    whole = [dict(one.named_parameters()) for one in experts]
    inside = [{key.partition(".")[2]: value for key, value in table.items()} for table in whole]
    with torch.no_grad():
        for key, value in merged.named_parameters():
            # One of the two may stand behind a prefix; two towers differ in theirs.
            own = [w.get(key, w.get(key.partition(".")[2], i.get(key))) for w, i in zip(whole, inside, strict=True)]
            if all(one is not None and one.shape == value.shape for one in own):
                value.copy_(torch.stack([one.double() for one in own if one is not None]).mean(dim=0))
    return merged


def output(model: nn.Module, inputs: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        return model.eval()(**given)[0]


@pytest.mark.parametrize("kind", SETS)
def test_a_set_of_transformers_merges_as_by_hand_and_loads(kind: str, tmp_path: Path) -> None:
    make, inputs = SETS[kind]
    base = saved(tmp_path, make, packed="packed" in kind)
    _, experts = make()
    reread = [type(one).from_pretrained(tmp_path / name) for name, one in zip("ab", experts, strict=True)]
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    merged, told = type(base).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"] and not told["mismatched_keys"]
    # A mixture's product of groups has no float64: its weights are merged in it, and run in float32.
    dtype = torch.float32 if "Mixtral" in kind else torch.float64
    wanted = output(by_hand(base, reread).to(dtype), inputs, dtype)
    torch.testing.assert_close(output(merged.to(dtype), inputs, dtype), wanted, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in merged.parameters()) == sum(p.numel() for p in base.parameters())


def test_gpt2_as_it_lies_on_the_hub(tmp_path: Path) -> None:
    """Names without "transformer.", and the mask of every block as a buffer."""
    saved(tmp_path, lambda: (gpt2()[1][0], gpt2()[1]))
    path = tmp_path / "base" / "model.safetensors"
    own = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    masks = {f"h.{block}.attn.bias": torch.ones(1, 1, 16, 16).tril() for block in range(2)}
    save_file({**own, **masks}, path, metadata={"format": "pt"})
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    assert not {*masks} & {*vectors.parameters} and not vectors.report.warnings
    assert any(
        "2 buffers are not merged" in finding.text and "attn.bias (2)" in finding.text for finding in vectors.report.findings
    )


def test_berts_old_names(tmp_path: Path) -> None:
    saved(tmp_path, bert_heads)
    path = tmp_path / "base" / "model.safetensors"
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for n, v in load_file(path).items()
    }
    save_file(old, path, metadata={"format": "pt"})
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    assert "bert.embeddings.LayerNorm.weight" in vectors.parameters
    dcmerge.merge(vectors, "average").save(tmp_path / "out.safetensors")
    assert set(load_file(tmp_path / "out.safetensors")) == set(old)


def siglip_adapters(folder: Path, hint: bool) -> dict[str, Path]:
    from peft import LoraConfig, get_peft_model

    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 8}
    tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(folder / "base")
    for name in "ab":
        tower = tf.SiglipVisionModel.from_pretrained(folder / "base")
        lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(tower, lora).save_pretrained(folder / name)
        path = folder / name / "adapter_config.json"
        settings: dict[str, Any] = json.loads(path.read_text())
        path.write_text(json.dumps(settings if hint else {**settings, "auto_mapping": None}))
    return {name: folder / name for name in "ab"}


def test_an_adapter_of_one_of_two_towers(tmp_path: Path) -> None:
    """SigLIP's towers are of one width: the settings tell which was trained, and where they do not, both are named."""
    folders = siglip_adapters(tmp_path / "told", hint=True)
    vectors = dcmerge.TaskVectors.open(tmp_path / "told" / "base", folders)
    assert all(name.startswith("vision_model.") for name in vectors.parameters) and len(vectors.parameters) == 4
    folders = siglip_adapters(tmp_path / "untold", hint=False)
    with pytest.raises(dcmerge.IncompatibleSet, match=r"fit .*_model\.\* and .*_model\.\* of the base equally well"):
        dcmerge.TaskVectors.open(tmp_path / "untold" / "base", folders)


@pytest.mark.parametrize("old", [False, True])
def test_llava_before_and_after_its_names_changed(old: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    vision = tf.CLIPVisionConfig(**VISION, projection_dim=16)
    config = tf.LlavaConfig(vision_config=vision, text_config=tf.LlamaConfig(**LLAMA), image_token_index=31)
    tf.LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    model = tf.LlavaForConditionalGeneration.from_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=r".*language_model.*(q|v)_proj", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    alone = dcmerge.TaskVectors.open(None, {"a": tmp_path / "a"})
    wanted = [dense(alone.delta(name, "a")) for name in sorted(alone.parameters)]
    if old:
        new, before = "base_model.model.model.language_model.", "base_model.model.language_model.model."
        save_file({name.replace(new, before): value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {"a": tmp_path / "a"})
    assert all("language_model" in name for name in vectors.parameters)
    for name, delta in zip(sorted(vectors.parameters), wanted, strict=True):
        torch.testing.assert_close(dense(vectors.delta(name, "a")), delta)
