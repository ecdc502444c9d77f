"""Fused and split q, k, v are different merges of the same files, and the file that is written has the base's own scheme."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dcmerge.checkpoints import dense, open_checkpoint
from dcmerge.checkpoints.regrouped import in_stored_scheme, regrouped, stored_names
from dcmerge.checkpoints.schemes import hugging_face_weights
from dcmerge.checkpoints.state_dicts import StateDictFile
from dcmerge.errors import InputError
from dcmerge.merging.merge import merge
from dcmerge.merging.recipe import METADATA_KEY, Recipe
from dcmerge.methods import methods
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import random_deltas, random_factors, random_tensors, write, write_adapter

FUSED = {
    "blocks.0.attn.in_proj_weight": (24, 8),
    "blocks.0.attn.in_proj_bias": (24,),
    "blocks.0.attn.out_proj.weight": (8, 8),
    "blocks.0.mlp.c_fc.weight": (16, 8),
    "logit_scale": (),
}
#: k before v before q, as transformers saves them; grouped queries: q has more rows than k and v.
SPLIT = {
    "layers.0.self_attn.k_proj.weight": (4, 8),
    "layers.0.self_attn.v_proj.weight": (4, 8),
    "layers.0.self_attn.q_proj.weight": (8, 8),
    "layers.0.self_attn.q_proj.bias": (8,),
    "layers.0.self_attn.k_proj.bias": (4,),
    "layers.0.self_attn.v_proj.bias": (4,),
    "layers.0.self_attn.o_proj.weight": (8, 8),
}
SCHEMES = {"fused": FUSED, "split": SPLIT}
OTHER = {"fused": "split", "split": "fused"}
WEIGHTS_ONLY = [slug for slug, method in methods().items() if set(method.needs) <= {"weights", "base"}]


def files(folder: Path, stored: str, suffix: str = ".safetensors") -> tuple[Path, dict[str, Path]]:
    base = random_tensors(9, SCHEMES[stored], scale=3.0)
    tensors = {
        "base": base,
        **{t: {n: base[n] + d for n, d in own.items()} for t, own in random_deltas(2, shapes=SCHEMES[stored]).items()},
    }
    if suffix == ".safetensors":
        paths = {name: write(folder / f"{name}{suffix}", own) for name, own in tensors.items()}
    else:
        paths = {name: folder / f"{name}{suffix}" for name in tensors}
        for name, path in paths.items():
            torch.save(tensors[name], path)
    return paths.pop("base"), paths


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("stored", SCHEMES)
def test_the_other_scheme_is_the_same_numbers(tmp_path: Path, stored: str, suffix: str) -> None:
    base, experts = files(tmp_path, stored, suffix)
    own, other = (TaskVectors.open(base, experts, qkv=qkv) for qkv in ("stored", OTHER[stored]))
    assert (own.qkv, own.qkv_stored, other.qkv, other.qkv_stored) == (stored, stored, OTHER[stored], stored)
    weights = [n for n in other.parameters if "in_proj_weight" in n or "q_proj.weight" in n]
    assert len(weights) == 1
    back = dict(other.as_stored((name, other.delta(name, "task0")) for name in other.parameters)[1])
    assert set(back) == set(own.parameters)
    assert all(torch.equal(back[name], own.delta(name, "task0")) for name in own.parameters)
    twin, _ = other.as_stored(())
    assert {n: p.shape for n, p in twin.parameters.items()} == {n: p.shape for n, p in own.parameters.items()}


def test_fused_rows_are_q_then_k_then_v_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    base, _ = files(tmp_path, "split")
    view, tensors = regrouped(open_checkpoint(base), "fused"), load_file(base)
    rows = [tensors[f"layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(view.read("layers.0.self_attn.in_proj_weight"), torch.cat(rows))


def test_asking_for_what_is_stored_changes_nothing(tmp_path: Path) -> None:
    base, _ = files(tmp_path, "fused")
    checkpoint = open_checkpoint(base)
    assert regrouped(checkpoint, "fused") is checkpoint is regrouped(checkpoint, "stored")


@pytest.mark.parametrize("slug", ["average", "task_arithmetic"])
@pytest.mark.parametrize("stored", SCHEMES)
def test_methods_of_single_entries_give_the_same_file(tmp_path: Path, stored: str, slug: str) -> None:
    base, experts = files(tmp_path, stored)
    for qkv in ("stored", OTHER[stored]):
        merge(TaskVectors.open(base, experts, qkv=qkv), slug).save(tmp_path / f"{qkv}.safetensors", scale=0.7)
    found, wanted = load_file(tmp_path / f"{OTHER[stored]}.safetensors"), load_file(tmp_path / "stored.safetensors")
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("slug", WEIGHTS_ONLY)
@pytest.mark.parametrize("stored", SCHEMES)
def test_every_method_writes_the_bases_own_scheme(tmp_path: Path, stored: str, slug: str) -> None:
    base, experts = files(tmp_path, stored)
    vectors = TaskVectors.open(base, experts, qkv=OTHER[stored])
    if methods()[slug].obstacle(vectors):
        pytest.skip("the method does not merge such a set")
    merged = merge(vectors, slug)
    whose = {"task": "task0"} if merged.modules else {}
    merged.save(tmp_path / "out.safetensors", scale=1.0, **whose)
    found, start = load_file(tmp_path / "out.safetensors"), load_file(base)
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in start.items()}
    assert any(not torch.equal(found[name], start[name]) for name in start if "attn" in name)


def test_it_is_another_merge_where_matrices_count_as_wholes(tmp_path: Path) -> None:
    base, experts = files(tmp_path, "fused")
    for qkv in ("split", "fused"):
        merge(TaskVectors.open(base, experts, qkv=qkv), "tsv_m").save(tmp_path / f"{qkv}.safetensors")
    split, fused = (load_file(tmp_path / f"{qkv}.safetensors") for qkv in ("split", "fused"))
    name = "blocks.0.attn.in_proj_weight"
    assert not torch.allclose(split[name], fused[name], atol=1e-3)
    assert torch.equal(split["blocks.0.mlp.c_fc.weight"], fused["blocks.0.mlp.c_fc.weight"])


def test_a_merge_of_one_model_under_both_schemes_is_the_same_model(tmp_path: Path) -> None:
    """The same CLIPs in open_clip's files and in Hugging Face's, merged the same way, give the same weights."""
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    models = {name: open_clip.CLIP(8, vision, text).state_dict() for name in ("base", "a", "b")}
    ours = {name: write(tmp_path / "oc" / f"{name}.safetensors", own) for name, own in models.items()}
    theirs = {name: write(tmp_path / "hf" / f"{name}.safetensors", hugging_face_weights(own)) for name, own in models.items()}
    for qkv in ("split", "fused"):
        for kind, paths in (("oc", ours), ("hf", theirs)):
            vectors = TaskVectors.open(paths["base"], {name: paths[name] for name in ("a", "b")}, qkv=qkv)
            merge(vectors, "tsv_m").save(tmp_path / f"{kind}.safetensors")
        wanted, found = hugging_face_weights(load_file(tmp_path / "oc.safetensors")), load_file(tmp_path / "hf.safetensors")
        assert set(found) == set(wanted)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-5)


def adapter_factors(seed: int, names: tuple[str, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    return random_factors(seed, shapes={f"layers.0.self_attn.{name}_proj.weight": (8, 6) for name in names})


def test_adapters_of_all_three_are_fused_as_blocks(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_adapter(tmp_path / f"a{seed}", adapter_factors(seed, ("q", "k", "v", "o")))
    experts = {f"a{seed}": tmp_path / f"a{seed}" for seed in (1, 2)}
    own, fused = (TaskVectors.open(None, experts, qkv=qkv) for qkv in ("stored", "fused"))
    assert (own.qkv, fused.qkv, fused.kind) == ("split", "fused", "lora")
    name = "layers.0.self_attn.in_proj_weight"
    delta = fused.delta(name, "a1")
    assert delta.rank == 6 == fused.experts["a1"].rank_of(name)
    rows = [own.delta(f"layers.0.self_attn.{part}_proj.weight", "a1").dense() for part in "qkv"]
    torch.testing.assert_close(delta.dense(), torch.cat(rows))
    merge(fused, "tsv_m").save(tmp_path / "delta.safetensors", delta_only=True)
    assert set(load_file(tmp_path / "delta.safetensors")) == set(own.parameters)
    merge(fused, "task_arithmetic").save_adapter(tmp_path / "merged")
    back = open_checkpoint(tmp_path / "merged")
    assert set(back.infos) == set(own.parameters)
    for name in own.parameters:
        wanted = sum(own.delta(name, task).dense() for task in experts)
        torch.testing.assert_close(back.read(name).dense(), wanted, atol=1e-4, rtol=1e-4)


def test_adapters_without_k_cannot_be_fused(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", adapter_factors(1, ("q", "v")))
    with pytest.raises(InputError, match=r"q, k and v together to make .*in_proj_weight .*got no .*k_proj\.weight"):
        TaskVectors.open(None, {"a": tmp_path / "a"}, qkv="fused")


def test_an_adapter_of_a_fused_matrix_is_split_by_rows(tmp_path: Path) -> None:
    B, A = torch.randn(24, 2), torch.randn(2, 8)
    module = "base_model.model.blocks.0.attn"
    tensors = {
        f"{module}.lora_A.weight": A,
        f"{module}.lora_B.weight": B,
        f"{module}.base_layer.out_proj.lora_A.weight": torch.randn(2, 8),
        f"{module}.base_layer.out_proj.lora_B.weight": torch.randn(8, 2),
    }
    write_adapter(tmp_path / "a", {"x.weight": (torch.ones(2, 2), torch.ones(2, 2))})
    write(tmp_path / "a" / "adapter_model.safetensors", tensors)
    base = write(tmp_path / "base.safetensors", random_tensors(1, FUSED))
    vectors = TaskVectors.open(base, {"a": tmp_path / "a"}, qkv="split")
    assert (vectors.qkv, vectors.qkv_stored) == ("split", "fused")
    k = vectors.delta("blocks.0.attn.k_proj.weight", "a")
    assert k.rank == 2 and torch.allclose(k.dense(), (B @ A)[8:16], atol=1e-6)
    merge(vectors, "task_arithmetic").save(tmp_path / "out.safetensors")
    name = "blocks.0.attn.in_proj_weight"
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors")[name], load_file(base)[name] + B @ A)


def test_the_recipe_and_the_fingerprint_tell_them_apart(tmp_path: Path) -> None:
    base, experts = files(tmp_path, "fused")
    own, split = (TaskVectors.open(base, experts, qkv=qkv) for qkv in ("stored", "split"))
    assert own.fingerprint == TaskVectors.open(base, experts, qkv="fused").fingerprint != split.fingerprint
    assert (merge(own, "average").recipe().qkv, merge(split, "average").recipe().qkv) == ("fused", "split")
    merge(split, "average").save(tmp_path / "out.safetensors")
    assert '"qkv": "split"' in open_checkpoint(tmp_path / "out.safetensors").metadata[METADATA_KEY]
    assert isinstance(merge(split, "average").recipe(), Recipe)
    assert split.select(["task1"]).qkv == "split"


def test_only_the_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = files(tmp_path, "fused", ".pt")
    view = regrouped(open_checkpoint(base), "split")
    monkeypatch.setattr(StateDictFile, "read", lambda self, name: pytest.fail(f"all of {name} was read"))
    assert view.read("blocks.0.attn.q_proj.weight").shape == (8, 8)


def test_values_come_as_soon_as_all_rows_are_there(tmp_path: Path) -> None:
    base, _ = files(tmp_path, "fused")
    view = regrouped(open_checkpoint(base), "split")
    taken: list[str] = []

    def values():
        for name in view.infos:
            taken.append(name)
            yield name, view.read(name)

    for name, value in in_stored_scheme([view], values()):
        assert taken[-1] in [part for part in view.infos if name in stored_names([view], part)]
        assert torch.equal(dense(value), view.stored.read(name))


def test_bad_requests(tmp_path: Path) -> None:
    base, experts = files(tmp_path, "fused")
    with pytest.raises(InputError, match="qkv: expected one of stored, split, fused, got 'both'"):
        TaskVectors.open(base, experts, qkv="both")
    plain = {"mlp.weight": (4, 4)}
    write(tmp_path / "b.safetensors", random_tensors(1, plain))
    write(tmp_path / "e.safetensors", random_tensors(2, plain))
    with pytest.raises(InputError, match="attention's q, k and v, to be merged split, got files without them"):
        TaskVectors.open(tmp_path / "b.safetensors", {"e": tmp_path / "e.safetensors"}, qkv="split")
    assert TaskVectors.open(tmp_path / "b.safetensors", {"e": tmp_path / "e.safetensors"}).qkv == "none"
    write(tmp_path / "odd.safetensors", {"attn.in_proj_weight": torch.ones(4, 2)})
    with pytest.raises(InputError, match="q, k and v of one size in attn.in_proj_weight, got 4 rows"):
        regrouped(open_checkpoint(tmp_path / "odd.safetensors"), "split")
    widths = {"q_proj.weight": (4, 4), "k_proj.weight": (4, 3), "v_proj.weight": (4, 3)}
    write(tmp_path / "cross.safetensors", random_tensors(1, widths))
    with pytest.raises(InputError, match="q, k and v of one width"):
        regrouped(open_checkpoint(tmp_path / "cross.safetensors"), "fused")


def test_only_q_of_a_fused_tensor_is_written(tmp_path: Path) -> None:
    """k and v, which were left out, stay as they are in the base."""
    base, experts = files(tmp_path, "fused")
    vectors = TaskVectors.open(base, experts, qkv="split", fit=Fit(only=("*q_proj*",)))
    merge(vectors, "average").save(tmp_path / "out.safetensors")
    own, merged = load_file(base), load_file(tmp_path / "out.safetensors")
    name = "blocks.0.attn.in_proj_weight"
    wanted = torch.stack([load_file(path)[name][:8] for path in experts.values()]).mean(dim=0)
    torch.testing.assert_close(merged[name][:8], wanted)
    assert torch.equal(merged[name][8:], own[name][8:])
