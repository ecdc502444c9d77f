"""Validation and test images of a data set, by the rules of the literature, and the rule in words for every result.

``task_arithmetic``: the rule of the fully fine-tuned checkpoints (Task Arithmetic, TALL-masks, TSV, DC-Merge). ``lora``: that of
the LoRA checkpoints (KnOTS, DC-Merge). ``official``: the data set's own validation split where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.evaluation.datasets.pictures import Pictures

SPLIT_RULES = {
    "task_arithmetic": "validation: 10 % of the training images, at most 5000, drawn with seed 0",
    "lora": "validation: 20 % of the official test images, drawn with seed 42; test: the other 80 %",
    "official": "the data set's own validation and test images where it has both, else as task_arithmetic",
}
_SHARE, _CAP, _SEED = 0.1, 5000, 0
_LORA_SHARE, _LORA_SEED = 0.2, 42
#: Data sets of the literature whose own validation split these rules use.
_OWN_VALIDATION = {"task_arithmetic": ("EuroSAT",), "lora": ("DTD", "EuroSAT", "RESISC45")}


def divide(parts: Mapping[str, Pictures], rule: str, data_set: str = "") -> tuple[dict[str, Pictures], str]:
    """``val`` and ``test`` out of a data set's own parts, and the rule in words.

    ``parts``: some of train, val and test, or ``all`` where it is not split. ``data_set``: its name, of one of the literature.

    Raises InputError for an unknown rule and where images are too few for both.
    """
    if rule not in SPLIT_RULES:
        raise InputError(f"split rule: expected one of {', '.join(SPLIT_RULES)}, got {rule!r}")
    splits, text = _divided({name: part for name, part in parts.items() if len(part)}, rule, data_set)
    if not all(map(len, splits.values())):
        raise InputError(f"expected images for validation and for test, got too few: {text}")
    return splits, text


def _divided(parts: Mapping[str, Pictures], rule: str, data_set: str) -> tuple[dict[str, Pictures], str]:
    if not {"train", "val", "test"} & set(parts) or set(parts) in ({"train"}, {"val"}):
        return _of_unsplit(next(iter(parts.values()), None))
    if "test" not in parts:  # train and val: papers report on the latter, of SUN397 for one
        told = f"the {len(parts['val'])} validation images, as there is no test split"
        parts = {"train": parts["train"], "test": parts["val"]}
    else:
        told = f"the official {len(parts['test'])}"
    own = rule == "official" or not data_set or data_set in _OWN_VALIDATION[rule] or "train" not in parts
    if "val" in parts and own:
        return {"val": parts["val"], "test": parts["test"]}, f"val: its own {len(parts['val'])}; test: {told}"
    if rule == "lora" or "train" not in parts:
        return _of_test(parts["test"])
    count = len(parts["train"])
    val = held_out(count, min(_share_of(count, _SHARE), _CAP), _SEED)
    text = f"val: {len(val)} of {count} training images (10 %, at most {_CAP}, seed {_SEED}); test: {told}"
    return {"val": parts["train"].take(val), "test": parts["test"]}, text


def _of_test(test: Pictures) -> tuple[dict[str, Pictures], str]:
    val = held_out(len(test), _share_of(len(test), _LORA_SHARE), _LORA_SEED)
    rest = _others(len(test), val)
    text = (
        f"val: {len(val)} of {len(test)} official test images (20 %, seed {_LORA_SEED}, not the authors' own lists); "
        f"test: the other {len(rest)}"
    )
    return {"val": test.take(val), "test": test.take(rest)}, text


def _of_unsplit(whole: Pictures | None) -> tuple[dict[str, Pictures], str]:
    if whole is None:
        raise InputError("expected images for validation and for test, got none")
    test = held_out(len(whole), _share_of(len(whole), _SHARE), _SEED)
    rest = _others(len(whole), test)
    val = rest[held_out(len(rest), min(len(test), _CAP), _SEED)]
    text = (
        f"val: {len(val)}, test: {len(test)} of {len(whole)} images that came without splits (10 % each, seed {_SEED}); "
        "not a published split"
    )
    return {"val": whole.take(val), "test": whole.take(test)}, text


def _share_of(count: int, share: float) -> int:
    return max(1, int(count * share))


def held_out(count: int, size: int, seed: int) -> Tensor:
    """Indices of the second part of ``torch.utils.data.random_split`` of ``count`` images into [count - size, size]."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[count - size :]


def _others(count: int, held: Tensor) -> Tensor:
    free = torch.ones(count, dtype=torch.bool)
    free[held] = False
    return free.nonzero().flatten()
