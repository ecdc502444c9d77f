"""What papers report of each method on CLIP, as data: every number with its checkpoints, because those must not be mixed.

The same method on the same eight tasks differs by up to ten points between the families of fine-tuned checkpoints. Numbers
that no primary source confirms are left out, so a method may have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Families of fine-tuned checkpoints and what is known of each; experts are given as ViT-B/32, B/16, L/14 on 8 tasks.
FAMILIES = {
    "Task Arithmetic": "OpenCLIP checkpoints of Task Arithmetic; experts 90.5 / 92.9 / 94.2 %",
    "TALL-masks": "OpenCLIP checkpoints of TALL-masks, 20 tasks; experts 92.8 / 94.6 / 95.8 %",
    "FusionBench": "Hugging Face CLIP checkpoints of FusionBench; experts 90.3 / 92.3 / 94.3 %",
    "KnOTS LoRA": "LoRA adapters of rank 16 of KnOTS; experts 84.1 (B/32) and 92.3 % (L/14)",
    "DC-Merge LoRA": "LoRA adapters of rank 16 of DC-Merge; experts 87.8 % (B/32)",
    "RobustMerge LoRA": "LoRA adapters of RobustMerge; experts 84.2 (B/32) and 92.4 % (L/14)",
}
MODELS = ("ViT-B/32", "ViT-B/16", "ViT-L/14")

_LOT = "LOT, arXiv 2505.23859"
_ISO = "Iso, arXiv 2502.04959, Table 1"
_ISO_LORA = "Iso, arXiv 2502.04959, Table 2"
_FUSION_BENCH = "FusionBench's documentation"
_ADAMERGING = "AdaMerging, arXiv 2310.02575"
_SURGERY = "Representation Surgery, the authors' logs"
_ADARANK = "AdaRank, arXiv 2503.22178, from a summary"
_ROBUSTMERGE = "RobustMerge, arXiv 2502.17159"


@dataclass(frozen=True)
class Reported:
    """One reported mean top-1 accuracy in percent; ``normalised`` where it is divided by the experts' accuracies."""

    value: float
    model: str
    tasks: int
    family: str
    source: str
    note: str = ""
    normalised: bool = False


def _models(
    family: str, source: str, *values: float | None, note: str = "", tasks: int = 8, normalised: bool = False
) -> tuple[Reported, ...]:
    """The same setting on the models in their order; None where there is no number."""
    pairs = zip(MODELS, values, strict=False)
    return tuple(Reported(v, model, tasks, family, source, note, normalised) for model, v in pairs if v is not None)


def _task_counts(family: str, source: str, *table: Sequence[float], note: str = "") -> tuple[Reported, ...]:
    """A row a model, its columns 8, 14 and 20 tasks."""
    return tuple(
        Reported(value, model, tasks, family, source, note)
        for model, row in zip(MODELS, table, strict=False)
        for tasks, value in zip((8, 14, 20), row, strict=True)
    )


def _tall(*table: Sequence[float]) -> tuple[Reported, ...]:
    return _task_counts("TALL-masks", _ISO, *table)


def _lot(*values: float | None, note: str = "") -> tuple[Reported, ...]:
    return _models("Task Arithmetic", _LOT, *values, note=note)


def _hf(*values: float | None, note: str = "") -> tuple[Reported, ...]:
    return _models("FusionBench", _FUSION_BENCH, *values, note=note)


def _lora(base_32: float, large_14: float, note: str = "") -> tuple[Reported, ...]:
    return _models("KnOTS LoRA", _ISO_LORA, base_32, None, large_14, note=note, normalised=True)


def _robust(*values: float | None) -> tuple[Reported, ...]:
    return _models("RobustMerge LoRA", _ROBUSTMERGE, *values)


