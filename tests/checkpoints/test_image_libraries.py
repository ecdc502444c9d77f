"""LoRA files as the libraries of image models write them, merged beside those libraries' own arithmetic in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import dcmerge
from dcmerge.checkpoints import dense

#: PEFT asks transformers by a name that it is about to lose.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def tiny_unet(diffusers: Any) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip


def adapted(unet: Any, seed: int, targets: list[str]) -> Any:
    from peft import LoraConfig

    torch.manual_seed(seed)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False))
    return unet


def test_diffusers_own_files(tmp_path: Path) -> None:
    """``save_lora_weights`` of a pipeline: attention and convolutions, alpha in the metadata or as the rank."""
    diffusers = pytest.importorskip("diffusers")
    loaders = pytest.importorskip("diffusers.loaders")
    from peft import get_peft_model_state_dict

    targets = ["to_q", "to_v", "conv1"]
    base = tiny_unet(diffusers)
    base.save_pretrained(tmp_path / "unet")
    wanted: dict[str, torch.Tensor] = {}
    for seed, name in enumerate(("style", "person"), start=1):
        unet = adapted(tiny_unet(diffusers), seed, targets)
        layers = get_peft_model_state_dict(unet)
        metadata = {"unet_lora_adapter_metadata": unet.peft_config["default"].to_dict()}
        loaders.StableDiffusionLoraLoaderMixin.save_lora_weights(tmp_path / name, unet_lora_layers=layers, **metadata)
        for key, module in unet.named_modules():
            if hasattr(module, "get_delta_weight"):
                weight = f"{key}.weight"
                wanted[weight] = wanted.get(weight, 0) + module.get_delta_weight("default").detach().double() / 2
    vectors = dcmerge.TaskVectors.open(tmp_path / "unet", {name: tmp_path / name for name in ("style", "person")})
    assert {*vectors.parameters} == {*wanted}
    merged = dcmerge.merge(vectors, "average")
    merged.save(tmp_path / "out.safetensors")
    found, before = load_file(tmp_path / "out.safetensors"), base.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(found[name].double(), value.double() + wanted.get(name, 0), rtol=0, atol=1e-5)
    merged.save_adapter(tmp_path / "out_lora.safetensors")
    state, alphas = loaders.StableDiffusionLoraLoaderMixin.lora_state_dict(str(tmp_path / "out_lora.safetensors"))
    again = tiny_unet(diffusers)
    loaders.StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, alphas, again)
    for key, module in again.named_modules():
        if hasattr(module, "get_delta_weight"):
            (adapter,) = module.lora_A
            got = module.get_delta_weight(adapter).detach().double()
            torch.testing.assert_close(got, wanted[f"{key}.weight"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_files_of_lycoris(algorithm: str, tmp_path: Path) -> None:
    """LyCORIS' flat names and scale: a layer with our delta answers as its trained layer does.

    Its own ``merge_to`` multiplies LoHa and LoKr by their scale twice (3.4), unlike its forward pass.
    """
    lycoris = pytest.importorskip("lycoris")

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        block = torch.nn.ModuleDict({"to_q": torch.nn.Linear(8, 12), "conv": torch.nn.Conv2d(3, 6, 3)})
        return torch.nn.ModuleDict({"mid_block": block, "to_out": torch.nn.Linear(12, 4)})

    base = network().state_dict()
    save_file(base, tmp_path / "base.safetensors")
    model = network()
    lycoris.LycorisNetwork.apply_preset({"enable_conv": True, "target_module": ["Linear", "Conv2d"]})
    wrapped = lycoris.create_lycoris(model, 1.0, linear_dim=2, linear_alpha=1.0, algo=algorithm, factor=2)
    wrapped.apply_to()
    with torch.no_grad():
        for value in wrapped.parameters():
            value.copy_(0.3 * torch.randn_like(value))
    wrapped.save_weights(str(tmp_path / "a.safetensors"), torch.float32, {})
    vectors = dcmerge.TaskVectors.open(tmp_path / "base.safetensors", {"a": tmp_path / "a.safetensors"})
    assert {*vectors.parameters} == {key for key in base if key.endswith("weight")}
    inputs = {"mid_block.to_q": torch.randn(2, 8), "mid_block.conv": torch.randn(2, 3, 5, 5), "to_out": torch.randn(2, 12)}
    plain = network()
    with torch.no_grad():
        for name, given in inputs.items():
            layer, weight = plain.get_submodule(name), base[f"{name}.weight"]
            moved = weight + dense(vectors.delta(f"{name}.weight", "a")).reshape(weight.shape)
            layer.load_state_dict({"weight": moved, "bias": base[f"{name}.bias"]})
            assert not torch.equal(moved, weight)
            torch.testing.assert_close(layer(given), model.get_submodule(name)(given), rtol=1e-4, atol=1e-5)
