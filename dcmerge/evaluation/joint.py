"""Joint labels: the task of an image is not known, and the answer is one of all tasks' classes.

As the papers on merging LoRA adapters report it (KnOTS, Stoica et al. 2024, arXiv 2410.19735), all labels are united.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.evaluation.tasks import Task


@dataclass(frozen=True, eq=False)
class JointLabels:
    """All tasks' heads in one, (C, d) with rows of unit length, and the label of each row, (C,).

    Classes of exactly the same name are one label: a digit may be answered by either of two tasks with digits, and the letter "A"
    is not the kana "a". Every task's own rows stay, so that a label with several counts by the best of them. ``own``: the labels
    of a task's classes, by task.
    """

    heads: Tensor
    labels: Tensor
    own: Mapping[str, Tensor]

    @classmethod
    def of(cls, tasks: Mapping[str, Task]) -> JointLabels:
        """Of the tasks of a bench, whose heads all have one width."""
        ids: dict[str, int] = {}
        own = {
            name: torch.tensor([ids.setdefault(label.strip(), len(ids)) for label in task.classes])
            for name, task in tasks.items()
        }
        heads = torch.cat([torch.nn.functional.normalize(task.head, dim=-1) for task in tasks.values()])
        return cls(heads, torch.cat(list(own.values())), own)

    def hits(self, task: str, features: Tensor, labels: Tensor) -> Tensor:
        """Which images of a task are right, bool (N,); ``features`` (N, d), ``labels`` (N,) by the task's own classes."""
        return self.labels[(features @ self.heads.T).argmax(dim=1)] == self.own[task][labels]
