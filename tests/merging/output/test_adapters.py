"""A merged adapter is what PEFT loads as base + α · merged: compared with PEFT's own sums and with dense deltas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from peft.utils import load_peft_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import dcmerge
from dcmerge import InputError, Merged, TaskVectors
from dcmerge.checkpoints import dense, open_checkpoint
from dcmerge.merging.recipe import METADATA_KEY
from tests.builders import full_set, lora_set, random_deltas, random_factors
from tests.merging.output.builders import clip_vision, gpt2, llama, loaded, outputs, summed, with_deltas, write_peft

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # PEFT still asks for it
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
#: The model, and what each of its adapters is: every way in which PEFT says a rank, a scale, or which modules.
SETS: dict[str, tuple[Callable[[], nn.Module], list[dict[str, Any]]]] = {
    "llama": (llama, 3 * [{"target_modules": ALL}]),
    "other ranks and targets": (
        llama,
        [
            {"target_modules": ["q_proj", "v_proj"], "r": 4},
            {"target_modules": ["v_proj", "down_proj"], "r": 2, "lora_alpha": 5},
            {"target_modules": r".*layers\.1\..*(q_proj|gate_proj)", "r": 3},
        ],
    ),
    "patterns, rank-stabilised": (
        llama,
        [
            {
                "target_modules": ["q_proj", "k_proj"],
                "rank_pattern": {"k_proj": 4},
                "alpha_pattern": {r"layers\.0\.self_attn\.k_proj": 7},
            },
            {"target_modules": ["q_proj", "k_proj"], "use_rslora": True, "r": 3},
        ],
    ),
    "some layers": (
        llama,
        [
            {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
            {"target_modules": ["q_proj"]},
        ],
    ),
    "the head and the tokens": (llama, [{"target_modules": ["lm_head", "embed_tokens"]}, {"target_modules": ["q_proj"]}]),
    "CLIP": (
        clip_vision,
        [
            {"target_modules": ["q_proj", "k_proj", "v_proj", "out_proj"]},
            {"target_modules": ["q_proj", "fc1"]},
        ],
    ),
    "Conv1D": (gpt2, 2 * [{"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}]),
}


@pytest.fixture(params=SETS)
def adapted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[nn.Module, list[Path]]]:
    make, kinds = SETS[request.param]
    model = make()
    return model, [write_peft(tmp_path / f"task{t}", model, t, **settings) for t, settings in enumerate(kinds)]


def opened(folders: list[Path]) -> TaskVectors:
    return TaskVectors.open(None, {folder.name: folder for folder in folders})


def saved(folder: Path, vectors: TaskVectors, slug: str, **how: Any) -> Path:
    dcmerge.merge(vectors, slug).save_adapter(folder, **how)
    return folder


@pytest.mark.parametrize("slug", ["task_arithmetic", "average"])
def test_peft_loads_its_own_sum_and_mean(adapted: tuple[nn.Module, list[Path]], tmp_path: Path, slug: str) -> None:
    model, folders = adapted
    out = saved(tmp_path / "out", opened(folders), slug)
    wanted = outputs(summed(model, folders, 1.0 if slug == "task_arithmetic" else 1 / len(folders)))
    found = outputs(loaded(model, out))
    assert (found - outputs(model)).abs().max() > 1e-4
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("slug", ["dc_merge", "tsv_m", "iso_c", "iso_cts", "knots", "robustmerge", "model_stock"])
def test_peft_loads_the_base_and_the_dense_delta(adapted: tuple[nn.Module, list[Path]], tmp_path: Path, slug: str) -> None:
    model, folders = adapted
    merged = dcmerge.merge(opened(folders), slug)
    written = merged.save_adapter(tmp_path / "out", scale=0.7)
    assert written.discarded < 1e-9 and written.content == "adapter"
    deltas = {name: dense(delta) for name, delta in merged.deltas.items()}
    wanted = outputs(with_deltas(model, deltas, 0.7))
    torch.testing.assert_close(outputs(loaded(model, tmp_path / "out")), wanted, atol=1e-5, rtol=1e-5)
    again = open_checkpoint(tmp_path / "out")
    for name, delta in deltas.items():
        torch.testing.assert_close(again.read(name).dense(), 0.7 * delta, atol=1e-5, rtol=1e-5)


def test_an_elementwise_method_states_what_its_rank_discards(tmp_path: Path) -> None:
    model = llama()
    vectors = opened([write_peft(tmp_path / f"task{t}", model, t, target_modules=["q_proj", "gate_proj"]) for t in range(2)])
    merged = dcmerge.merge(vectors, "ties")
    written = merged.save_adapter(tmp_path / "out")
    energy = lost = 0.0
    found = open_checkpoint(tmp_path / "out")
    for name, delta in merged.deltas.items():
        values = torch.linalg.svdvals(delta.double())
        assert found.rank_of(name) == 4
        best = (delta.double() - found.read(name).dense()).square().sum().item()
        assert best == pytest.approx(values[4:].square().sum().item(), rel=1e-4)
        energy, lost = energy + values.square().sum().item(), lost + best
    assert written.discarded == pytest.approx(lost / energy, rel=1e-4) and written.discarded > 0.01
    assert any("warning: the method gives dense matrices" in note for note in written.notes)
    whole = merged.save_adapter(tmp_path / "whole", rank=24)
    assert whole.discarded < 1e-9 and whole.ranks[1] <= 16 and not any("warning" in note for note in whole.notes)


def test_a_smaller_rank_is_the_best_of_that_rank(tmp_path: Path) -> None:
    model = llama()
    vectors = opened([write_peft(tmp_path / f"task{t}", model, t, target_modules=ALL) for t in range(3)])
    merged = dcmerge.merge(vectors, "task_arithmetic")
    written = merged.save_adapter(tmp_path / "out", rank=2)
    found, shares = open_checkpoint(tmp_path / "out"), {}
    for name, delta in merged.deltas.items():
        U, s, Vt = torch.linalg.svd(delta.dense().double())
        torch.testing.assert_close(found.read(name).dense().double(), (U[:, :2] * s[:2]) @ Vt[:2], atol=1e-5, rtol=1e-4)
        shares[name] = (s[2:].square().sum() / s.square().sum()).item()
    assert written.ranks == (2, 2) and written.worst[0] == max(shares, key=shares.get)
    assert written.worst[1] == pytest.approx(max(shares.values()), rel=1e-4)


def test_factors_are_balanced_and_of_scale_one(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path, {t: random_factors(s) for s, t in enumerate("ab")}, alpha=30)
    saved(tmp_path / "out", vectors, "average", scale=-2.0)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == 4 and "rank_pattern" not in config
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    for name, A in tensors.items():
        if "lora_A" in name:
            B = tensors[name.replace("lora_A", "lora_B")]
            torch.testing.assert_close(A @ A.T, B.T @ B, atol=1e-4, rtol=1e-4)


def test_ranks_follow_what_each_weight_has(tmp_path: Path) -> None:
    model = llama()
    first = write_peft(tmp_path / "a", model, 0, target_modules=["q_proj", "v_proj", "down_proj"], r=2)
    second = write_peft(tmp_path / "b", model, 1, target_modules=["q_proj"], r=3)
    saved(tmp_path / "out", opened([first, second]), "average")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (2, {"q_proj": 5}) and config["alpha_pattern"] == config["rank_pattern"]
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    twins = opened([first, write_peft(tmp_path / "twin", model, 0, target_modules=["q_proj", "v_proj", "down_proj"], r=2)])
    assert dcmerge.merge(twins, "average").save_adapter(tmp_path / "twins").ranks == (2, 2)  # equal directions count once


def test_a_weight_without_change_keeps_a_rank_that_peft_can_hold(tmp_path: Path) -> None:
    model = llama()
    folder = write_peft(tmp_path / "a", model, 0, target_modules=["q_proj"])
    weights = folder / "adapter_model.safetensors"
    save_file({k: v * ("lora_A" in k) for k, v in load_file(weights).items()}, weights)
    out = saved(tmp_path / "out", opened([folder]), "average")
    torch.testing.assert_close(outputs(loaded(model, out)), outputs(model))


def test_old_files_of_a_part_of_clip_give_an_adapter_of_that_part(tmp_path: Path) -> None:
    """As PEFT 0.3 wrote them for DC-Merge's experts: a pickle of factors with the part's own names, a short configuration."""
    part, folders = clip_vision(), []
    part = getattr(part, "vision_model", part)
    for t in range(2):
        folder = write_peft(tmp_path / f"task{t}", part, t, target_modules=["q_proj", "v_proj"])
        weights = folder / "adapter_model.safetensors"
        tensors = {key.replace("lora_A.w", "lora_A.default.w"): tensor for key, tensor in load_file(weights).items()}
        weights.unlink()
        torch.save(tensors, folder / "adapter_model.bin")
        (folder / "adapter_config.json").write_text(
            json.dumps(
                {
                    "base_model_name_or_path": None,
                    "bias": "none",
                    "enable_lora": None,
                    "fan_in_fan_out": False,
                    "inference_mode": True,
                    "lora_alpha": 3,
                    "lora_dropout": 0.1,
                    "merge_weights": False,
                    "modules_to_save": None,
                    "peft_type": "LORA",
                    "r": 2,
                    "target_modules": ["q_proj", "v_proj"],
                    "task_type": None,
                }
            )
        )
        folders.append(folder)
    out = saved(tmp_path / "out", opened(folders), "average")
    keys = load_peft_weights(str(out)).keys()
    assert keys == {k.replace(".default", "") for k in torch.load(folders[0] / "adapter_model.bin")}
    part_with = loaded(part, out)
    deltas = {n: dense(d) for n, d in dcmerge.merge(opened(folders), "average").deltas.items()}
    wanted = with_deltas(part, deltas)
    with torch.no_grad():
        pixels = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
        torch.testing.assert_close(part_with(pixel_values=pixels)[0], wanted(pixel_values=pixels)[0], atol=1e-5, rtol=1e-5)


def test_the_names_stay_those_of_the_wrapped_part_with_the_whole_base(tmp_path: Path) -> None:
    model = llama()
    folders = [write_peft(tmp_path / f"task{t}", model.model, t, target_modules=["q_proj"]) for t in range(2)]
    model.save_pretrained(tmp_path / "base")
    vectors = TaskVectors.open(tmp_path / "base", {folder.name: folder for folder in folders})
    assert all(name.startswith("model.layers") for name in vectors.parameters)
    out = saved(tmp_path / "out", vectors, "average")
    assert load_file(out / "adapter_model.safetensors").keys() == load_file(folders[0] / "adapter_model.safetensors").keys()
    wanted = summed(model.model, folders, 0.5)
    torch.testing.assert_close(outputs(loaded(model.model, out)), outputs(wanted), atol=1e-5, rtol=1e-5)


def test_an_attention_module_counts_as_often_as_in_its_experts(tmp_path: Path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attn(x, x, x)[0]

    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(2, 3, 8)
    folders = [write_peft(tmp_path / f"task{t}", model, t, target_modules=["attn"], r=t + 1) for t in range(2)]
    out = saved(tmp_path / "out", opened(folders), "task_arithmetic")
    wanted = summed(model, folders, 1.0)
    torch.testing.assert_close(loaded(model, out)(x), wanted(x), atol=1e-5, rtol=1e-5)


def test_the_recipe_lies_in_the_weights_and_the_card_beside_them(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path, {t: random_factors(s) for s, t in enumerate("ab")})
    written = dcmerge.merge(vectors, "dc_merge", rho=2.0).save_adapter(tmp_path / "out", scale=0.5, scale_origin="my choice")
    assert set(written.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    with safe_open(tmp_path / "out/adapter_model.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()[METADATA_KEY])
    assert (recipe["method"], recipe["scale"], recipe["parameters"]["rho"], recipe["dtype"]) == ("dc_merge", 0.5, 2.0, "float32")
    card = (tmp_path / "out/README.md").read_text()
    assert "my choice" in card and vectors.experts["a"].fingerprint in card and 'library_name: "peft"' in card


class Broken(dict):
    def items(self) -> Iterator[tuple[str, Any]]:
        yield next(iter(super().items()))
        raise RuntimeError("no memory left")


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    merged = dcmerge.merge(lora_set(tmp_path / "set", {t: random_factors(s) for s, t in enumerate("ab")}), "average")
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match="no memory left"):
        Merged(merged.vectors, merged.method, merged.parameters, Broken(merged.deltas)).save_adapter(tmp_path / "out/new")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected LoRA adapters to write an adapter, got full"):
        dcmerge.merge(full_set(tmp_path, random_deltas(2)), "average").save_adapter(tmp_path / "out")
    vectors = lora_set(tmp_path / "set", {t: random_factors(s) for s, t in enumerate("ab")})
    with pytest.raises(InputError, match="at least 1, got 0"):
        dcmerge.merge(vectors, "average").save_adapter(tmp_path / "out", rank=0)
    large = {name: (B * 1e6, A) for name, (B, A) in random_factors(0).items()}
    with pytest.raises(InputError, match="leaves the range of float32"):
        dcmerge.merge(lora_set(tmp_path / "large", {"a": large}, alpha=1e29), "average").save_adapter(
            tmp_path / "out", scale=1000
        )
    assert not (tmp_path / "out").exists()


def test_adapters_of_different_parts_are_refused_where_no_adapter_can_hold_both(tmp_path: Path) -> None:
    model = llama()
    inner = write_peft(tmp_path / "inner", model.model, 0, target_modules=["q_proj"])
    whole = write_peft(tmp_path / "whole", model, 1, target_modules=["v_proj"])
    model.save_pretrained(tmp_path / "base")
    merged = dcmerge.merge(TaskVectors.open(tmp_path / "base", {"inner": inner, "whole": whole}), "average")
    with pytest.raises(InputError, match="adapters of the same part of the model, got inner and whole"):
        merged.save_adapter(tmp_path / "out")


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_trained_biases_load_with_the_merged_adapter(bias: str, tmp_path: Path) -> None:
    """PEFT skips the biases of an adapter whose settings do not name them."""
    config = tf.BertConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8
    )
    tf.BertForSequenceClassification(config).save_pretrained(tmp_path / "base")

    def base() -> tf.PreTrainedModel:
        return tf.BertForSequenceClassification.from_pretrained(tmp_path / "base")

    experts = []
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], bias=bias, init_lora_weights=False)
        adapted = peft.get_peft_model(base(), lora)
        with torch.no_grad():
            for value in adapted.parameters():
                value.add_(0.1 * torch.randn_like(value) if value.requires_grad else 0)
        adapted.save_pretrained(tmp_path / name)
        experts.append(adapted.merge_and_unload())
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    dcmerge.merge(vectors, "average").save_adapter(tmp_path / "out")
    merged = peft.PeftModel.from_pretrained(base(), tmp_path / "out").merge_and_unload()
    for one, *own in zip(merged.parameters(), *(model.parameters() for model in experts), strict=True):
        torch.testing.assert_close(one, torch.stack(own).mean(dim=0), rtol=0, atol=1e-6)
