"""Small result objects worked by hand, for figures."""

from __future__ import annotations

import torch

from dcmerge.evaluation import Drift, Evaluation, Scale, paired_difference
from dcmerge.evaluation.accuracy import TaskAccuracy
from dcmerge.spectral.spectra import key_figures
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.diagnosis import DirSim
from dcmerge.studies.inspection import LayerSpectra, TaskSpectrum
from dcmerge.studies.measuring import Row, Seconds

TITLES = {"birds": "Birds", "cars": "Cars"}


def evaluation(model: str, *right: int, images: int = 10, split: str = "val", expert: float | None = 0.8) -> Evaluation:
    """The first ``right`` of the images of each task are classified correctly."""
    rows = {task: TaskAccuracy(task, torch.arange(images) < count, expert) for task, count in zip(TITLES, right, strict=True)}
    return Evaluation(model, split, rows, images)


def layer_spectra() -> LayerSpectra:
    """Two tasks with four components, two of them kept and averaged."""

    def spectrum(task: str, *s: float) -> TaskSpectrum:
        raw = torch.tensor(s)
        smoothed = raw[:2].mean().expand(2).clone()
        return TaskSpectrum(task, raw, smoothed, smoothed / 2, key_figures(raw), key_figures(smoothed))

    tasks = (spectrum("birds", 4.0, 2.0, 1.0, 0.0), spectrum("cars", 3.0, 3.0, 2.0, 1.0))
    return LayerSpectra("visual.transformer.resblocks.1.mlp.c_fc.weight", 2, "average", tasks)


def comparison(*, diagnosed: bool = True) -> Comparison:
    """Zero-shot, averaging, TIES, SLERP that failed, experts."""
    average, ties = evaluation("average", 4, 6, split="test"), evaluation("ties", 6, 7, split="test")
    base = ((2.0, 4.0), (2.0, 1.0))
    drift = Drift(tuple(TITLES), ("block 1", "features"), ((1.0, 1.0), (0.5, 1.0)), base, 5)
    layers = ("visual.transformer.resblocks.0.mlp.c_fc.weight", "visual.proj")
    similarity = DirSim(0.3, {"birds": 0.2, "cars": 0.4}, layers, ((0.1, 0.3), (0.2, 0.6)))
    why = {"dirsim": similarity, "drift": drift} if diagnosed else {}
    rows = (
        Row("zero-shot", "Zero-shot (the base)", evaluation=evaluation("zero-shot", 2, 4, split="test")),
        Row("average", "Weight averaging", {}, Scale(1.0, "fixed"), average, Seconds(0.5, 0.0, 1.0), peak_bytes=3 << 20, **why),
        Row(
            "ties",
            "TIES-Merging",
            {"density": 0.2, "aggregate": "mean"},
            Scale(0.4, "validation", ((0.4, 0.7),)),
            ties,
            Seconds(1.5, 2.5, 1.0),
            paired_difference(ties, average),
            peak_bytes=None,
            **why,
        ),
        Row("slerp", "SLERP", {"t": 0.5}, error="slerp merges 2 experts, got 8"),
        Row("experts", "Experts, each on its own task", evaluation=evaluation("experts", 8, 8, split="test")),
    )
    return Comparison("test", 10, 10, rows)
