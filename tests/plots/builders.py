"""Small result objects worked by hand, for figures."""

from __future__ import annotations

import torch

from dcmerge.evaluation import Evaluation
from dcmerge.evaluation.accuracy import TaskAccuracy
from dcmerge.inspection import LayerSpectra, TaskSpectrum
from dcmerge.spectra import key_figures

TITLES = {"birds": "Birds", "cars": "Cars"}


def evaluation(model: str, *right: int, images: int = 10, split: str = "val", expert: float | None = 0.8) -> Evaluation:
    """The first ``right`` of the images of each task are classified correctly."""
    rows = {
        task: TaskAccuracy(task, torch.arange(images) < count, expert)
        for task, count in zip(TITLES, right, strict=True)
    }
    return Evaluation(model, split, rows, images)


def layer_spectra() -> LayerSpectra:
    """Two tasks with four components, two of them kept and averaged."""

    def spectrum(task: str, *s: float) -> TaskSpectrum:
        raw = torch.tensor(s)
        smoothed = raw[:2].mean().expand(2).clone()
        return TaskSpectrum(task, raw, smoothed, smoothed / 2, key_figures(raw), key_figures(smoothed))

    tasks = (spectrum("birds", 4.0, 2.0, 1.0, 0.0), spectrum("cars", 3.0, 3.0, 2.0, 1.0))
    return LayerSpectra("visual.transformer.resblocks.1.mlp.c_fc.weight", 2, "average", tasks)