#: Slug -> what is reported. Methods that are not here have no number that a primary source confirms.
REPORTED: dict[str, tuple[Reported, ...]] = {
    "average": (
        *_tall((66.3, 64.3, 61.0), (72.2, 69.5, 65.3), (79.6, 76.7, 71.6)),
        *_lot(65.8, 70.7, 79.6),
        *_hf(66.5, 72.3, 80.0),
    ),
    "task_arithmetic": (
        *_tall((70.8, 65.3, 60.5), (75.4, 70.5, 65.8), (84.9, 79.4, 74.0)),
        *_lot(69.1, 73.8, 84.5),
        *_hf(68.0, 77.1, 80.7, note="α = 0.3"),
        *_lora(63.7, 74.4),
        *_robust(51.1),
    ),
    "ties": (
        *_tall((75.1, 68.0, 63.4), (79.7, 73.2, 68.2), (86.9, 79.5, 75.7)),
        *_lot(72.4, 77.0, 86.0),
        *_hf(72.2, 77.5, 84.0, note="α = 0.3"),
        *_lora(63.7, 75.2),
        *_robust(51.5),
    ),
    "dare": (*_lora(63.7, 74.7, note="DARE before TIES"), *_robust(51.0)),
    "consensus_ta": (
        *_tall((75.0, 70.4, 65.4), (79.4, 74.4, 69.8), (86.3, 82.2, 79.0)),
        *_lot(73.6, None, 85.2),
    ),
    "pcb": _lot(75.8, None, 87.6),
    "emr": _lot(88.7, None, 93.7, note="keeps a mask a task: not one model"),
    "fisher": (*_lot(68.3, 71.7, 82.2), *_hf(70.6, 74.2, 80.3)),
    "regmean": (*_lot(71.8, 76.6, 83.7), *_hf(82.4, 86.0, 90.4)),
    "tsv_m": (
        *_tall((85.9, 80.1, 77.1), (89.0, 84.6, 80.6), (93.0, 89.2, 87.7)),
        Reported(83.06, "ViT-B/32", 8, "FusionBench", "FusionBench's repository"),
        Reported(73.23, "ViT-B/32", 20, "FusionBench", "FusionBench's repository"),
    ),
    "iso_c": (
        *_tall((86.3, 80.3, 75.5), (90.6, 84.8, 79.6), (94.2, 89.3, 87.6)),
        *_hf(82.8, note="α = 1.5"),
        *_lora(73.6, 83.7),
    ),
    "iso_cts": (
        *_tall((86.2, 81.7, 78.1), (91.1, 86.4, 82.4), (94.7, 91.0, 90.1)),
        *_hf(82.7, note="α = 1.5"),
        *_lora(73.7, 85.3),
    ),
    "knots": _lora(68.0, 78.2),
    "wudi": _hf(84.5),
    "dc_merge": (
        Reported(64.17, "ViT-B/32", 8, "DC-Merge LoRA", "DC-Merge, arXiv 2603.06242, Table 1"),
        Reported(73.90, "ViT-B/32", 8, "DC-Merge LoRA", "DC-Merge, arXiv 2603.06242, Table 1", normalised=True),
    ),
    "lot": _lot(82.7, 85.7, 90.5, note="64 unlabeled training images a task"),
    "cat": _lot(78.3, 82.1, 89.6),
    "opcm": _task_counts(
        "FusionBench",
        "OPCM, arXiv 2501.09522",
        (75.5, 71.9, 65.7),
        (81.8, 77.1, 70.3),
        (87.0, 83.5, 76.0),
        note="mean over random orders of the tasks",
    ),
    "robustmerge": _robust(55.9, None, 70.9),
    "adamerging": (
        *_models("Task Arithmetic", _ADAMERGING, 71.1, note="task-wise; unlabeled test images"),
        *_models("Task Arithmetic", _ADAMERGING, 73.7, note="task-wise, ++; unlabeled test images"),
        *_models("Task Arithmetic", _ADAMERGING, 80.1, note="layer-wise; unlabeled test images"),
        *_models("Task Arithmetic", _ADAMERGING, 81.1, note="layer-wise, ++; unlabeled test images"),
        *_lot(None, None, 90.8, note="layer-wise; unlabeled test images"),
        *_lot(None, None, 91.0, note="layer-wise, ++; unlabeled test images"),
        *_hf(82.6, 85.0, 91.0, note="layer-wise; unlabeled test images"),
        *_hf(68.7, None, 80.1, note="task-wise; unlabeled test images"),
    ),
    "concrete": (
        *_hf(77.6, note="Concrete Task Arithmetic; unlabeled test images"),
        *_hf(84.4, note="Concrete layer-wise AdaMerging; unlabeled test images"),
    ),
    "adarank": (
        *_models("Task Arithmetic", _ADARANK, 87.9, None, 93.0, note="from Task Arithmetic; unlabeled test images"),
        *_models("Task Arithmetic", _ADARANK, 88.9, None, 93.7, note="from TSV-M; unlabeled test images"),
    ),
    "surgery": (
        *_models("Task Arithmetic", _SURGERY, 80.0, 82.7, 86.0, note="on weight averaging; task modules, test images"),
        *_models("Task Arithmetic", _SURGERY, 80.9, 85.0, 89.0, note="on Task Arithmetic; task modules, test images"),
        *_models("Task Arithmetic", _SURGERY, 83.2, 86.1, 89.3, note="on TIES; task modules, test images"),
        *_models("Task Arithmetic", _SURGERY, 86.1, 88.9, 92.3, note="on layer-wise AdaMerging; task modules, test images"),
    ),
}


def reported(slug: str) -> tuple[Reported, ...]:
    """What papers report of a method; empty where no primary source confirms a number."""
    return REPORTED.get(slug, ())
