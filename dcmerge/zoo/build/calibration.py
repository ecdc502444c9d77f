"""The base's own logit scale: learned, or its proxies', whichever makes its confidences fit its accuracy on validation."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from dcmerge.evaluation.confidence import confidence_of
from dcmerge.zoo.build import pools
from dcmerge.zoo.build.model import normalise, tokenizer, zero_shot_head
from dcmerge.zoo.build.tasks import Task

log = logging.getLogger(__name__)

FILE = "calibration.json"
CLIP = 100.0  # reported beside the others


@torch.no_grad()
def cosines(model: open_clip.CLIP, work: Path, tasks: Sequence[Task], part: str = "val") -> dict[str, tuple[Tensor, Tensor]]:
    """Task -> cosines of its images with its zero-shot head (n, classes), and labels (n,)."""
    model.eval()
    found, tokenize = {}, tokenizer()
    for task in tasks:
        images, labels = pools.load(work, task.name, part)
        feature = nn.functional.normalize(model.visual(normalise(images)), dim=-1)
        found[task.name] = feature @ zero_shot_head(model, tokenize, task).T, torch.as_tensor(labels)
    return found


def at_scale(found: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> dict[str, float]:
    """Means over tasks: cross-entropy ("nll"), calibration error ("ece"), "confidence" and "accuracy"."""
    rows = []
    for cosine, labels in found.values():
        one = confidence_of(cosine, labels, scale)
        rows.append((float(nn.functional.cross_entropy(scale * cosine, labels)), one.error, one.mean, one.accuracy))
    means = np.mean(rows, axis=0)
    return {name: round(float(mean), 4) for name, mean in zip(("nll", "ece", "confidence", "accuracy"), means, strict=True)}


def calibrate(model: open_clip.CLIP, work: Path, run: Path, tasks: Sequence[Task], proxies: float) -> None:
    """Choose the scale by the calibration error on validation and keep run/calibration.json."""
    learned = round(float(model.logit_scale.detach().exp()), 4)
    found = cosines(model, work, tasks)
    at = {scale: at_scale(found, scale) for scale in (learned, proxies, CLIP)}
    chosen = min((learned, proxies), key=lambda scale: at[scale]["ece"])
    facts = {
        "logit_scale": chosen,
        "learned": learned,
        "proxies": proxies,
        "chosen_by": "calibration error on validation, mean over tasks, of the learned scale and the proxies'",
        "validation": {f"{scale:g}": values for scale, values in at.items()},
    }
    (run / FILE).write_text(json.dumps(facts, indent=1) + "\n")
    log.info("logit scale %s", facts)


def load(run: Path) -> dict:
    """What calibrate kept; "logit_scale" is the base's own."""
    return json.loads((run / FILE).read_text())
