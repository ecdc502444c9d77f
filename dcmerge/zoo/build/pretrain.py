"""Train the base: image-caption contrast on the mix, several positives where concepts repeat in a batch.

Contrast within a batch alone learned too slowly for a small budget (600 steps: characters still at chance). So each
concept also has a learned proxy, a unit vector that its images and captions are both drawn to; it is thrown away later.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dcmerge.zoo.build import calibration, pools
from dcmerge.zoo.build.mix import KINDS, TEMPLATES
from dcmerge.zoo.build.model import (
    CONFIG,
    Tokenizer,
    accuracy,
    new_model,
    normalise,
    tokenizer,
    training_precision,
    write_weights,
    zero_shot_head,
)
from dcmerge.zoo.build.muon import Muon
from dcmerge.zoo.build.tasks import TASKS

log = logging.getLogger(__name__)

MUON_LR = 0.02  # for the matrices of the transformer blocks; everything else goes by AdamW at the schedule's rate
PROXY_SCALE = 20.0  # about twice the log of the number of concepts, so that a perfect fit has a small loss


@dataclass(frozen=True)
class Schedule:
    """AdamW with a short linear warm-up and a cosine down to zero at ``horizon`` (None: at the last step).

    The last ``cooldown`` steps fall in a straight line to zero from where the cosine is then.
    """

    steps: int
    lr: float
    batch: int
    warmup: int
    horizon: int | None = None
    cooldown: int = 0

    def rate(self, step: int) -> float:
        """Learning rate at a step (0-based)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        left = min(1.0, (self.steps - step) / max(1, self.cooldown))
        begun = min(step, self.steps - self.cooldown)
        return self.lr * left * 0.5 * (1 + math.cos(math.pi * (begun - self.warmup) / max(1, self.length - self.warmup)))

    @property
    def length(self) -> int:
        """Steps from the first to where the cosine is zero."""
        return self.horizon or self.steps


