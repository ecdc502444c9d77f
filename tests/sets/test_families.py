"""Families of models as people fine-tune them: the base as it is pre-trained, experts with heads of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import dcmerge
from tests.sets.test_situations import LLAMA, PIXELS, SMALL, TOKENS, VISION, by_hand, output, saved

Made = tuple[nn.Module, list[nn.Module]]
ENCODER = {**SMALL, "vocab_size": 32, "max_position_embeddings": 20}


def encoder(config: type, base: type, expert: type, **more: object) -> Callable[[], Made]:
    """A pre-trained encoder, and two classifiers of 2 and 3 classes."""
    given = {**ENCODER, **more}
    return lambda: (base(config(**given)), [expert(config(**given, num_labels=count)) for count in (2, 3)])


def alike(config: tf.PretrainedConfig, cls: type, other: type | None = None) -> Callable[[], Made]:
    return lambda: (cls(config), [(other or cls)(config) for _ in range(2)])


def bart() -> Made:
    config = tf.BartConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=20, pad_token_id=0, eos_token_id=2, bos_token_id=1,
        decoder_start_token_id=2,
    )  # fmt: skip
    return tf.BartForConditionalGeneration(config), [tf.BartForConditionalGeneration(config) for _ in range(2)]


def whisper() -> Made:
    config = tf.WhisperConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8, max_source_positions=16, max_target_positions=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return tf.WhisperForConditionalGeneration(config), [tf.WhisperForConditionalGeneration(config) for _ in range(2)]


def clip_towers() -> Made:
    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    config = tf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    heads = [tf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8, num_labels=n) for n in (2, 3)]
    return tf.CLIPModel(config), [tf.CLIPForImageClassification(one) for one in heads]


def wav2vec() -> Made:
    config = tf.Wav2Vec2Config(
        **SMALL, vocab_size=32, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return tf.Wav2Vec2Model(config), [tf.Wav2Vec2ForCTC(config) for _ in range(2)]


def resnet() -> Made:
    def config(labels: int) -> tf.ResNetConfig:
        return tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=labels)

    return tf.ResNetModel(config(2)), [tf.ResNetForImageClassification(config(n)) for n in (2, 3)]


def swin() -> Made:
    def config(labels: int) -> tf.SwinConfig:
        return tf.SwinConfig(
            image_size=16, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2, num_labels=labels
        )

    return tf.SwinModel(config(2)), [tf.SwinForImageClassification(config(n)) for n in (2, 3)]


def dinov2() -> Made:
    """Experts of larger pictures have other positions."""

    def config(size: int, labels: int) -> tf.Dinov2Config:
        return tf.Dinov2Config(**SMALL, image_size=size, patch_size=8, num_labels=labels, mlp_ratio=1)

    return tf.Dinov2Model(config(16, 2)), [tf.Dinov2ForImageClassification(config(32, n)) for n in (2, 3)]


SAMPLED = {"input_features": torch.linspace(-1, 1, 8 * 32).reshape(1, 8, 32), "decoder_input_ids": TOKENS}
SETS: dict[str, tuple[Callable[[], Made], dict[str, Tensor]]] = {
    "RoBERTa": (encoder(tf.RobertaConfig, tf.RobertaForMaskedLM, tf.RobertaForSequenceClassification), {"input_ids": TOKENS}),
    "DistilBERT": (
        encoder(
            tf.DistilBertConfig,
            tf.DistilBertForMaskedLM,
            tf.DistilBertForSequenceClassification,
            dim=16,
            n_layers=2,
            n_heads=2,
            hidden_dim=24,
        ),
        {"input_ids": TOKENS},
    ),
    "ELECTRA": (
        encoder(tf.ElectraConfig, tf.ElectraForPreTraining, tf.ElectraForSequenceClassification, embedding_size=16),
        {"input_ids": TOKENS},
    ),
    "DeBERTa": (
        encoder(tf.DebertaV2Config, tf.DebertaV2ForMaskedLM, tf.DebertaV2ForSequenceClassification),
        {"input_ids": TOKENS},
    ),
    "ALBERT": (
        encoder(tf.AlbertConfig, tf.AlbertForMaskedLM, tf.AlbertForSequenceClassification, embedding_size=8),
        {"input_ids": TOKENS},
    ),
    "ModernBERT": (
        encoder(
            tf.ModernBertConfig,
            tf.ModernBertForMaskedLM,
            tf.ModernBertForSequenceClassification,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
            attn_implementation="eager",
        ),
        {"input_ids": TOKENS},
    ),
    "BART": (bart, {"input_ids": TOKENS, "decoder_input_ids": TOKENS}),
    "Whisper": (whisper, SAMPLED),
    "OPT": (
        alike(
            tf.OPTConfig(**SMALL, vocab_size=32, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=20),
            tf.OPTForCausalLM,
        ),
        {"input_ids": TOKENS},
    ),
    "Bloom": (
        alike(tf.BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2), tf.BloomForCausalLM),
        {"input_ids": TOKENS},
    ),
    "GPT-NeoX": (alike(tf.GPTNeoXConfig(**ENCODER), tf.GPTNeoXForCausalLM), {"input_ids": TOKENS}),
    "Falcon": (
        alike(tf.FalconConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2), tf.FalconForCausalLM),
        {"input_ids": TOKENS},
    ),
    "Phi-3": (alike(tf.Phi3Config(**LLAMA, pad_token_id=0), tf.Phi3ForCausalLM), {"input_ids": TOKENS}),
    "Gemma 2": (alike(tf.Gemma2Config(**LLAMA, head_dim=8), tf.Gemma2ForCausalLM), {"input_ids": TOKENS}),
    "Mamba": (
        alike(tf.MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, state_size=4), tf.MambaForCausalLM),
        {"input_ids": TOKENS},
    ),
    "CLIP": (clip_towers, {"pixel_values": PIXELS, "input_ids": torch.arange(1, 9)[None]}),
    "wav2vec 2.0": (wav2vec, {"input_values": torch.linspace(-1, 1, 200)[None]}),
    "ResNet": (resnet, {"pixel_values": PIXELS.repeat(1, 1, 2, 2)}),
    "Swin": (swin, {"pixel_values": PIXELS}),
    "DINOv2": (dinov2, {"pixel_values": PIXELS}),
}


@pytest.mark.parametrize("family", SETS)
def test_a_family_merges_as_by_hand_and_loads(family: str, tmp_path: Path) -> None:
    make, inputs = SETS[family]
    base = saved(tmp_path, make)
    reread = [type(one).from_pretrained(tmp_path / name) for name, one in zip("ab", make()[1], strict=True)]
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    merged, told = type(base).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"] and not told["mismatched_keys"]
    wanted = output(by_hand(base, reread).double(), inputs, torch.float64)
    torch.testing.assert_close(output(merged.double(), inputs, torch.float64), wanted, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in merged.parameters()) == sum(p.numel() for p in base.parameters())
