"""Runs made by hand: which images are right is written out, so that every figure can be counted."""

from __future__ import annotations

import torch

from dcmerge.evaluation import Evaluation, TaskAccuracy
from dcmerge.runs import Run, SetId

SET = SetId("demo", "a" * 32)


def hits(text: str) -> torch.Tensor:
    """ "1101" as a row of yes and no."""
    return torch.tensor([sign == "1" for sign in text])


def a_run(cats: str = "1100", dogs: str = "10", method: str = "ties", **more: object) -> Run:
    """A look at two tasks, four images of cats and two of dogs; the experts are right on all and on half of them."""
    tasks = {"cats": TaskAccuracy("cats", hits(cats), 1.0, 1), "dogs": TaskAccuracy("dogs", hits(dogs), 0.5)}
    evaluation = Evaluation(method, "val", tasks, 4, 0, {"cats": "by seed"})
    settings = {"kind": "look", "set": SET, "images": "some images", "values": {"density": 0.2}, "alpha": 0.5} | more
    return Run(method=method, evaluation=evaluation, **settings)  # type: ignore[arg-type]
