"""Everything that can differ between a base and its experts is found, named, and told at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import Fit, IncompatibleSet, InputError, TaskVectors
from dcmerge.checkpoints import open_checkpoint
from dcmerge.vectors.compatibility import Finding, Report, examine
from tests.builders import lora_set, random_factors, random_tensors, write, write_adapter

SHAPES = {"w": (4, 6), "v": (6,), "logit_scale": ()}
BASE = random_tensors(0, SHAPES)
BUFFER = {"position_ids": torch.arange(4)[None]}


def opened(folder: Path, base: Mapping[str, Tensor], **experts: Mapping[str, Tensor]) -> TaskVectors:
    source = write(folder / "base.safetensors", base)
    return TaskVectors.open(source, {task: write(folder / f"{task}.safetensors", own) for task, own in experts.items()})


def refused(folder: Path, base: Mapping[str, Tensor], **experts: Mapping[str, Tensor]) -> tuple[str, Report]:
    with pytest.raises(IncompatibleSet) as refusal:
        opened(folder, base, **experts)
    assert isinstance(refusal.value.report, Report)
    return str(refusal.value), refusal.value.report


def expert(seed: int = 1, **changes: Tensor) -> dict[str, Tensor]:
    return {**random_tensors(seed, SHAPES), **changes}


def only(report: Report, what: str) -> Finding:
    found = [finding for finding in report.findings if finding.what == what]
    assert len(found) == 1, report.findings
    return found[0]


def test_a_set_that_fits_has_no_findings_and_says_how_large_it_is(tmp_path: Path) -> None:
    report = opened(tmp_path, BASE, a=expert(1), b=expert(2)).report
    assert report.findings == () and report.tasks == ("a", "b")
    size = sum(value.double().square().sum() for value in BASE.values()).sqrt().item()
    moved = sum((expert(1)[n] - BASE[n]).double().square().sum() for n in BASE).sqrt().item()
    assert report.base_norm == pytest.approx(size) and report.delta_norms["a"] == pytest.approx(moved)
    assert json.loads(json.dumps(report.to_dict()))["counts"] == report.counts()


def test_a_parameter_that_not_all_have_is_left_out(tmp_path: Path) -> None:
    lacking = expert()
    del lacking["v"]
    vectors = opened(tmp_path, BASE, a=lacking, b=expert(2))
    found = only(vectors.report, "left out")
    assert (found.level, found.task, found.parameters) == ("warning", "a", ("v",))
    assert found.text == "parameters: missing in a, left out: they stay as in the base (v)"
    assert set(vectors.parameters) == {"w", "logit_scale"} and vectors.report.left_out == (found.text,)


def test_a_small_part_of_another_shape_is_left_out(tmp_path: Path) -> None:
    vectors = opened(tmp_path, BASE, a=expert(v=torch.ones(5)))
    found = only(vectors.report, "left out")
    assert found.parameters == ("v",) and "[6] in base, [5] in a, left out" in found.text
    assert set(vectors.parameters) == {"w", "logit_scale"}


def test_an_expert_with_less_than_half_of_the_base_is_none_of_it(tmp_path: Path) -> None:
    text, report = refused(tmp_path, BASE, a=expert(w=torch.ones(6, 4)), b=expert(2))
    found = only(report, "stranger")
    assert (found.level, found.task, found.parameters) == ("error", "a", ("w",))
    assert "a has 23 % of the base's numbers, fewer than half" in text  # 7 of 31
    assert "w (expected [4, 6], got [6, 4])" in text


@pytest.mark.parametrize(
    ("name", "shapes", "told"),
    [
        ("classifier.weight", ((2, 6), (2, 6), (3, 6)), "classification heads: 2, 2 and 3 classes (base, a, b), left out"),
        ("head.fc.bias", ((5,), (7,), (9,)), "classification heads: 5, 7 and 9 classes (base, a, b), left out"),
        ("visual.positional_embedding", ((5, 2), (5, 2), (9, 2)), "positional embeddings: 5, 5 and 9 positions (base, a, b)"),
        ("cls.predictions.bias", ((5,), None, None), "pre-training heads: missing in a, b, left out"),
        ("bert.pooler.dense.weight", ((2, 2), None, (2, 2)), "poolers: missing in a, left out"),
    ],
)
def test_what_not_all_have_is_told_in_groups(
    tmp_path: Path, name: str, shapes: tuple[tuple[int, ...] | None, ...], told: str
) -> None:
    own = [{} if shape is None else {name: torch.full(shape, 0.5)} for shape in shapes]
    vectors = opened(tmp_path, {**BASE, **own[0]}, a={**expert(1), **own[1]}, b={**expert(2), **own[2]})
    found = only(vectors.report, "left out")
    assert found.level == "note" and found.text.startswith(told) and name in found.text
    assert name not in vectors.parameters and not vectors.report.warnings


def test_a_head_inside_a_block_is_no_classifier(tmp_path: Path) -> None:
    name = "layers.0.attn.head.weight"
    vectors = opened(tmp_path, {**BASE, name: torch.ones(2, 2)}, a=expert(1), b=expert(2, **{name: torch.zeros(2, 2)}))
    assert only(vectors.report, "left out").level == "warning"


def test_patterns_choose_what_is_merged(tmp_path: Path) -> None:
    source = write(tmp_path / "base.safetensors", BASE)
    experts = {"a": write(tmp_path / "a.safetensors", expert())}
    vectors = TaskVectors.open(source, experts, fit=Fit(without=("v",)))
    assert set(vectors.parameters) == {"w", "logit_scale"}
    assert only(vectors.report, "left out").text == "1 parameters: left out by choice (v) (v)"
    assert set(TaskVectors.open(source, experts, fit=Fit(only=("w", "logit*"))).parameters) == {"w", "logit_scale"}
    assert set(TaskVectors.open(source, experts, fit=Fit(only=("*",), without=("w",))).parameters) == {"v", "logit_scale"}
    with pytest.raises(InputError, match=r"only: expected a pattern of parameter names such as .* got 'x\.\*'"):
        TaskVectors.open(source, experts, fit=Fit(only=("x.*",)))
    with pytest.raises(IncompatibleSet, match="nothing is left to merge"):
        TaskVectors.open(source, experts, fit=Fit(without=("*",)))


@pytest.mark.parametrize(("name", "level"), [("more.w", "warning"), ("head.weight", "note")])
def test_an_extra_parameter_is_left_out(tmp_path: Path, name: str, level: str) -> None:
    vectors = opened(tmp_path, BASE, a=expert(**{name: torch.ones(3, 3)}))
    found = only(vectors.report, "extra")
    assert (found.level, found.task, found.parameters) == (level, "a", (name,))
    assert "only in a, left out" in found.text and name not in vectors.parameters


def test_another_dtype(tmp_path: Path) -> None:
    vectors = opened(tmp_path, BASE, a=expert(w=torch.ones(4, 6, dtype=torch.bfloat16)))
    found = only(vectors.report, "other dtype")
    assert (found.level, found.parameters) == ("warning", ("w",))
    assert "w is bfloat16 here and float32 in the base" in found.text
    torch.testing.assert_close(vectors.delta("w", "a"), 1 - BASE["w"])


def test_an_integer_buffer_is_skipped_even_where_it_differs_or_is_missing(tmp_path: Path) -> None:
    same, other = expert(1, **BUFFER), expert(2, position_ids=torch.arange(7)[None])
    vectors = opened(tmp_path, {**BASE, **BUFFER}, same=same, other=other, without=expert(3))
    found = only(vectors.report, "buffer")
    assert (found.level, found.parameters) == ("note", ("position_ids",))
    assert "position_ids" not in vectors.parameters and vectors.report.counts()["skipped"] == 1
    assert [f.what for f in vectors.report.findings] == ["buffer"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_found_with_parameter_and_task(tmp_path: Path, value: float) -> None:
    broken = expert()
    broken["w"][2, 3] = value
    text, report = refused(tmp_path, BASE, good=expert(2), bad=broken)
    found = only(report, "not finite")
    assert (found.level, found.task, found.parameters) == ("error", "bad", ("w",))
    assert "bad holds NaN or Inf in: w" in text and "good" not in text


def test_a_base_that_is_not_finite(tmp_path: Path) -> None:
    broken = {**BASE, "logit_scale": torch.tensor(torch.inf)}
    text, report = refused(tmp_path, broken, a=expert(logit_scale=torch.tensor(torch.inf)))
    assert "base holds NaN or Inf in: logit_scale" in text and "a holds NaN or Inf in: logit_scale" in text
    assert [f.task for f in report.errors] == [None, "a"]


def test_an_expert_without_any_change(tmp_path: Path) -> None:
    found = only(opened(tmp_path, BASE, idle=BASE, a=expert()).report, "zero delta")
    assert (found.level, found.task) == ("warning", "idle") and "does not differ from the base at all" in found.text


def test_a_parameter_without_change_is_a_note(tmp_path: Path) -> None:
    found = only(opened(tmp_path, BASE, a=expert(v=BASE["v"])).report, "zero delta")
    assert (found.level, found.task, found.parameters) == ("note", "a", ("v",))


def test_identical_experts(tmp_path: Path) -> None:
    found = only(opened(tmp_path, BASE, a=expert(), b=expert(2), twin=expert()).report, "identical")
    assert (found.level, found.task) == ("warning", "twin") and "identical to a" in found.text


def test_experts_that_differ_in_one_bit_are_not_identical(tmp_path: Path) -> None:
    nearly = expert()
    nearly["v"][5] = torch.nextafter(nearly["v"][5], torch.tensor(9.0))
    assert not opened(tmp_path, BASE, a=expert(), b=nearly).report.findings


def test_every_reason_is_told_at_once(tmp_path: Path) -> None:
    lacking, broken = expert(1, w=torch.ones(2, 2)), expert(2)
    del lacking["v"], broken["logit_scale"]
    text, report = refused(tmp_path, BASE, a=lacking, b=broken, c=expert(3, w=torch.ones(1)))
    assert [(f.task, f.what) for f in report.errors] == [("a", "stranger"), ("c", "stranger")]
    assert len(text.splitlines()) == 3 and all(finding.text in text for finding in report.errors)
    assert "it lacks 1 parameters (v) and has 1 of another shape (w" in text


def test_every_value_that_is_not_finite_is_told_at_once(tmp_path: Path) -> None:
    nan = torch.full((4, 6), torch.nan)
    text, report = refused(tmp_path, BASE, a=expert(w=nan, v=torch.full((6,), torch.inf)), b=expert(w=nan))
    assert [(f.task, set(f.parameters)) for f in report.errors] == [("a", {"v", "w"}), ("b", {"w"})]
    assert "a holds" in text and "b holds" in text


def test_a_set_without_anything_to_merge_is_refused(tmp_path: Path) -> None:
    text, _ = refused(tmp_path, BUFFER, a=BUFFER)
    assert "nothing is left to merge" in text


def test_examine_itself_never_raises(tmp_path: Path) -> None:
    base = open_checkpoint(write(tmp_path / "base.safetensors", BASE))
    other = open_checkpoint(write(tmp_path / "other.safetensors", {"w": torch.ones(3)}))
    assert {f.what for f in examine(base, {"a": other}).errors} == {"stranger"}


def test_adapters_with_other_targets_and_ranks_are_merged_on_the_union(tmp_path: Path) -> None:
    whole, part = random_factors(0), random_factors(1, rank=3)
    del part["mlp.fc1.weight"]
    vectors = lora_set(tmp_path, {"part": part, "whole": whole})
    assert set(vectors.parameters) == set(whole) and not vectors.report.warnings
    found = only(vectors.report, "other targets")
    assert (found.level, found.task, found.parameters) == ("note", "part", ("mlp.fc1.weight",))
    assert "part does not adapt 1 of the 2 weights" in found.text
    found = only(vectors.report, "other ranks")
    assert found.level == "note" and found.parameters == ("attn.q_proj.weight",) and "part 3, whole 2" in found.text
    absent, there = vectors.deltas("mlp.fc1.weight")
    assert (absent.rank, absent.shape) == (0, there.shape) and not absent.dense().any()


def test_equal_factors_of_other_weights_are_not_the_same_adapter(tmp_path: Path) -> None:
    shapes = {"q.weight": (16, 12), "k.weight": (16, 12)}
    (B, A), *_ = random_factors(0, shapes=shapes).values()
    report = lora_set(tmp_path, {"a": {"q.weight": (B, A)}, "b": {"k.weight": (B, A)}}).report
    assert {f.what for f in report.findings} == {"other targets"}


def test_adapters_whose_shapes_differ_are_refused(tmp_path: Path) -> None:
    other = random_factors(1, shapes={"attn.q_proj.weight": (16, 13)})
    with pytest.raises(
        IncompatibleSet,
        match=r"b has 1 parameters of another shape than another adapter: attn.q_proj.weight \(expected \[16, 12\]",
    ):
        lora_set(tmp_path, {"a": random_factors(0), "b": other})


def test_adapted_weights_that_the_base_lacks_or_has_otherwise(tmp_path: Path) -> None:
    base = {"attn.q_proj.weight": torch.ones(16, 13)}
    with pytest.raises(IncompatibleSet) as refusal:
        lora_set(tmp_path, {"a": random_factors(0)}, base=base)
    assert "the base lacks 1 adapted weights: mlp.fc1.weight" in str(refusal.value)
    assert "attn.q_proj.weight (base [16, 13], adapters [16, 12])" in str(refusal.value)


def test_values_of_adapters(tmp_path: Path) -> None:
    zero = {name: (torch.zeros_like(B), A) for name, (B, A) in random_factors(1).items()}
    report = lora_set(tmp_path / "fine", {"a": random_factors(0), "idle": zero, "twin": random_factors(0)}).report
    assert only(report, "zero delta").task == "idle" and only(report, "identical").task == "twin"
    product = torch.stack([(B @ A).norm() for B, A in random_factors(0).values()]).norm().item()
    assert report.delta_norms["a"] == pytest.approx(product, rel=1e-5) and report.base_norm is None
    broken = random_factors(2)
    broken["attn.q_proj.weight"][1][0, 0] = torch.nan
    with pytest.raises(IncompatibleSet, match="bad holds NaN or Inf in: attn.q_proj.weight"):
        lora_set(tmp_path / "broken", {"a": random_factors(0), "bad": broken})


def test_adapters_of_different_bases_are_merged_only_when_confirmed(tmp_path: Path) -> None:
    folders = {}
    for seed, (task, base) in enumerate({"a": "meta/llama-3-8b", "b": "/home/me/mistral-7b"}.items()):
        folders[task] = write_adapter(tmp_path / task, random_factors(seed))
        path = tmp_path / task / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))
    with pytest.raises(InputError, match=r"different bases \(a on llama-3-8b, b on mistral-7b\)") as refusal:
        TaskVectors.open(None, folders)
    assert refusal.value.remedy == "different_bases"
    assert set(TaskVectors.open(None, folders, fit=Fit(different_bases=True)).parameters) == set(random_factors(0))
