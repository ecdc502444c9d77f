"""Opening a base with its experts from real files, and their deltas one parameter at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import InputError, TaskVectors, merge
from dcmerge.checkpoints import LoraCheckpoint, LowRank, StoredCheckpoint, open_checkpoint
from dcmerge.vectors.compatibility import Kind
from dcmerge.vectors.layers import layer_of
from tests.builders import (
    SHAPES,
    full_set,
    lora_set,
    random_deltas,
    random_factors,
    random_tensors,
    write,
    write_adapter,
)

BASE = random_tensors(0)


@pytest.fixture
def three(tmp_path: Path) -> TaskVectors:
    return full_set(tmp_path, random_deltas(3), BASE)


def test_a_delta_is_expert_minus_base(three: TaskVectors) -> None:
    assert three.kind == "full" and three.tasks == ("task0", "task1", "task2")
    assert set(three.parameters) == set(SHAPES)
    wanted = random_deltas(3)
    for name in SHAPES:
        for task, delta in zip(three.tasks, three.deltas(name), strict=True):
            torch.testing.assert_close(delta, wanted[task][name], atol=1e-6, rtol=1e-6)
            assert torch.equal(delta, three.delta(name, task)) and delta.dtype == torch.float32


def test_kinds_of_parameters(three: TaskVectors) -> None:
    kinds = {name: parameter.kind for name, parameter in three.parameters.items()}
    assert kinds["visual.conv1.weight"] is Kind.CONVOLUTION
    assert kinds["visual.ln.bias"] is kinds["logit_scale"] is Kind.VECTOR
    assert kinds["text_projection"] is Kind.VECTOR and "averaged" in three.parameters["text_projection"].reason
    assert kinds["visual.mlp.c_fc.weight"] is Kind.MATRIX
    assert three.report.counts() == {"matrix": 4, "vector": 3, "convolution": 1, "skipped": 0}
    assert three.parameters["logit_scale"].numel == 1 and three.parameters["visual.ln.bias"].numel == 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_deltas_are_taken_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    base, expert = (write(tmp_path / f"{s}.safetensors", random_tensors(s), dtype=dtype) for s in (0, 1))
    vectors = TaskVectors.open(base, {"a": expert})
    name = "visual.mlp.c_fc.weight"
    delta = vectors.delta(name, "a")
    assert delta.dtype == torch.float32
    wanted = random_tensors(1)[name].to(dtype).float() - random_tensors(0)[name].to(dtype).float()
    assert torch.equal(delta, wanted)


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.model.", "_orig_mod."])
def test_names_meet_behind_wrappers(tmp_path: Path, prefix: str) -> None:
    base = write(tmp_path / "base.safetensors", BASE)
    expert = write(tmp_path / "expert.safetensors", random_tensors(1), prefix)
    vectors = TaskVectors.open(base, {"a": expert})
    assert set(vectors.parameters) == set(SHAPES) and not vectors.report.findings


def test_an_adapter_of_a_part_meets_the_whole_model(tmp_path: Path) -> None:
    """Trained on the image tower alone: its names lack the tower's, and the text tower has the same ones."""
    shapes = {"visual.attn.q_proj.weight": (16, 12), "visual.mlp.fc1.weight": (20, 16)}
    shapes["text.attn.q_proj.weight"] = (9, 9)
    vectors = lora_set(tmp_path, {t: random_factors(s) for s, t in enumerate("ab")}, base=random_tensors(0, shapes))
    assert set(vectors.parameters) == {"visual.attn.q_proj.weight", "visual.mlp.fc1.weight"}
    B, A = random_factors(1)["mlp.fc1.weight"]
    torch.testing.assert_close(vectors.delta("visual.mlp.fc1.weight", "b").dense(), B @ A)
    merge(vectors, "task_arithmetic").save(tmp_path / "out.safetensors")
    saved = open_checkpoint(tmp_path / "out.safetensors")
    assert set(saved.infos) == set(shapes)


def test_an_expert_behind_a_prefix_that_its_base_cannot_lose(tmp_path: Path) -> None:
    """A language model with a head keeps its "model."; an expert that was saved without head has lost it."""
    base = write(tmp_path / "base.safetensors", {"model.w": torch.zeros(3, 4), "lm_head": torch.ones(2)})
    whole = write(tmp_path / "whole.safetensors", {"m.model.w": torch.ones(3, 4), "m.lm_head": torch.ones(2)})
    vectors = TaskVectors.open(base, {"whole": whole})
    assert torch.equal(vectors.delta("model.w", "whole"), torch.ones(3, 4))
    headless = write(tmp_path / "headless.safetensors", {"model.w": torch.ones(3, 4)})
    vectors = TaskVectors.open(base, {"headless": headless})
    assert set(vectors.parameters) == {"model.w"} and "missing in headless" in vectors.report.left_out[0]


def test_open_accepts_checkpoints_folders_and_state_dicts(tmp_path: Path) -> None:
    folder = write(tmp_path / "expert" / "model.safetensors", random_tensors(1)).parent
    torch.save(random_tensors(2), tmp_path / "expert.pt")
    base = open_checkpoint(write(tmp_path / "base.safetensors", BASE))
    vectors = TaskVectors.open(base, {"folder": folder, "pt": str(tmp_path / "expert.pt")})
    assert vectors.base is base and vectors.tasks == ("folder", "pt")