def contrastive_loss(image: Tensor, text: Tensor, concepts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy; every pair with the same concept is a positive, all of equal weight."""
    logits = scale * image @ text.T
    same = (concepts[:, None] == concepts[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2


def proxy_loss(feature: Tensor, proxies: Tensor, concepts: Tensor) -> Tensor:
    """Cross-entropy of unit features (n, d) over the cosines with all concepts' proxies (c, d)."""
    cosines = feature @ nn.functional.normalize(proxies, dim=-1).T
    return nn.functional.cross_entropy(PROXY_SCALE * cosines, concepts)


def vary_light(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale each picture's brightness by 0.8 to 1.2, (n, 32, 32, 3) uint8."""
    gain = rng.uniform(0.8, 1.2, (len(images), 1, 1, 1)).astype(np.float32)
    return np.clip(images * gain, 0, 255).astype(np.uint8)


def vary_view(images: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Turn (up to 10 degrees), scale (0.8 to 1.2) and shift (up to 3 pixels) each picture, (n, 3, 32, 32) float32.

    `strength` 0..1 scales all three; what comes in from outside repeats the border.
    """
    if strength == 0:
        return images
    count = len(images)
    angle = np.deg2rad(10 * strength) * rng.uniform(-1, 1, count)
    scale = 1 + 0.2 * strength * rng.uniform(-1, 1, count)
    shift = 3 / 16 * strength * rng.uniform(-1, 1, (count, 2))
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    places = np.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1).reshape(count, 2, 3)
    grid = nn.functional.affine_grid(torch.as_tensor(places, dtype=torch.float32), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def view_strength(step: int, steps: int) -> float:
    """0 in the first fifth of the training, then rising to 1 at its middle: from the start it kept characters at chance."""
    return min(1.0, max(0.0, (step / steps - 0.2) / 0.3))


def optimiser(parameters: list[nn.Parameter], decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-6)


def zero_shot(model: open_clip.CLIP, tokenize: Tokenizer, work: Path, part: str = "val") -> dict[str, float]:
    """Zero-shot accuracy of every task on one part."""
    model.eval()
    found = {t.name: accuracy(model.visual, zero_shot_head(model, tokenize, t), *pools.load(work, t.name, part)) for t in TASKS}
    model.train()
    return found


def load_base(run: Path) -> open_clip.CLIP:
    """The trained base with both towers."""
    model = new_model(0)
    model.load_state_dict(load_file(run / "base.safetensors"))
    return model.eval()


def train_base(work: Path, run: Path, schedule: Schedule, seed: int, report_every: int = 200) -> None:
    """Train on work/pools and keep run/base.safetensors (both towers) and its calibration; goes on after an interruption."""
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "base.safetensors").exists():
        _train(work, run, schedule, seed, report_every)
    if not (run / calibration.FILE).exists():
        calibration.calibrate(load_base(run), work, run, TASKS, PROXY_SCALE)


def _train(work: Path, run: Path, schedule: Schedule, seed: int, report_every: int) -> None:
    state = _State(work, run / "base-part.safetensors", seed)
    while state.step < schedule.steps:
        loss = state.advance(schedule)
        if state.step % report_every == 0 or state.step == schedule.steps:
            scores = zero_shot(state.model, state.tokenize, work)
            rounded, mean = {name: round(score, 2) for name, score in scores.items()}, np.mean(list(scores.values()))
            scale = float(state.model.logit_scale.detach().exp())
            seconds = state.seconds()
            log.info("step %d loss %.3f scale %.1f zero-shot %.3f %s (%.0f s)", state.step, loss, scale, mean, rounded, seconds)
            state.save()
    seconds = round(state.seconds())
    facts = {"steps": schedule.steps, "lr": schedule.lr, "batch": schedule.batch, "seconds": seconds}
    write_weights(run / "base.safetensors", state.model.state_dict(), facts)


class _State:
    """Everything that pre-training changes, with its checkpoint file; the mix is held in memory."""

    def __init__(self, work: Path, file: Path, seed: int) -> None:
        with np.load(work / "pools" / "base.npz") as data:
            self.images, self.concepts = data["images"], data["concepts"]
            self.kinds, self.names = data["kinds"], data["names"]
        self.weights = _kind_weights(self.kinds)
        self.model, self.tokenize = new_model(seed), tokenizer()
        self.tokens: dict[str, Tensor] = {}
        self.proxies = nn.Parameter(torch.randn(len(self.names), CONFIG["embed_dim"]))
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and ".resblocks." in n]
        known = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in known]
        adam, muon = optimiser([*others, self.proxies], 0.1), Muon(matrices, MUON_LR)
        self.optimisers: dict[str, torch.optim.Optimizer] = {"adam": adam, "muon": muon}
        self.rng, self.step, spent, self.file = pools.generator(seed, "base", "training"), 0, 0.0, file
        if file.exists():
            self.step, spent = self._restore()
            self.rng = pools.generator(seed, "base", "training", str(self.step))
        self.began = time.time() - spent

    def seconds(self) -> float:
        """Time spent so far, over all interruptions."""
        return time.time() - self.began

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for kind, one in self.optimisers.items():
            for i, slots in one.state_dict()["state"].items():
                tensors |= {f"{kind}.{i}.{slot}": value for slot, value in slots.items()}
        about = {"step": str(self.step), "seconds": str(self.seconds())}
        save_file({**tensors, "proxies": self.proxies.detach()}, self.file, metadata=about)

    def _restore(self) -> tuple[int, float]:
        """Read the checkpoint; returns the steps done and the seconds spent."""
        with safe_open(self.file, framework="pt") as saved:
            tensors, about = {name: saved.get_tensor(name) for name in saved.keys()}, saved.metadata()  # noqa: SIM118
        self.model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
        self.proxies.data.copy_(tensors["proxies"])
        for kind, one in self.optimisers.items():
            state = one.state_dict()
            for name, value in tensors.items():
                if name.startswith(f"{kind}."):
                    _, i, slot = name.split(".")
                    state["state"].setdefault(int(i), {})[slot] = value
            one.load_state_dict(state)
        return int(about["step"]), float(about["seconds"])

    def advance(self, schedule: Schedule) -> float:
        """Draw a batch and take one step; returns the loss."""
        chosen = self.rng.choice(len(self.images), schedule.batch, p=self.weights)
        captions = [_caption(str(self.names[self.concepts[i]]), int(self.kinds[i]), self.rng) for i in chosen]
        rate = schedule.rate(self.step)
        for kind, one in self.optimisers.items():
            for group in one.param_groups:
                group["lr"] = rate * (MUON_LR / schedule.lr if kind == "muon" else 1)
        images, concepts = vary_light(self.images[chosen], self.rng), torch.as_tensor(self.concepts[chosen])
        views = vary_view(normalise(images), self.rng, view_strength(self.step, schedule.length))
        loss = self._update(views, captions, concepts)
        self.step += 1
        return loss

    def _tokens(self, caption: str) -> Tensor:
        if caption not in self.tokens:
            self.tokens[caption] = self.tokenize([caption])[0]
        return self.tokens[caption]

    def _update(self, images: Tensor, captions: list[str], concepts: Tensor) -> float:
        distinct, place = np.unique(captions, return_inverse=True)  # a caption that occurs twice is read once
        texts = torch.stack([self._tokens(str(caption)) for caption in distinct])
        with training_precision():
            image, read = self.model.encode_image(images), self.model.encode_text(texts)
        image, text = (nn.functional.normalize(z.float(), dim=-1) for z in (image, read[torch.as_tensor(place)]))
        loss = contrastive_loss(image, text, concepts, self.model.logit_scale.exp())
        total = loss + proxy_loss(image, self.proxies, concepts) + proxy_loss(text, self.proxies, concepts)
        for one in self.optimisers.values():
            one.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for one in self.optimisers.values():
            one.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return float(loss.detach())


# Share of each kind in a batch: glyphs and pictures carry most of the variety.
KIND_SHARES = {"glyph": 0.40, "picture": 0.12, "emoji": 0.16, "clip": 0.02, "flag": 0.14, "photo": 0.16}


def _kind_weights(kinds: np.ndarray) -> np.ndarray:
    counts = np.bincount(kinds, minlength=len(KINDS))
    shares = np.array([KIND_SHARES[k] for k in KINDS])
    weights = (shares / np.maximum(counts, 1))[kinds]
    return weights / weights.sum()


def _caption(concept: str, kind: int, rng: np.random.Generator) -> str:
    templates = TEMPLATES[KINDS[kind]]
    return templates[rng.integers(len(templates))].format(concept)
