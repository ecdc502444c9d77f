"""A model's own logit scale: where it is found, which source counts, and that it reaches what depends on it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.checkpoints import open_checkpoint
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, ImageEncoder, LogitScale
from dcmerge.evaluation.calibration import Calibration
from dcmerge.evaluation.temperature import ASSUMED, length_of_rows, scale_in_config, scale_in_file, scale_of_heads
from dcmerge.methods.adaptation import entropy
from tests.builders import TOWER, full_set, tiny_bench, write

ROWS = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def in_file(folder: Path, value: Tensor, name: str = "logit_scale") -> LogitScale | None:
    path = write(folder / "base.safetensors", {name: value, "visual.proj": torch.ones(2, 2)})
    return scale_in_file(open_checkpoint(path), "the base's file")


@pytest.mark.parametrize("name", ["logit_scale", "model.logit_scale"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_file_keeps_the_logarithm(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    found = in_file(tmp_path, torch.full(shape, math.log(37.5)), name)
    assert found.value == pytest.approx(37.5) and found.origin == "learned, in the base's file"


def test_a_file_without_it_says_nothing(tmp_path: Path) -> None:
    assert in_file(tmp_path, torch.tensor(1.0), "logit_bias") is None and scale_in_file(None, "") is None


@pytest.mark.parametrize("value", [torch.tensor(50.0), torch.tensor(-9.0), torch.ones(2), torch.tensor(3)])
def test_what_is_no_scale_is_refused(tmp_path: Path, value: Tensor) -> None:
    with pytest.raises(InputError, match="logit_scale: expected"):
        in_file(tmp_path, value)


def test_the_configuration_states_the_number_itself() -> None:
    assert scale_in_config({"logit_scale": 20}).value == 20
    assert scale_in_config({"init_logit_scale": 2.66, "logit_scale_init_value": 2.66}) is None
    for wrong in ("20", True, 0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="logit_scale: expected"):
            scale_in_config({"logit_scale": wrong})


def test_the_length_of_a_heads_rows() -> None:
    assert length_of_rows(ROWS) is None and length_of_rows(0 * ROWS) is None
    assert length_of_rows(100 * ROWS) == pytest.approx(100)
    assert length_of_rows(ROWS * torch.arange(1, 6)[:, None]) is None


def test_heads_say_it_only_where_all_agree() -> None:
    assert scale_of_heads({"a": 100.0, "b": 100.01}).value == pytest.approx(100.005)
    assert scale_of_heads({"a": 100.0, "b": None}) is scale_of_heads({"a": 100.0, "b": 50.0}) is scale_of_heads({}) is None


def test_the_base_counts_before_other_files_and_those_before_the_configuration(bench: Bench, tmp_path: Path) -> None:
    stated = ImageEncoder({**TOWER, "logit_scale": 20.0})
    assert Bench(bench.encoder, bench.tasks, bench.vectors).logit_scale == ASSUMED
    assert Bench(stated, bench.tasks, bench.vectors).logit_scale == LogitScale(20.0, "from the encoder's configuration")
    other = LogitScale(50.0, "the length of the heads' rows")
    assert Bench(stated, bench.tasks, bench.vectors, other_scale=other).logit_scale == other
    base = {**bench.base_weights(), "logit_scale": torch.tensor(math.log(30.0))}
    vectors = full_set(tmp_path, {"task0": {name: torch.zeros_like(value) for name, value in base.items()}}, base)
    assert Bench(stated, bench.tasks, vectors, other_scale=other).logit_scale.value == pytest.approx(30.0)


def test_entropies_are_taken_at_it(bench: Bench) -> None:
    """Against the definition, with natural logarithms; a softer softmax is less sure."""
    weights, images = bench.base_weights(), {task: bench.split(task, "val", 5).images for task in bench.tasks}
    found = {}
    for value in (1.0, 20.0):
        own = replace(bench, other_scale=LogitScale(value, "here"))
        found[value] = entropy(Calibration(own), weights, images).item()
        wanted = 0.0
        for task, batch in images.items():
            p = (value * bench.encoder.encode(weights, batch) @ bench.tasks[task].head.T).double().softmax(dim=-1)
            wanted -= (p * p.log()).sum(dim=-1).mean().item()
        assert found[value] == pytest.approx(wanted, rel=1e-4)
    assert found[1.0] > found[20.0]


def test_evaluations_say_it(bench: Bench) -> None:
    own = replace(bench, other_scale=LogitScale(50.0, "here"))
    assert own.zero_shot(limit=3).to_dict()["logit_scale"] == {"value": 50.0, "origin": "here"}
    assert own.experts(limit=3).logit_scale == LogitScale(50.0, "here")
