"""Training states: the weights in them are read, whatever lies beside them, and averaged ones where they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import Fit, TaskVectors
from dcmerge.checkpoints import open_checkpoint
from dcmerge.errors import InputError
from dcmerge.sets.layouts import find_sets
from tests.builders import random_tensors

BASE = random_tensors(0, {"blocks.0.w": (4, 4), "blocks.0.b": (4,)})


def tuned(seed: int) -> dict[str, Tensor]:
    return random_tensors(seed, {name: tuple(value.shape) for name, value in BASE.items()})


STATES = {
    "Lightning": ("a.ckpt", lambda own, ema: {"epoch": 1, "state_dict": {f"net.{n}": v for n, v in own.items()}, "loops": {}}),
    "timm": ("a.pth.tar", lambda own, ema: {"epoch": 1, "state_dict": own, "optimizer": {}, "state_dict_ema": ema}),
    "model and ema": ("a.pt", lambda own, ema: {"model": own, "ema": ema, "opt": {"state": {}}}),
    "within another": (
        "a.pth",
        lambda own, ema: {"model": {"module": own}, "model_ema": {"module": ema}, "best": torch.ones(())},
    ),
    "DeepSpeed": ("a.pt", lambda own, ema: {"module": own, "global_steps": 3}),
    "averaged alone": ("a.pt", lambda own, ema: {"ema": own}),
}


@pytest.mark.parametrize("kind", STATES)
def test_the_live_weights_are_read(kind: str, tmp_path: Path) -> None:
    name, state = STATES[kind]
    torch.save(state(tuned(1), tuned(2)), tmp_path / name)
    torch.save(BASE, tmp_path / "base.pt")
    vectors = TaskVectors.open(tmp_path / "base.pt", {"a": tmp_path / name})
    for parameter, value in BASE.items():
        torch.testing.assert_close(vectors.delta(parameter, "a"), tuned(1)[parameter] - value)


@pytest.mark.parametrize("kind", ["timm", "model and ema", "within another"])
def test_averaged_weights_are_a_choice_that_is_told(kind: str, tmp_path: Path) -> None:
    name, state = STATES[kind]
    torch.save(state(tuned(1), tuned(2)), tmp_path / name)
    torch.save(BASE, tmp_path / "base.pt")
    assert any("live weights and averaged ones" in note for note in open_checkpoint(tmp_path / name).notes)
    vectors = TaskVectors.open(tmp_path / "base.pt", {"a": tmp_path / name}, fit=Fit(weights="ema"))
    for parameter, value in BASE.items():
        torch.testing.assert_close(vectors.delta(parameter, "a"), tuned(2)[parameter] - value)
    torch.save(tuned(3), tmp_path / "plain.pt")
    with pytest.raises(InputError, match=r"expected averaged \(EMA\) weights .* got none in plain"):
        TaskVectors.open(tmp_path / "base.pt", {"plain": tmp_path / "plain.pt"}, fit=Fit(weights="ema"))


def test_containers_are_found_in_a_folder(tmp_path: Path) -> None:
    torch.save(BASE, tmp_path / "base.pt")
    for seed, name in enumerate(("a.ckpt", "b.pth.tar"), start=1):
        torch.save({"state_dict": tuned(seed)}, tmp_path / name)
    (found,) = find_sets(tmp_path)
    assert sorted(found.experts) == ["a", "b"] and found.base == tmp_path / "base.pt"