class Reads(list):
    """(checkpoint's file, parameter) of every read, in order."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    counted, plain = Reads(), StoredCheckpoint.read

    def read(self: StoredCheckpoint, name: str) -> Tensor:
        counted.append((self.path.name, name))
        return plain(self, name)

    monkeypatch.setattr(StoredCheckpoint, "read", read)
    yield counted


def test_opening_reads_every_tensor_once_and_parameter_by_parameter(tmp_path: Path, reads: Reads) -> None:
    full_set(tmp_path, random_deltas(3), BASE)
    assert len(reads) == len(set(reads)) == 4 * len(SHAPES)
    assert len([name for name, _ in groupby(reads, key=lambda read: read[1])]) == len(SHAPES)


@pytest.mark.parametrize("slug", ["average", "tsv_m", "dc_merge", "iso_cts"])
def test_merging_reads_parameter_by_parameter(three: TaskVectors, reads: Reads, slug: str) -> None:
    merge(three, slug)
    assert [name for name, _ in groupby(reads, key=lambda read: read[1])] == list(three.parameters)


def test_factors_of_a_parameter_are_computed_once(three: TaskVectors, reads: Reads) -> None:
    layer = layer_of(three, "visual.mlp.c_fc.weight")
    large = layer.factors(4)
    seen = len(reads)
    small, spectra = layer.factors(2), layer.spectra()
    assert len(reads) == seen and torch.equal(small[0].U, large[0].U[:, :2])
    assert [len(s) for s in spectra] == [12] * 3
    assert layer.cover_basis(3) is layer.cover_basis(3)


def test_memory_of_one_set_is_not_that_of_another(three: TaskVectors) -> None:
    pair = three.select(["task2", "task0"])
    layer = layer_of(three, "visual.mlp.c_fc.weight")
    layer.factors(2)
    assert pair.memo is not three.memo
    torch.testing.assert_close(layer_of(pair, layer.name).factors(2)[0].U, layer.factors(2)[2].U)


def test_select_keeps_the_order_asked_for_and_names_unknown_tasks(three: TaskVectors) -> None:
    assert three.select(["task2", "task0"]).tasks == ("task2", "task0")
    with pytest.raises(InputError, match="tasks: expected some of task0, task1, task2, got mnist"):
        three.select(["task0", "mnist"])
    with pytest.raises(InputError, match="got none"):
        three.select([])


def test_the_fingerprint_is_that_of_content_names_and_order(tmp_path: Path) -> None:
    one, same = (full_set(tmp_path / place, random_deltas(2), BASE) for place in ("one", "same"))
    assert one.fingerprint == same.fingerprint
    others = [
        one.select(["task1", "task0"]),
        one.select(["task0"]),
        full_set(tmp_path / "other", random_deltas(2, seed=1), BASE),
        full_set(tmp_path / "base", random_deltas(2)),
        full_set(tmp_path / "name", dict(zip("ab", random_deltas(2).values(), strict=True)), BASE),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_adapters_without_a_base(tmp_path: Path) -> None:
    factors = random_factors(0)
    vectors = lora_set(tmp_path, {"a": factors, "b": random_factors(1)}, alpha=6)
    assert vectors.kind == "lora" and vectors.base is None and set(vectors.parameters) == set(factors)
    for name, (B, A) in factors.items():
        delta = vectors.delta(name, "a")
        assert isinstance(delta, LowRank) and delta.rank == 2
        torch.testing.assert_close(delta.dense(), 3.0 * B @ A)
    with pytest.raises(InputError, match="expected a base model for this, got adapters alone"):
        vectors.base_tensor("attn.q_proj.weight")


def test_adapters_with_their_base(tmp_path: Path) -> None:
    base = {name: torch.randn(B.shape[0], A.shape[1]) for name, (B, A) in random_factors(0).items()}
    vectors = lora_set(tmp_path, {"a": random_factors(0)}, base={**base, "ln.weight": torch.ones(3)})
    assert set(vectors.parameters) == set(base) and isinstance(vectors.experts["a"], LoraCheckpoint)
    assert torch.equal(vectors.base_tensor("attn.q_proj.weight"), base["attn.q_proj.weight"])


def test_the_default_rank_of_adapters_is_theirs_where_it_fits(tmp_path: Path) -> None:
    shapes = {"q.weight": (12, 20)}
    for tasks, rank, wanted in ((2, 3, 3), (4, 3, 3), (5, 3, 2), (13, 1, 0)):
        vectors = lora_set(tmp_path / str(tasks), {f"t{t}": random_factors(t, rank, shapes) for t in range(tasks)})
        layer = layer_of(vectors, "q.weight")
        assert layer.default_rank() == layer.rank(None) == wanted
        assert layer.rank(100) == 12 // tasks and layer.joint_rank() == min(12, tasks * rank)


def test_sets_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base.safetensors", BASE)
    adapter = write_adapter(tmp_path / "adapter", random_factors(0))
    for source, experts, text in (
        (base, {}, "expected at least one expert, got none"),
        (None, {"a": base}, "expected a base model to subtract from"),
        (base, {"a": base, "b": adapter}, "expected experts of one kind"),
        (adapter, {"a": base}, "expected a full model as the base, got a LoRA adapter"),
        (base, {"a": tmp_path / "nowhere.safetensors"}, "nowhere"),
    ):
        with pytest.raises(InputError, match=text):
            TaskVectors.open(source, experts)


def test_progress_while_opening(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    three = full_set(tmp_path, random_deltas(1), BASE)
    TaskVectors.open(three.base, three.experts, progress=lambda *step: told.append(step))
    assert [name for _, name in told] == list(three.parameters) and all(0 <= share < 1 for share, _ in told)
