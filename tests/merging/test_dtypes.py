"""Sets in half precision and mixed ones merge like their float32 twins, and what 16 bits lose of a merge is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.errors import InputError
from dcmerge.merging.merge import merge
from dcmerge.merging.output import Rounding
from dcmerge.methods import methods
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import SHAPES, lora_set, random_deltas, random_factors, random_tensors, relative_error, write

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WEIGHTS_ONLY = [slug for slug, method in methods().items() if set(method.needs) <= {"weights", "base", "task"}]
#: Powers of two that all three dtypes hold.
STEP = 2.0**-8


def rounded(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) for name, value in tensors.items()}


def mixed_set(folder: Path) -> tuple[TaskVectors, TaskVectors]:
    """A bfloat16 base, a float16 and a float32 expert, in which single parameters are of the other dtypes; its float32 twin."""
    deltas, base = random_deltas(2), rounded(random_tensors(5, scale=2.0), torch.bfloat16)
    base |= {"visual.ln.bias": base["visual.ln.bias"].float(), "logit_scale": base["logit_scale"].half()}
    half = {n: (base[n].float() + d).half() for n, d in deltas["task0"].items()}
    single = {n: base[n].float() + d for n, d in deltas["task1"].items()}
    single["visual.attn.out_proj.weight"] = single["visual.attn.out_proj.weight"].bfloat16()
    sets = {"base": base, "half": half, "single": single}
    mixed = {name: write(folder / "mixed" / f"{name}.safetensors", own) for name, own in sets.items()}
    twins = {n: write(folder / "twin" / f"{n}.safetensors", own, dtype=torch.float32) for n, own in sets.items()}
    return tuple(TaskVectors.open(paths["base"], {n: paths[n] for n in ("half", "single")}) for paths in (mixed, twins))


@pytest.mark.parametrize("slug", WEIGHTS_ONLY)
def test_a_mixed_set_merges_as_its_float32_twin(tmp_path: Path, slug: str) -> None:
    mixed, twin = mixed_set(tmp_path)
    if methods()[slug].obstacle(mixed):
        pytest.skip("the method does not merge such a set")
    found, wanted = merge(mixed, slug), merge(twin, slug)
    for name in SHAPES:
        assert torch.equal(dense(found.deltas[name]), dense(wanted.deltas[name])), name
    whose = {"task": "half"} if found.modules else {}
    found.save(tmp_path / "out.safetensors", scale=methods()[slug].usual_scale, **whose)
    base, written = load_file(tmp_path / "mixed" / "base.safetensors"), load_file(tmp_path / "out.safetensors")
    assert {n: v.dtype for n, v in written.items()} == {n: v.dtype for n, v in base.items()}
    assert any("dtype" in finding.what for finding in mixed.report.warnings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slug", ["average", "tsv_m", "dc_merge", "knots", "robustmerge"])
def test_adapters_of_every_dtype(tmp_path: Path, slug: str, dtype: torch.dtype) -> None:
    factors = {t: {n: (B.to(dtype), A.to(dtype)) for n, (B, A) in random_factors(s).items()} for s, t in enumerate("ab")}
    widened = {t: {n: (B.float(), A.float()) for n, (B, A) in own.items()} for t, own in factors.items()}
    found, wanted = (merge(lora_set(tmp_path / str(place), own), slug) for place, own in enumerate((factors, widened)))
    for name, delta in wanted.deltas.items():
        assert relative_error(dense(found.deltas[name]), dense(delta)) < 1e-6


def set_of(folder: Path, base: Tensor, delta: Tensor, dtype: torch.dtype) -> TaskVectors:
    """One matrix, the base in ``dtype`` and the expert in float32, so that every delta survives its file."""
    start = write(folder / "base.safetensors", {"w": base}, dtype=dtype)
    return TaskVectors.open(start, {"a": write(folder / "a.safetensors", {"w": base + delta})})


def test_the_shares_that_are_lost_by_hand(tmp_path: Path) -> None:
    """bfloat16 holds 1 + k/128: of four entries two move by a whole step, one by less than half of it, one not at all."""
    delta = torch.tensor([[STEP * 2, -STEP * 4, STEP / 4, 0.0]])
    written = merge(set_of(tmp_path, torch.ones(1, 4), delta, torch.bfloat16), "task_arithmetic").save(tmp_path / "o.safetensors")
    found = written.rounding
    assert (found.entries, found.unchanged, found.dtypes) == (3, 1, {"bfloat16"})
    assert found.lost_share == pytest.approx((STEP / 4) / delta.norm().item())
    assert found.unchanged_share == pytest.approx(1 / 3) and found.is_large
    (note,) = (note for note in written.notes if "rounding" in note)
    assert note.startswith("warning: rounding to bfloat16") and "33.3 % of its nonzero entries" in note and "10 %" in note


def test_a_delta_below_the_steps_of_the_dtype_is_lost_whole(tmp_path: Path) -> None:
    vectors = set_of(tmp_path, torch.ones(8, 8), torch.full((8, 8), 1e-4), torch.bfloat16)
    merged = merge(vectors, "average")
    found = merged.save(tmp_path / "own.safetensors").rounding
    assert (found.unchanged_share, found.is_large) == (1.0, True) and found.lost_share == pytest.approx(1.0, rel=1e-3)
    assert merged.rounding(1.0).unchanged == found.unchanged == 64
    wide = merged.save(tmp_path / "wide.safetensors", dtype="float32")
    assert wide.rounding is None and load_file(tmp_path / "wide.safetensors")["w"].dtype == torch.float32
    assert (load_file(tmp_path / "wide.safetensors")["w"] - 1).min() > 9e-5


def test_float16_keeps_more_than_bfloat16(tmp_path: Path) -> None:
    base, delta = torch.randn(32, 32), 0.02 * torch.randn(32, 32)
    merged = merge(set_of(tmp_path, base, delta, torch.float32), "average")
    half, brain = (merged.save(tmp_path / f"{name}.safetensors", dtype=name).rounding for name in ("float16", "bfloat16"))
    assert 0 < half.lost_share < brain.lost_share / 4
    assert not half.is_large and half.text.startswith("rounding to float16")
    assert merged.save(tmp_path / "own.safetensors").rounding is None
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        written = load_file(tmp_path / f"{name}.safetensors")["w"]
        wanted = load_file(tmp_path / "own.safetensors")["w"].to(dtype)
        assert torch.equal(written, wanted)


def test_nothing_is_lost_of_no_delta() -> None:
    found = Rounding()
    found.add(torch.ones(3), torch.zeros(3), torch.ones(3), torch.ones(3).bfloat16())
    assert (found.lost_share, found.unchanged_share, found.text, found.is_large) == (0.0, 0.0, "", False)


def test_integers_stay_and_what_overflows_is_refused(tmp_path: Path) -> None:
    base = {"w": torch.ones(2, 2), "other": torch.full((2,), 1e6), "steps": torch.tensor([7])}
    start = write(tmp_path / "base.safetensors", base)
    expert = write(tmp_path / "a.safetensors", {**base, "w": base["w"] + 1})
    merged = merge(TaskVectors.open(start, {"a": expert}), "average")
    merged.save(tmp_path / "o.safetensors", dtype="bfloat16")
    assert {n: v.dtype for n, v in load_file(tmp_path / "o.safetensors").items()} == {
        "w": torch.bfloat16,
        "other": torch.bfloat16,
        "steps": torch.int64,
    }
    with pytest.raises(InputError, match="leaves the range of torch.float16"):
        merged.save(tmp_path / "half.safetensors", dtype="float16")
    assert not (tmp_path / "half.safetensors").exists()
    with pytest.raises(InputError, match=r"dtype: expected one of float32, bfloat16, float16, for a whole model, got 'int8'"):
        merged.save(tmp_path / "half.safetensors", dtype="int8")
    with pytest.raises(InputError, match="for a whole model, got 'float16' for the delta"):
        merged.save(tmp_path / "half.safetensors", dtype="float16", delta_only=True)


def test_a_folders_settings_name_the_dtype_that_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    write(folder / "model.safetensors", {"w": torch.ones(2, 2)})
    (folder / "config.json").write_text('{"model_type": "clip", "torch_dtype": "float32"}')
    expert = write(tmp_path / "a.safetensors", {"w": torch.zeros(2, 2)})
    merge(TaskVectors.open(folder, {"a": expert}), "average").save(tmp_path / "out", dtype="bfloat16")
    assert '"torch_dtype": "bfloat16"' in (tmp_path / "out" / "config.json").read_text()
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].dtype == torch.bfloat16
