"""Dialects of LoRA: each delta is that of the library that writes the file, and a merged one goes back in the same dialect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dcmerge
from dcmerge.checkpoints import LoraCheckpoint, LowRank, dense, open_checkpoint
from dcmerge.errors import InputError
from tests.builders import write


def filled(model: nn.Module, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(torch.randn(value.shape, generator=draw) * (0.3 if "magnitude" not in name else 1.0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"to_q": nn.Linear(6, 8), "conv": nn.Conv2d(3, 4, 3)})])
        self.table = nn.Embedding(7, 5)
        self.head = nn.Linear(6, 2)


def by_peft(config: object, folder: Path, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The base's weights in float64, and those that PEFT's own merge gives; the adapter is saved in ``folder``."""
    torch.manual_seed(0)
    base = Net()
    before = {name: value.detach().clone().double() for name, value in base.state_dict().items()}
    wrapped = get_peft_model(base, config)
    filled(wrapped, seed)
    wrapped.save_pretrained(str(folder))
    after = wrapped.double().merge_and_unload().state_dict()
    return before, {name: after[name] for name in before}


CONFIGS = {
    "linear": LoraConfig(r=2, lora_alpha=3, target_modules=["to_q"]),
    "convolution": LoraConfig(r=2, lora_alpha=3, target_modules=["conv"]),
    "embedding": LoraConfig(r=2, lora_alpha=3, target_modules=["table"]),
    "all": LoraConfig(r=3, lora_alpha=2, use_rslora=True, target_modules=["to_q", "conv", "table"]),
    "LoHa": LoHaConfig(r=2, alpha=3, target_modules=["to_q", "conv"]),
    "LoKr": LoKrConfig(r=2, alpha=3, target_modules=["to_q", "conv"]),
    "LoKr in parts": LoKrConfig(r=1, alpha=3, decompose_both=True, decompose_factor=2, target_modules=["to_q"]),
    "LoKr of effective convolutions": LoKrConfig(r=2, alpha=3, use_effective_conv2d=True, target_modules=["conv"]),
    "LoHa of effective convolutions": LoHaConfig(r=2, alpha=3, use_effective_conv2d=True, target_modules=["conv"]),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_delta_is_what_peft_adds(kind: str, tmp_path: Path) -> None:
    before, after = by_peft(CONFIGS[kind], tmp_path)
    adapter = open_checkpoint(tmp_path)
    assert isinstance(adapter, LoraCheckpoint)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(adapter.adapted) == changed
    for name in changed:
        value = adapter.read(name)
        assert isinstance(value, LowRank) and value.rank == adapter.rank_of(name) <= min(value.shape)
        wanted = (after[name] - before[name]).flatten(1)
        torch.testing.assert_close(value.dense().double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_merged_model_is_the_mean_of_what_peft_makes(kind: str, tmp_path: Path) -> None:
    before, one = by_peft(CONFIGS[kind], tmp_path / "one", 1)
    _, two = by_peft(CONFIGS[kind], tmp_path / "two", 2)
    base = write(tmp_path / "base.safetensors", {name: value.float() for name, value in before.items()})
    vectors = dcmerge.TaskVectors.open(base, {"one": tmp_path / "one", "two": tmp_path / "two"})
    dcmerge.merge(vectors, "average").save(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(found[name].double(), (one[name] + two[name]) / 2, rtol=1e-5, atol=1e-5)
        assert found[name].shape == value.shape


def test_dora_by_its_formula_with_the_base(tmp_path: Path) -> None:
    config = LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["to_q", "conv"])
    before, one = by_peft(config, tmp_path / "one", 1)
    _, two = by_peft(config, tmp_path / "two", 2)
    base = write(tmp_path / "base.safetensors", {name: value.float() for name, value in before.items()})
    experts = {"one": tmp_path / "one", "two": tmp_path / "two"}
    vectors = dcmerge.TaskVectors.open(base, experts)
    assert vectors.kind == "full"
    dcmerge.merge(vectors, "average").save(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    for name in before:
        torch.testing.assert_close(found[name].double(), (one[name] + two[name]) / 2, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="one, two uses DoRA, whose changes need the base"):
        dcmerge.TaskVectors.open(None, experts)


def test_whole_tensors_beside_the_factors(tmp_path: Path) -> None:
    """modules_to_save and biases: averaged beside the base, left out and told without it."""
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], modules_to_save=["head"], bias="lora_only")
    before, one = by_peft(config, tmp_path / "one", 1)
    _, two = by_peft(config, tmp_path / "two", 2)
    base = write(tmp_path / "base.safetensors", {name: value.float() for name, value in before.items()})
    experts = {"one": tmp_path / "one", "two": tmp_path / "two"}
    vectors = dcmerge.TaskVectors.open(base, experts)
    merged = dcmerge.merge(vectors, "average")
    merged.save(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    for name in before:
        torch.testing.assert_close(found[name].double(), (one[name] + two[name]) / 2, rtol=1e-5, atol=1e-5)
    merged.save_adapter(tmp_path / "adapter")
    again = dcmerge.merge(dcmerge.TaskVectors.open(base, {"merged": tmp_path / "adapter"}), "average")
    for name, delta in again.deltas.items():
        torch.testing.assert_close(dense(delta), dense(merged.deltas[name]), rtol=1e-4, atol=1e-5)
    alone = dcmerge.TaskVectors.open(None, experts)
    assert set(alone.parameters) == {"blocks.0.to_q.weight"}
    assert any("trained in full beside the factors" in finding.text for finding in alone.report.findings)


KOHYA = "lora_unet_down_blocks_0_attn1_to_q"
FORMS = {
    "kohya": (KOHYA, ".lora_down.weight", ".lora_up.weight", True),
    "diffusers": ("unet.down_blocks.0.attn1.to_q", ".lora_A.weight", ".lora_B.weight", False),
    "diffusers before 0.20": ("unet.down_blocks.0.attn1.processor.to_q", "_lora.down.weight", "_lora.up.weight", False),
    "ai-toolkit": ("transformer.single_blocks.0.attn.to_q", ".lora_A.weight", ".lora_B.weight", False),
    "ComfyUI": ("diffusion_model.double_blocks.0.attn.to_q", ".lora_down.weight", ".lora_up.weight", True),
}


def lora_file(path: Path, form: str, seed: int, alpha: float = 3.0) -> tuple[Path, Tensor]:
    """A LoRA file with a matrix and a convolution in one dialect, and the matrix's delta."""
    module, down, up, has_alpha = FORMS[form]
    draw = torch.Generator().manual_seed(seed)
    A, B = torch.randn(2, 6, generator=draw), torch.randn(8, 2, generator=draw)
    conv = module.replace("to_q", "conv_in")
    own = {module + down: A, module + up: B, conv + down: torch.randn(2, 3, 3, 3, generator=draw)}
    own |= {conv + up: torch.randn(4, 2, 1, 1, generator=draw)}
    own |= {f"{name}.alpha": torch.tensor(alpha) for name in (module, conv)} if has_alpha else {}
    save_file(own, path)
    return path, B @ A * (alpha / 2 if has_alpha else 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_files_of_image_models_come_back_in_their_dialect(form: str, tmp_path: Path) -> None:
    (first, one), (second, two) = (lora_file(tmp_path / f"{n}.safetensors", form, n) for n in (1, 2))
    vectors = dcmerge.TaskVectors.open(None, {"one": first, "two": second})
    merged = dcmerge.merge(vectors, "task_arithmetic")
    merged.save_adapter(tmp_path / "out.safetensors", scale=0.5)
    found, before = load_file(tmp_path / "out.safetensors"), load_file(first)
    assert set(found) == set(before)
    module, down, up, has_alpha = FORMS[form]
    A, B = found[module + down], found[module + up]
    scale = found[f"{module}.alpha"] / len(A) if has_alpha else 1.0
    torch.testing.assert_close(B @ A * scale, (one + two) / 2, rtol=1e-4, atol=1e-5)
    conv = module.replace("to_q", "conv_in")
    assert found[conv + down].shape[1:] == (3, 3, 3) and found[conv + up].shape[2:] == (1, 1)


def test_kohyas_flat_names_meet_the_base(tmp_path: Path) -> None:
    base = {"down_blocks.0.attn1.to_q.weight": torch.ones(8, 6), "down_blocks.0.attn1.conv_in.weight": torch.zeros(4, 3, 3, 3)}
    base |= {"down_blocks.0.attn1_to.q.bias": torch.zeros(2)}
    (first, one), (second, two) = (lora_file(tmp_path / f"{n}.safetensors", "kohya", n) for n in (1, 2))
    vectors = dcmerge.TaskVectors.open(write(tmp_path / "unet.safetensors", base), {"one": first, "two": second})
    assert set(vectors.parameters) == {"down_blocks.0.attn1.to_q.weight", "down_blocks.0.attn1.conv_in.weight"}
    dcmerge.merge(vectors, "average").save(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(found["down_blocks.0.attn1.to_q.weight"], 1 + (one + two) / 2, rtol=1e-4, atol=1e-5)
    assert found["down_blocks.0.attn1.conv_in.weight"].shape == (4, 3, 3, 3)


def test_lycoris_flat_names_meet_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.safetensors", {"mid_block.to_q.weight": torch.zeros(6, 8)})
    down, up = torch.randn(2, 8), torch.randn(6, 2)
    module = "lycoris_mid_block_to_q"
    own = {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up, f"{module}.alpha": torch.tensor(1.0)}
    write(tmp_path / "a.safetensors", own)
    vectors = dcmerge.TaskVectors.open(tmp_path / "base.safetensors", {"a": tmp_path / "a.safetensors"})
    torch.testing.assert_close(dense(vectors.delta("mid_block.to_q.weight", "a")), 0.5 * up @ down)


def test_a_part_that_the_base_lacks_is_left_out(tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", "kohya", 1)
    text = "lora_te_encoder_layers_0_q_proj"
    own = load_file(path) | {f"{text}.lora_down.weight": torch.ones(2, 5), f"{text}.lora_up.weight": torch.ones(5, 2)}
    save_file(own, path)
    base = {"down_blocks.0.attn1.to_q.weight": torch.ones(8, 6), "down_blocks.0.attn1.conv_in.weight": torch.zeros(4, 3, 3, 3)}
    vectors = dcmerge.TaskVectors.open(write(tmp_path / "unet.safetensors", base), {"a": path})
    assert len(vectors.parameters) == 2
    assert any("lora_te_* are left out" in finding.text for finding in vectors.report.warnings)


def test_the_metadata_tells_alpha(tmp_path: Path) -> None:
    module, down, up, _ = FORMS["diffusers"]
    own = {module + down: torch.ones(2, 6), module + up: torch.ones(8, 2)}
    for number, (metadata, scale) in enumerate(
        [({}, 1.0), ({"lora_adapter_metadata": '{"unet.lora_alpha": 4, "unet.r": 2}'}, 2.0), ({"ss_network_alpha": "1"}, 0.5)]
    ):
        save_file(own, tmp_path / f"{number}.safetensors", metadata=metadata)
        value = open_checkpoint(tmp_path / f"{number}.safetensors").read(f"{module}.weight")
        torch.testing.assert_close(dense(value), torch.full((8, 6), 2 * scale))


DAMAGE = {
    "one factor": ({f"{KOHYA}.lora_down.weight": torch.ones(2, 6)}, "without the other"),
    "other ranks": (
        {f"{KOHYA}.lora_down.weight": torch.ones(2, 6), f"{KOHYA}.lora_up.weight": torch.ones(8, 3)},
        "factors of one rank",
    ),
    "something else": (
        {f"{KOHYA}.lora_down.weight": torch.ones(2, 6), f"{KOHYA}.lora_up.weight": torch.ones(8, 2), "x.y": torch.ones(1)},
        "holds x.y, which is no factor",
    ),
    "half an operand": (
        {f"{KOHYA}.hada_w1_a": torch.ones(2, 6), f"{KOHYA}.hada_w1_b": torch.ones(8, 2), f"{KOHYA}.hada_w2_a": torch.ones(1)},
        "incomplete",
    ),
}


@pytest.mark.parametrize(("own", "told"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files(own: dict[str, Tensor], told: str, tmp_path: Path) -> None:
    save_file(own, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=told):
        open_checkpoint(tmp_path / "a.safetensors")


def test_files_of_two_dialects_are_not_mixed(tmp_path: Path) -> None:
    files = {form: lora_file(tmp_path / f"{form}.safetensors", form, 1)[0] for form in ("kohya", "diffusers")}
    with pytest.raises(InputError, match="of one dialect, got several"):
        dcmerge.TaskVectors.open(None, files)
