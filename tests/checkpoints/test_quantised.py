"""Weights of a few bits are refused by the name of what made them, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dcmerge.checkpoints import open_checkpoint
from dcmerge.errors import InputError
from tests.checkpoints.builders import tiny_state, write_header

INTEGERS = torch.ones(2, 2, dtype=torch.int32)
PACKED = {"qweight": INTEGERS, "qzeros": INTEGERS[:1].clone(), "scales": torch.ones(1, 2)}
BYTES = torch.ones(4, 1, dtype=torch.uint8)

QUANTISED = {
    "fp8": ({"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, r"fp8 weights \(float8_e4m3fn\) \(a\.weight\)"),
    "fp8, the other": ({"a.weight": torch.ones(2, 2).to(torch.float8_e5m2)}, r"fp8 weights \(float8_e5m2\)"),
    "4-bit bitsandbytes": (
        {"a.weight.absmax": torch.ones(1), "a.weight": BYTES, "a.weight.quant_state.bitsandbytes__nf4": BYTES.clone()},
        "4-bit weights of bitsandbytes",
    ),
    "8-bit bitsandbytes": ({"a.SCB": torch.ones(2), "a.b": torch.ones(2)}, "8-bit weights of bitsandbytes"),
    "GPTQ": ({f"a.{n}": v for n, v in {**PACKED, "g_idx": INTEGERS[0].clone()}.items()}, r" GPTQ weights \(a\.qweight"),
    "AWQ": ({f"a.{n}": v for n, v in PACKED.items()}, r"AWQ or GPTQ weights \(a\.qweight\)"),
    "compressed": ({"a.weight_packed": torch.ones(2, 2, dtype=torch.int32)}, "packed weights of compressed-tensors"),
    "integers": ({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, r"weights of integers \(int8\)"),
    "scales alone": ({"a.weight_scale_inv": torch.ones(2, 2)}, "the scales of quantised weights"),
}


@pytest.mark.parametrize(("tensors", "told"), QUANTISED.values(), ids=QUANTISED)
def test_they_are_refused_by_name(tmp_path: Path, tensors: dict[str, torch.Tensor], told: str) -> None:
    save_file({**tiny_state(), **tensors}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=told) as caught:
        open_checkpoint(tmp_path / "a.safetensors")
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "float32, bfloat16 or float16" in text


def test_a_state_dict_too(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="fp8 weights"):
        open_checkpoint(tmp_path / "a.pt")


def test_codes_that_torch_does_not_read_are_named(tmp_path: Path) -> None:
    write_header(tmp_path / "a.safetensors", {"w": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}, 4)
    with pytest.raises(InputError, match="has the dtype F8_E8M0"):
        open_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [
        {"embeddings.position_ids": torch.arange(4)[None]},
        {"bn.num_batches_tracked": torch.tensor(3)},
        {"attn.relative_position_index": torch.ones(2, 2, dtype=torch.int64)},
        {"logit_scale": torch.tensor(1.0)},
        {"mask.weight": torch.ones(3, dtype=torch.bool)},
        {"scales": torch.ones(3)},
    ],
)
def test_plain_buffers_of_integers_are_none(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({**tiny_state(), **tensors}, tmp_path / "a.safetensors")
    assert len(open_checkpoint(tmp_path / "a.safetensors").infos) == len(tiny_state()) + 1
