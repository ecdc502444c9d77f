"""What three models answer on the same images, and what became of each image in the merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOST, WON, BOTH, NEITHER = "lost", "won", "both right", "both wrong"
#: What became of an image, and what that means.
FATES = {
    LOST: "the expert is right, the merge is wrong",
    WON: "the merge is right, the expert is wrong",
    BOTH: "both are right",
    NEITHER: "both are wrong",
}
#: The three models, by the names of ``TaskAnswers``.
MODELS = BASE, EXPERT, MERGED = "base", "expert", "merged"


@dataclass(frozen=True, eq=False)
class Answers:
    """One model on n images: the class that it says, ``predicted`` int64 (n,), and by how much, ``margin`` float64 (n,).

    The margin is the logit of the true class minus that of the best other class: above 0 where the model is right, and e to its
    power is how many times as likely the model takes the true class to be as the other.
    """

    predicted: Tensor
    margin: Tensor

    @classmethod
    def of(cls, features: Tensor, head: Tensor, labels: Tensor, logit_scale: float) -> Answers:
        """From unit features (n, d) and a head (classes, d) of at least two classes."""
        logits = features @ head.T
        true = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        return cls(logits.argmax(dim=1), logit_scale * (true - others).double())


@dataclass(frozen=True, eq=False)
class TaskAnswers:
    """One task: the true classes ``labels`` int64 (n,), in the order of the bench's split, and what three models say."""

    task: str
    classes: tuple[str, ...]
    labels: Tensor
    base: Answers = field(repr=False)
    expert: Answers = field(repr=False)
    merged: Answers = field(repr=False)

    def answers(self, model: str) -> Answers:
        return {BASE: self.base, EXPERT: self.expert, MERGED: self.merged}[model]

    def right(self, model: str) -> Tensor:
        """Which images that model gets right, bool (n,)."""
        return self.answers(model).predicted == self.labels

    def places(self, fate: str) -> list[int]:
        """The images of that fate: those first on which expert and merge are furthest apart."""
        expert, merged = self.right(EXPERT), self.right(MERGED)
        chosen = {LOST: expert & ~merged, WON: merged & ~expert, BOTH: expert & merged, NEITHER: ~expert & ~merged}[fate]
        apart = (self.expert.margin - self.merged.margin).abs()
        return sorted(chosen.nonzero()[:, 0].tolist(), key=lambda place: (-apart[place].item(), place))

    def fate(self, place: int) -> str:
        expert, merged = bool(self.right(EXPERT)[place]), bool(self.right(MERGED)[place])
        return {(True, False): LOST, (False, True): WON, (True, True): BOTH, (False, False): NEITHER}[expert, merged]

    def confusion(self, model: str) -> Tensor:
        """How many images of each true class (row) the model takes for which class (column), int64 (classes, classes)."""
        count = len(self.classes)
        flat = self.labels * count + self.answers(model).predicted
        return torch.bincount(flat, minlength=count * count).reshape(count, count)

    def confused(self, most: int = 5) -> list[tuple[str, str, int]]:
        """The mistakes that the merge makes more often than the expert: true class, what it says, and how much more often."""
        more = (self.confusion(MERGED) - self.confusion(EXPERT)).fill_diagonal_(0)
        order = more.flatten().argsort(descending=True, stable=True)[:most].tolist()
        count = len(self.classes)
        found = [(self.classes[at // count], self.classes[at % count], int(more.flatten()[at])) for at in order]
        return [one for one in found if one[2] > 0]


@dataclass(frozen=True, eq=False)
class Lost:
    """All tasks. The images are those of ``bench.split(task, split, limit)``."""

    tasks: Mapping[str, TaskAnswers]
    split: str
    limit: int | None
