"""Adapters written by the peft library: our delta is what PEFT adds when it merges its adapter into the weights."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from dcmerge.checkpoints import LoraCheckpoint, LowRank, open_checkpoint
from dcmerge.checkpoints.adapter_settings import AdapterSettings
from dcmerge.errors import InputError
from tests.checkpoints.builders import BASE, Tiny, save_adapter

SETTINGS = {
    "plain": {"target_modules": ["c_fc", "c_proj"]},
    "rank-stabilised": {"target_modules": ["c_fc"], "use_rslora": True, "r": 3},
    "patterns": {
        "target_modules": ["c_fc", "c_proj", "attn"],
        "rank_pattern": {"c_fc": 4, r"resblocks\.0\.attn": 3},
        "alpha_pattern": {"^visual.*c_proj": 7, "attn": 5},
    },
    "attention": {"target_modules": ["attn"], "lora_alpha": 3},
    "embedding": {"target_modules": ["token_embedding", "c_fc"]},
    "negative alpha": {"target_modules": ["c_fc"], "lora_alpha": -2},
}


def merged_minus_before(before, wrapped):
    after = wrapped.merge_and_unload().state_dict()
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_delta_is_what_peft_adds(tmp_path, settings):
    before, wrapped = save_adapter(tmp_path, **settings)
    checkpoint = open_checkpoint(tmp_path)
    assert isinstance(checkpoint, LoraCheckpoint)
    assert checkpoint.kind == "lora"
    deltas = merged_minus_before(before, wrapped)
    assert set(checkpoint.infos) == set(deltas)
    for name, delta in deltas.items():
        factors = checkpoint.read(name)
        assert checkpoint.infos[name].shape == factors.shape == tuple(delta.shape)
        torch.testing.assert_close(factors.dense(), delta, atol=1e-5, rtol=1e-5)
    assert checkpoint.rank == max(checkpoint.read(name).rank for name in deltas)


def test_names_of_an_attention(tmp_path):
    save_adapter(tmp_path, target_modules=["attn"])
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint.infos) == {BASE + "attn.in_proj_weight", BASE + "attn.out_proj.weight"}
    one = checkpoint.adapted[BASE + "attn.out_proj.weight"]
    assert one.factor_a == f"base_model.model.{BASE}attn.base_layer.out_proj.lora_A.weight"
    assert checkpoint.source_names[BASE + "attn.in_proj_weight"] == BASE + "attn.in_proj_weight"


@pytest.mark.parametrize(("version", "times"), [(None, 2), ("0.14.0", 2), ("0.21.2", 2), ("0.22.0", 1), ("1.0", 1)])
def test_output_of_an_attention_counts_as_often_as_its_peft_adds_it(tmp_path, version, times):
    # test_delta_is_what_peft_adds tells whether this still holds for the installed version.
    save_adapter(tmp_path, target_modules=["attn"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peft_version": version}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.adapted[BASE + "attn.out_proj.weight"].scale == times * 4 / 2
    assert checkpoint.adapted[BASE + "attn.in_proj_weight"].scale == 4 / 2
    assert len(checkpoint.notes) == times - 1


def test_fan_in_fan_out(tmp_path):
    model = nn.ModuleDict({"c_attn": Conv1D(12, 8)})
    before, wrapped = save_adapter(tmp_path, model, target_modules=["c_attn"], fan_in_fan_out=True)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.infos["c_attn.weight"].shape == (8, 12)
    delta = merged_minus_before(before, wrapped)["c_attn.weight"]
    torch.testing.assert_close(checkpoint.read("c_attn.weight").dense(), delta, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["bin", "live names", "its file", "its config"])
def test_layouts(tmp_path, layout):
    save_adapter(tmp_path, target_modules=["c_fc"])
    expected = open_checkpoint(tmp_path).read(BASE + "mlp.c_fc.weight").dense()
    weights = tmp_path / "adapter_model.safetensors"
    path = tmp_path
    if layout == "bin":
        torch.save(load_file(weights), tmp_path / "adapter_model.bin")
        weights.unlink()
    elif layout == "live names":
        live = {name.replace(".weight", ".default.weight"): tensor for name, tensor in load_file(weights).items()}
        save_file(live, weights)
    else:
        path = weights if layout == "its file" else tmp_path / "adapter_config.json"
    checkpoint = open_checkpoint(path)
    assert checkpoint.path == tmp_path
    assert torch.equal(checkpoint.read(BASE + "mlp.c_fc.weight").dense(), expected)


def test_names_of_a_language_model(tmp_path):
    inner = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"q_proj": nn.Linear(4, 4)})])})
    save_adapter(tmp_path, nn.ModuleDict({"model": inner}), target_modules=["q_proj"])
    checkpoint = open_checkpoint(tmp_path)
    assert dict(checkpoint.source_names) == {"layers.0.q_proj.weight": "model.layers.0.q_proj.weight"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_factors_are_scaled_in_float32(tmp_path, dtype):
    save_adapter(tmp_path, target_modules=["c_fc"], use_rslora=True, r=3)
    weights = tmp_path / "adapter_model.safetensors"
    half = {name: tensor.to(dtype) for name, tensor in load_file(weights).items()}
    save_file(half, weights)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.infos[BASE + "mlp.c_fc.weight"].dtype == dtype
    factors = checkpoint.read(BASE + "mlp.c_fc.weight")
    b = half[f"base_model.model.{BASE}mlp.c_fc.lora_B.weight"]
    assert torch.equal(factors.left, b.float() * (4 / math.sqrt(3)))
    assert factors.dtype == torch.float32


def test_fingerprint_sees_the_settings(tmp_path):
    save_adapter(tmp_path / "a", target_modules=["c_fc"])
    save_adapter(tmp_path / "b", target_modules=["c_fc"], lora_alpha=8)
    assert open_checkpoint(tmp_path / "a").fingerprint != open_checkpoint(tmp_path / "b").fingerprint


def test_a_forgotten_neighbour_is_told(tmp_path):
    save_adapter(tmp_path, target_modules=["c_fc"])
    torch.save({"mm_projector.weight": torch.ones(2)}, tmp_path / "non_lora_trainables.bin")
    assert "non_lora_trainables.bin" in open_checkpoint(tmp_path).notes[0]


REAL_BUT_UNSUPPORTED = {
    "PiSSA": ({"target_modules": ["c_fc"], "init_lora_weights": "pissa"}, "initialised with pissa"),
}


@pytest.mark.parametrize(("settings", "message"), REAL_BUT_UNSUPPORTED.values(), ids=REAL_BUT_UNSUPPORTED)
def test_unsupported_adapters_are_refused_by_name(tmp_path, settings, message):
    save_adapter(tmp_path, **settings)
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path)


CONFIG_DAMAGE = {
    "biases of the factors": ({"lora_bias": True}, "lora_bias"),
    "replicated layers": ({"layer_replication": [[0, 2]]}, "layer replication"),
    "other kind": ({"peft_type": "IA3"}, "got IA3"),
    "no rank": ({"r": None}, "a whole number of at least 1, got nothing"),
    "rank 0": ({"r": 0}, "a whole number of at least 1, got 0"),
    "DoRA without its lengths": ({"use_dora": True}, "uses DoRA: expected lora_magnitude_vector of"),
    "alpha text": ({"lora_alpha": "four"}, 'got the text "four"'),
    "alpha infinite": ({"lora_alpha": math.inf}, "expected a finite lora_alpha"),
    "other rank": ({"r": 5}, "Expected factors of rank 5"),
    "patterns no table": ({"rank_pattern": [1]}, "expected a table of patterns"),
    "pattern no expression": ({"alpha_pattern": {"(": 1}}, "is damaged"),
}


@pytest.mark.parametrize(("change", "message"), CONFIG_DAMAGE.values(), ids=CONFIG_DAMAGE)
def test_damaged_settings(tmp_path, change, message):
    save_adapter(tmp_path, target_modules=["c_fc"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


A = f"base_model.model.{BASE}mlp.c_fc.lora_A.weight"
B = f"base_model.model.{BASE}mlp.c_fc.lora_B.weight"
WEIGHTS_DAMAGE = {
    "no factors": ({}, "found none"),
    "one factor": ({A: torch.ones(2, 8)}, "without the other"),
    "two adapters": (
        {A: torch.ones(2, 8), B: torch.ones(16, 2), A.replace("A.w", "A.second.w"): torch.ones(2, 8)},
        "two factors A",
    ),
    "one weight twice": (
        {key: tensor for cut in (0, 17) for key, tensor in {A[cut:]: torch.ones(2, 8), B[cut:]: torch.ones(16, 2)}.items()},
        "found two",
    ),
    "integers": ({A: torch.ones(2, 8).long(), B: torch.ones(16, 2)}, "floating-point factors"),
    "one dimension": ({A: torch.ones(2), B: torch.ones(16, 2)}, "not a matrix"),
    "something else": (
        {A: torch.ones(2, 8), B: torch.ones(16, 2), B.replace(".weight", ".bias"): torch.ones(2)},
        "holds base_model.*bias",
    ),
}


@pytest.mark.parametrize(("state", "message"), WEIGHTS_DAMAGE.values(), ids=WEIGHTS_DAMAGE)
def test_damaged_weights(tmp_path, state, message):
    save_adapter(tmp_path, target_modules=["c_fc"])
    save_file(state, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path)


def test_an_adapter_without_weights(tmp_path):
    LoraConfig(target_modules=["c_fc"]).save_pretrained(str(tmp_path))
    with pytest.raises(InputError, match="found neither"):
        open_checkpoint(tmp_path)


def test_factors_anywhere_else_are_refused(tmp_path):
    # Two files of factors without settings are not a sharded model.
    for number in (1, 2):
        name = f"blocks.{number}.lora_A.weight"
        save_file({name: torch.ones(2, 2)}, tmp_path / f"m{number}.safetensors")
    with pytest.raises(InputError, match="holds LoRA factors"):
        open_checkpoint(tmp_path)


def test_an_adapter_is_told_where_only_whole_weights_will_do(tmp_path):
    save_adapter(tmp_path, target_modules=["attn"])
    adapter = open_checkpoint(tmp_path)
    with pytest.raises(InputError, match="Expected a model of whole weights, got the LoRA adapter"):
        adapter.tensor(next(iter(adapter.infos)))


def test_low_rank_by_hand():
    factors = LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0, 5.0]]))
    assert (factors.shape, factors.rank) == ((2, 3), 1)
    assert torch.equal(factors.dense(), torch.tensor([[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]))
    assert factors.to(torch.float64).dense().dtype == torch.float64
    with pytest.raises(ValueError, match=r"\(2, 1\) and \(2, 3\)"):
        LowRank(torch.ones(2, 1), torch.ones(2, 3))


def test_names_belong_to_the_base(tmp_path):
    save_adapter(tmp_path, target_modules=["c_fc", "attn", "token_embedding"])
    shapes = {name: tuple(tensor.shape) for name, tensor in Tiny().state_dict().items()}
    for name, info in open_checkpoint(tmp_path).infos.items():
        assert shapes[name] == info.shape


@pytest.mark.parametrize("pattern", ["(a+)+b", "(.*)*x", "(a|aa)+$", "(.*a){20}"])
def test_a_pattern_is_matched_in_linear_time(tmp_path, pattern):
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {pattern: 3}, "alpha_pattern": {pattern: 6}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    found = AdapterSettings.open(tmp_path / "adapter_config.json")
    assert found.rank_of("attn." + "a" * 5000 + "!") == 2


@pytest.mark.parametrize(
    ("pattern", "module", "matches"),
    [
        ("q_proj", "layers.0.q_proj", True),
        ("q_proj", "layers.0.xq_proj", False),
        ("0.q_proj", "layers.0.q_proj", True),
        ("q_proj|v_proj", "v_proj", True),
        (r"layers\.[01]\..*", "model.layers.1.mlp", True),
        (r"layers\.[01]\..*", "model.layers.2.mlp", False),
        ("^q_proj", "q_proj", True),
    ],
)
def test_a_pattern_means_what_it_means_in_peft(tmp_path, pattern, module, matches):
    assert bool(re.match(rf"(.*\.)?({pattern})$", module)) is matches
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {pattern: 3}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert AdapterSettings.open(tmp_path / "adapter_config.json").rank_of(module) == (3 if matches else 2)


@pytest.mark.parametrize("pattern", ["(", "(?=q)q_proj", r"(q)\1", "a{2000}", "\ud800"])
def test_a_pattern_without_such_a_bound_is_refused(tmp_path, pattern):
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {pattern: 3}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="regular expression that can be matched in linear time"):
        AdapterSettings.open(tmp_path / "adapter_config.json")


C_FC = "visual.transformer.resblocks.0.mlp.c_fc"


@pytest.mark.parametrize(
    ("change", "extra", "message"),
    [
        ({"modules_to_save": ["classifier"]}, {}, "name classifier as trained in full .* the file holds none of them"),
        ({}, {f"base_model.model.{C_FC}.bias": torch.ones(16)}, f"holds {C_FC}.bias, whose settings say that no bias"),
    ],
)
def test_settings_that_the_file_does_not_hold(tmp_path, change, extra, message):
    folder = tmp_path / "a"
    save_adapter(folder, target_modules=["c_fc"])
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    weights = folder / "adapter_model.safetensors"
    save_file({**load_file(weights), **extra}, weights)
    with pytest.raises(InputError, match=message):
        open_checkpoint(folder)
