"""Mixtures of experts: packed tensors are merged as one matrix an expert and projection, and written back packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dcmerge
from dcmerge.checkpoints.packed import unpacked
from dcmerge.cli import main
from dcmerge.merging.verify import verify
from dcmerge.methods import methods

#: PEFT asks transformers by a name that it is about to lose.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
EXPERTS = {"intermediate_size": 12, "num_local_experts": 3, "num_experts_per_tok": 1}
#: gpt-oss and Llama 4 store (in, out), gpt-oss gate and up in turns.
MODELS: dict[str, tuple[type, Any]] = {
    "mixtral": (tf.MixtralForCausalLM, tf.MixtralConfig(**SMALL, **EXPERTS)),
    "qwen3": (
        tf.Qwen3MoeForCausalLM,
        tf.Qwen3MoeConfig(**SMALL, moe_intermediate_size=12, num_experts=3, num_experts_per_tok=1, head_dim=8),
    ),
    "gpt_oss": (tf.GptOssForCausalLM, tf.GptOssConfig(**SMALL, **EXPERTS, head_dim=8, pad_token_id=0, eos_token_id=1)),
    "llama4": (
        tf.Llama4ForCausalLM,
        tf.Llama4TextConfig(**SMALL, **{**EXPERTS, "intermediate_size_mlp": 12}, head_dim=8),
    ),
}
METHODS = [slug for slug, method in methods().items() if set(method.needs) <= {"weights", "base"}]


def saved(kind: str, folder: Path, *, packed: bool) -> list[nn.Module]:
    """Base and two experts on disk, as the library writes them or with their experts packed; the models of the experts."""
    torch.manual_seed(0)
    cls, config = MODELS[kind]
    base = cls(config)
    found = []
    for name in ("base", "a", "b"):
        model = cls(config)
        model.load_state_dict(base.state_dict())
        with torch.no_grad():
            for value in model.parameters() if name != "base" else ():
                value.add_(0.05 * torch.randn_like(value))
        model.save_pretrained(folder / name)
        if packed:
            tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
            save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        found.append(model)
    return found[1:]


def opened(folder: Path, **choice: Any) -> dcmerge.TaskVectors:
    return dcmerge.TaskVectors.open(folder / "base", {name: folder / name for name in "ab"}, **choice)


@pytest.mark.parametrize("kind", MODELS)
def test_the_average_of_packed_experts_is_that_of_the_models(kind: str, tmp_path: Path) -> None:
    experts = saved(kind, tmp_path, packed=True)
    vectors = opened(tmp_path)
    gates = [name for name in vectors.parameters if ".experts." in name and name.endswith("gate_proj.weight")]
    assert len(gates) == 3 and all(vectors.parameters[name].kind.value == "matrix" for name in gates)
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    assert {*load_file(tmp_path / "out" / "model.safetensors")} == {*load_file(tmp_path / "base" / "model.safetensors")}
    merged = MODELS[kind][0].from_pretrained(tmp_path / "out")
    for one, *own in zip(merged.parameters(), *(model.parameters() for model in experts), strict=True):
        torch.testing.assert_close(one.double(), torch.stack([value.double() for value in own]).mean(dim=0), rtol=0, atol=1e-7)
    assert verify(tmp_path / "out", search=[str(tmp_path)], forward=False).sound


def test_gate_and_up_of_gpt_oss_lie_in_turns(tmp_path: Path) -> None:
    """The same halves as its own forward pass takes: ``[..., ::2]`` and ``[..., 1::2]``."""
    saved("gpt_oss", tmp_path, packed=True)
    vectors = opened(tmp_path)
    own = load_file(tmp_path / "base" / "model.safetensors")
    begins = "model.layers.0.mlp.experts"
    for start, half in enumerate(("gate_proj", "up_proj")):
        found = vectors.base_tensor(f"{begins}.2.{half}.weight")
        assert torch.equal(found, own[f"{begins}.gate_up_proj"][2][:, start::2])
        assert torch.equal(vectors.base_tensor(f"{begins}.2.{half}.bias"), own[f"{begins}.gate_up_proj_bias"][2][start::2])


def toy(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {f"layers.0.mlp.experts.{e}.{p}.weight": torch.randn(4, 6) for e in range(2) for p in ("gate_proj", "up_proj")} | {
        f"layers.0.mlp.experts.{e}.down_proj.weight": torch.randn(6, 4) for e in range(2)
    }


def packed(apart: dict[str, Tensor]) -> dict[str, Tensor]:
    def stack(which: str) -> Tensor:
        return torch.stack([apart[f"layers.0.mlp.experts.{e}.{which}.weight"] for e in range(2)])

    return {
        "layers.0.mlp.experts.gate_up_proj": torch.cat([stack("gate_proj"), stack("up_proj")], dim=1),
        "layers.0.mlp.experts.down_proj": stack("down_proj"),
    }


def write_toys(folder: Path, forms: dict[str, bool]) -> None:
    folder.mkdir(exist_ok=True)
    base = toy(0)
    for seed, (name, is_packed) in enumerate(forms.items()):
        own = {key: value + 0.1 * moved for (key, value), moved in zip(base.items(), toy(seed).values(), strict=True)}
        save_file(packed(own) if is_packed else own, folder / f"{name}.safetensors")


def toys(folder: Path) -> dcmerge.TaskVectors:
    return dcmerge.TaskVectors.open(folder / "base.safetensors", {name: folder / f"{name}.safetensors" for name in "ab"})


@pytest.mark.parametrize("slug", METHODS)
def test_every_method_sees_the_same_matrices_packed_or_apart(slug: str, tmp_path: Path) -> None:
    merges = []
    for form in (True, False):
        write_toys(tmp_path / str(form), dict.fromkeys(("base", "a", "b"), form))
        vectors = toys(tmp_path / str(form))
        assert len(vectors.parameters) == 6
        out = tmp_path / f"{form}.safetensors"
        dcmerge.merge(vectors, slug).save(out)
        merges.append(load_file(out))
    as_packed = packed(merges[1])
    assert {*merges[0]} == {*as_packed}
    for name, value in merges[0].items():
        torch.testing.assert_close(value, as_packed[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base_is_packed", [False, True])
def test_a_packed_base_meets_experts_that_are_apart(base_is_packed: bool, tmp_path: Path) -> None:
    write_toys(tmp_path, {"base": base_is_packed, "a": not base_is_packed, "b": base_is_packed})
    write_toys(tmp_path / "alike", dict.fromkeys(("base", "a", "b"), base_is_packed))
    for folder in (tmp_path, tmp_path / "alike"):
        dcmerge.merge(toys(folder), "average").save(folder / "out.safetensors")
    mixed, alike = (load_file(folder / "out.safetensors") for folder in (tmp_path, tmp_path / "alike"))
    assert mixed.keys() == alike.keys() and all(torch.equal(mixed[name], alike[name]) for name in mixed)


def test_only_some_experts_are_merged_and_the_others_stay(tmp_path: Path) -> None:
    write_toys(tmp_path, dict.fromkeys(("base", "a", "b"), True))
    told = ["--base", str(tmp_path / "base.safetensors"), "--expert", f"a={tmp_path / 'a.safetensors'}"]
    out = tmp_path / "out.safetensors"
    assert main(["merge", *told, "--only", "*experts.1.gate_proj*", "--method", "average", "--out", str(out)]) == 0
    merged, base, expert = (load_file(tmp_path / f"{name}.safetensors") for name in ("out", "base", "a"))
    name = "layers.0.mlp.experts.gate_up_proj"
    torch.testing.assert_close(merged[name][1, :4], expert[name][1, :4])
    assert torch.equal(merged[name][0], base[name][0]) and torch.equal(merged[name][1, 4:], base[name][1, 4:])
    assert torch.equal(merged["layers.0.mlp.experts.down_proj"], base["layers.0.mlp.experts.down_proj"])


def test_granites_names_and_experts_of_an_unknown_kind() -> None:
    infos = {
        "layers.0.block_sparse_moe.input_linear.weight": dcmerge.checkpoints.TensorInfo((2, 8, 6), torch.float32),
        "layers.0.block_sparse_moe.output_linear.weight": dcmerge.checkpoints.TensorInfo((2, 6, 4), torch.float32),
        "layers.1.experts.other.weight": dcmerge.checkpoints.TensorInfo((2, 6, 4), torch.float32),
        "conv.weight": dcmerge.checkpoints.TensorInfo((2, 6, 4), torch.float32),
    }
    found = unpacked(infos)
    assert [*found["layers.0.block_sparse_moe.input_linear.weight"]][:2] == [
        "layers.0.block_sparse_moe.experts.0.gate_proj.weight",
        "layers.0.block_sparse_moe.experts.0.up_proj.weight",
    ]
    assert [*found["layers.1.experts.other.weight"]] == [f"layers.1.experts.{e}.other.weight" for e in range(2)]
    assert "conv.weight" not in found


PARAMETERS = {
    "both": ["experts.gate_up_proj", "experts.down_proj"],
    "down": ["experts.down_proj"],
    "in": ["experts.gate_up_proj"],
}


def adapters(kind: str, folder: Path, parameters: list[str]) -> dict[str, Path]:
    from peft import LoraConfig, get_peft_model

    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = MODELS[kind][0].from_pretrained(folder / "base")
        lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], target_parameters=parameters, init_lora_weights=False)
        get_peft_model(model, lora).save_pretrained(folder / f"adapter_{name}")
    return {name: folder / f"adapter_{name}" for name in "ab"}


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_adapters_of_packed_experts_are_what_peft_adds(kind: str, is_packed: bool, parameters: str, tmp_path: Path) -> None:
    """The merge as a model and as an adapter, beside PEFT's own merge of each adapter."""
    from peft import PeftModel

    saved(kind, tmp_path, packed=is_packed)
    folders = adapters(kind, tmp_path, PARAMETERS[parameters])
    cls = MODELS[kind][0]
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", folders)
    assert all(parameter.kind.value == "matrix" for parameter in vectors.parameters.values())
    merged = dcmerge.merge(vectors, "average")
    merged.save(tmp_path / "out")
    merged.save_adapter(tmp_path / "out_adapter")
    own = [
        PeftModel.from_pretrained(cls.from_pretrained(tmp_path / "base"), path).merge_and_unload() for path in folders.values()
    ]
    found = cls.from_pretrained(tmp_path / "out")
    adapted = PeftModel.from_pretrained(cls.from_pretrained(tmp_path / "base"), tmp_path / "out_adapter").merge_and_unload()
    for one, other, *two in zip(found.parameters(), adapted.parameters(), *(m.parameters() for m in own), strict=True):
        wanted = torch.stack([value.double() for value in two]).mean(dim=0)
        torch.testing.assert_close(one.double(), wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(other.double(), wanted, rtol=0, atol=1e-6)
    for name in ("out", "out_adapter"):
        assert verify(tmp_path / name, search=[str(tmp_path)], forward=False).sound


def test_adapters_of_packed_experts_need_no_base(tmp_path: Path) -> None:
    saved("mixtral", tmp_path, packed=False)
    folders = adapters("mixtral", tmp_path, PARAMETERS["both"])
    with_base = dcmerge.TaskVectors.open(tmp_path / "base", folders)
    alone = dcmerge.TaskVectors.open(None, folders)
    assert len(alone.parameters) == len(with_base.parameters) == 10
    dcmerge.merge(alone, "dc_merge").save_adapter(tmp_path / "alone")
    dcmerge.merge(with_base, "dc_merge").save_adapter(tmp_path / "with_base")
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("alone", "with_base"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_adapter_of_mixtrals_old_names_meets_its_base(tmp_path: Path) -> None:
    """Adapters from before transformers 5 name ``block_sparse_moe.experts.0.w1``, whatever form the base has."""
    saved("mixtral", tmp_path, packed=True)
    old = "base_model.model.model.layers.0.block_sparse_moe"
    A, B, G = torch.randn(2, 16), torch.randn(12, 2), torch.randn(3, 2)
    tensors = {f"{old}.experts.1.w1.lora_A.weight": A, f"{old}.experts.1.w1.lora_B.weight": B}
    tensors |= {f"{old}.gate.lora_A.weight": A.clone(), f"{old}.gate.lora_B.weight": G}
    (tmp_path / "old").mkdir()
    save_file(tensors, tmp_path / "old" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["w1", "gate"]}
    (tmp_path / "old" / "adapter_config.json").write_text(json.dumps(settings))
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {"old": tmp_path / "old"})
    dcmerge.merge(vectors, "average").save(tmp_path / "out.safetensors")
    merged, base = (load_file(path) for path in (tmp_path / "out.safetensors", tmp_path / "base" / "model.safetensors"))
    begins = "model.layers.0.mlp"
    wanted = base[f"{begins}.experts.gate_up_proj"].clone()
    wanted[1, :12] += B @ A
    torch.testing.assert_close(merged[f"{begins}.experts.gate_up_proj"], wanted)
    torch.testing.assert_close(merged[f"{begins}.gate.weight"], base[f"{begins}.gate.weight"] + G @ A)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"target_parameters": ["experts.down_proj"]}, "factors of 1 parameters of model.layers.0.mlp.experts, got 2"),
        ({"target_parameters": ["experts.one", "experts.two"]}, "parameters of unknown order, one, two"),
        ({"target_parameters": "experts.down_proj"}, "expected target_parameters as a list of names"),
        ({"r": 5}, "factors of rank 5 for every expert"),
    ],
)
def test_settings_that_do_not_fit_the_factors(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    saved("mixtral", tmp_path, packed=False)
    folder = adapters("mixtral", tmp_path, PARAMETERS["both"])["a"]
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(dcmerge.InputError, match=told):
        dcmerge.TaskVectors.open(None, {"a": folder})
