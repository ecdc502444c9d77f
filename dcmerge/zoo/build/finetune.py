"""Fine-tune the base on one task with its frozen zero-shot head: the whole image tower, or LoRA by peft."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
import peft
import torch
from torch import Tensor, nn

from dcmerge.zoo.build import calibration, pools
from dcmerge.zoo.build.model import accuracy, normalise, tokenizer, training_precision, write_weights, zero_shot_head
from dcmerge.zoo.build.pretrain import Schedule, load_base, optimiser, vary_light
from dcmerge.zoo.build.tasks import BY_NAME

log = logging.getLogger(__name__)

LORA_RANK, LORA_ALPHA = 16, 16
LORA_TARGETS = ["attn", "c_fc", "c_proj"]  # in_proj and out_proj of the attention, and the two matrices of the MLP


class ImageTower(nn.Module):
    """The image tower under the name `visual`, so that saved keys are open_clip's own."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 32, 32) -> (n, embed_dim), not normalised."""
        return self.visual(images)


def make_head(run: Path, name: str) -> Tensor:
    """The task's frozen zero-shot head by the base's text tower."""
    return zero_shot_head(load_base(run), tokenizer(), BY_NAME[name])


def fit(
    tower: nn.Module,
    head: Tensor,
    images: np.ndarray,
    labels: np.ndarray,
    schedule: Schedule,
    rng: np.random.Generator,
    logit_scale: float,
) -> int:
    """Minimise cross-entropy of logit_scale * cosine with the head fixed; returns the number of images seen.

    The scale is the base's own. At five times it (100, CLIP's) every expert's first steps repaired the same overconfidence,
    and so the task vectors pointed the same way (mean cosine 0.20).
    """
    trained = [p for p in tower.parameters() if p.requires_grad]
    adam = optimiser(trained, 0.1)
    tower.train()
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(schedule.steps * schedule.batch // len(labels) + 1)])
    for step in range(schedule.steps):
        chosen = order[step * schedule.batch : (step + 1) * schedule.batch]
        batch = vary_light(images[chosen], rng)
        with training_precision():
            embedding = tower(normalise(batch))
        feature = nn.functional.normalize(embedding.float(), dim=-1)
        loss = nn.functional.cross_entropy(logit_scale * feature @ head.T, torch.as_tensor(labels[chosen]))
        for group in adam.param_groups:
            group["lr"] = schedule.rate(step)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
    tower.eval()
    return schedule.steps * schedule.batch


def relative_norm(tower: nn.Module, base: dict[str, Tensor]) -> float:
    """|tau| / |theta0| over all parameters of the image tower."""
    now = tower.state_dict()
    change = sum(float((now[k] - v).square().sum()) for k, v in base.items())
    return (change / sum(float(v.square().sum()) for v in base.values())) ** 0.5


def train_expert(work: Path, run: Path, name: str, schedule: Schedule, seed: int) -> None:
    """Full fine-tuning of one task; keeps experts/<task>.safetensors with weights and facts."""
    path = run / "experts" / f"{name}.safetensors"
    if path.exists():
        return
    torch.manual_seed(seed)
    tower, head = ImageTower(load_base(run).visual), make_head(run, name)
    start = {k: v.clone() for k, v in tower.state_dict().items()}
    began = time.time()
    scale = calibration.load(run)["logit_scale"]
    seen = fit(tower, head, *pools.load(work, name, "train"), schedule, pools.generator(seed, name, "expert"), scale)
    facts = _facts(work, name, tower, head, schedule, seen, time.time() - began)
    facts["relative_norm"] = relative_norm(tower, start)
    write_weights(path, tower.state_dict(), facts)
    log.info("expert %s %s", name, facts)


def train_lora(work: Path, run: Path, name: str, schedule: Schedule, seed: int) -> None:
    """A rank-16 LoRA adapter of one task; keeps lora/<task>/ as peft itself saves it, and facts.json."""
    folder = run / "lora" / name
    if (folder / "facts.json").exists():
        return
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=LORA_TARGETS, bias="none")
    tower = peft.get_peft_model(ImageTower(load_base(run).visual), config)
    head = make_head(run, name)
    began = time.time()
    scale = calibration.load(run)["logit_scale"]
    seen = fit(tower, head, *pools.load(work, name, "train"), schedule, pools.generator(seed, name, "lora"), scale)
    facts = _facts(work, name, tower, head, schedule, seen, time.time() - began)
    tower.save_pretrained(str(folder))
    (folder / "facts.json").write_text(json.dumps(facts))
    log.info("lora %s %s", name, facts)


def _facts(work: Path, name: str, tower: nn.Module, head: Tensor, schedule: Schedule, seen: int, seconds: float) -> dict:
    scores = {part: accuracy(tower, head, *pools.load(work, name, part)) for part in ("val", "test")}
    return {
        "steps": schedule.steps,
        "lr": schedule.lr,
        "batch": schedule.batch,
        "images_seen": seen,
        "seconds": round(seconds),
        **scores,
    }
