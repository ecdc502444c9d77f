"""The bench on which merges are compared: one encoder, several tasks, the zero-shot and the expert rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, scaled_sum
from dcmerge.checkpoints.schemes import open_clip_weights
from dcmerge.evaluation.accuracy import Evaluation, TaskAccuracy, weak_experts
from dcmerge.evaluation.encoders import ImageEncoder
from dcmerge.evaluation.joint import JointLabels
from dcmerge.evaluation.models import Model, TaskModule, Weights
from dcmerge.evaluation.tasks import Split, Task
from dcmerge.evaluation.temperature import ASSUMED, LogitScale, scale_in_config, scale_in_file
from dcmerge.vectors.cache import Memo
from dcmerge.vectors.task_vectors import Delta, TaskVectors

Progress = Callable[[float, str], None]
Cancelled = Callable[[], bool]

ZERO_SHOT = "zero-shot"
EXPERTS = "experts"
#: Where images take more than this, in bytes, each task's pass the encoder on their own: joining them would copy them.
_JOINED = 256 << 20
#: How Hugging Face's names of the text tower begin, which is not read.
_TEXT_TOWER = ("text_model.", "text_projection.")


@dataclass(eq=False)
class Bench:
    """Evaluates weights on tasks. ``vectors`` gives the base and the experts, whose rows are computed once and remembered.

    The set may name its weights as Hugging Face's CLIP does: they are translated to the encoder's names when they are evaluated.
    ``extra``: weights of the encoder that no file of the set holds (a projection), under the encoder's names. ``notes``: what a
    reader of the accuracies must know. ``other_scale``: the logit scale where files beside the set say it.
    """

    encoder: ImageEncoder
    tasks: Mapping[str, Task]
    vectors: TaskVectors
    memo: Memo = field(default_factory=lambda: Memo(256 << 20), repr=False)
    extra: Weights = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    other_scale: LogitScale | None = None

    @cached_property
    def logit_scale(self) -> LogitScale:
        """The models' own temperature: learned, in the base's file; else of the files beside it, of the configuration, CLIP's."""
        learned = scale_in_file(self.vectors.base, "the base's file")
        return learned or self.other_scale or scale_in_config(self.encoder.config) or ASSUMED

    @cached_property
    def joint_labels(self) -> JointLabels:
        """The classes of all tasks in one head."""
        return JointLabels.of(self.tasks)

    @property
    def same_names(self) -> bool:
        """Whether the set calls its weights as the encoder does; methods that look into the encoder need that."""
        base = self.vectors.base
        return base is None or all(name in base.infos or name in self.extra for name in self.encoder.shapes)

    def base_weights(self) -> dict[str, Tensor]:
        """The base's weights that the encoder needs, float32; read once. InputError where it lacks some."""
        if self.same_names and not self.extra:
            return self.named_base()
        return self.memo.get("base weights", lambda: self.encoders_weights(self.named_base()))

    def named_base(self) -> dict[str, Tensor]:
        """The base's weights of the image tower, float32, under the set's own names; read once."""
        return self.memo.get("base as named", self._read_base)

    def _read_base(self) -> dict[str, Tensor]:
        base = self.vectors.base
        if base is not None:
            self._check_used(base)
        if base is None or self.same_names:
            names = list(self.encoder.shapes)
        else:
            names = [name for name, info in base.infos.items() if info.dtype.is_floating_point]
        weights = {
            name: self.vectors.base_tensor(name).float()
            for name in names
            if name not in self.extra and not name.startswith(_TEXT_TOWER)
        }
        self.encoder.check(self.encoders_weights(weights))
        return weights

    def _check_used(self, checkpoint: Checkpoint) -> None:
        """Raises InputError where the encoder would leave out a part of another model's image tower."""
        if self.same_names:
            return self.encoder.check_used(checkpoint.infos)
        shapes = {name: info.shape for name, info in checkpoint.infos.items() if info.dtype.is_floating_point}
        return self.encoder.check_used(open_clip_weights({n: torch.empty(s, device="meta") for n, s in shapes.items()}))

    def encoders_weights(self, weights: Weights) -> dict[str, Tensor]:
        """The encoder's weights out of weights under the set's names; what it lacks is taken from ``extra`` or stays lacking."""
        named = weights if self.same_names else open_clip_weights(weights)
        return {**self.extra, **{name: value for name, value in named.items() if name in self.encoder.shapes}}

    def weights_of(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """The encoder's weights of another whole model, under the encoder's names or the set's; other parts are not read."""
        self._check_used(checkpoint)
        floating = [name for name, info in checkpoint.infos.items() if info.dtype.is_floating_point]
        own = [name for name in floating if not name.startswith(_TEXT_TOWER)]
        if self.same_names:
            return {name: checkpoint.tensor(name) for name in own if name in self.encoder.shapes}
        return self.encoders_weights({name: checkpoint.tensor(name) for name in own})

    def merged_weights(self, merged: Mapping[str, Delta], scale: float) -> dict[str, Tensor]:
        """base + α · merged, as the encoder takes it."""
        return self.encoders_weights(self.named_base() | self.named_sums(merged, scale))

    def named_sums(self, merged: Mapping[str, Delta], scale: float) -> dict[str, Tensor]:
        """base + α · merged of these parameters alone, under the set's own names; what the encoder has not is left out."""
        base = self.named_base()
        return {name: scaled_sum(base[name], delta, scale) for name, delta in merged.items() if name in base}

    def model(self, merged: Mapping[str, Delta], scale: float, modules: Mapping[str, TaskModule] | None = None) -> Model:
        """base + α · merged, with what each task adds to it."""
        modules = modules or {}

        def own(task: str) -> dict[str, Tensor]:
            delta = modules[task].delta
            return self.merged_weights({n: delta(n, merged[n]) for n in merged} if delta else merged, scale)

        has_own = any(module.delta for module in modules.values())
        return Model(self.merged_weights(merged, scale), modules, own if has_own else None)

    def expert_weights(self, task: str) -> dict[str, Tensor]:
        """The weights of one expert."""
        return self.merged_weights({name: self.vectors.delta(name, task) for name in self.vectors.parameters}, 1.0)

    def select(self, tasks: Sequence[str]) -> Bench:
        """Only these tasks with their experts, in this order, nothing computed yet. Raises InputError for an unknown task."""
        return replace(
            self,
            vectors=self.vectors.select(tasks),
            tasks={task: self.tasks[task] for task in tasks},
            memo=Memo(self.memo.max_bytes),
        )

    @property
    def split_rules(self) -> dict[str, str]:
        """How validation and test images were chosen, in words, of every task that says it."""
        return {name: str(task.facts["split_rule"]) for name, task in self.tasks.items() if task.facts.get("split_rule")}

    def split(self, task: str, split: str, limit: int | None, seed: int = 0) -> Split:
        """A (limited) split of one task, drawn once."""
        key = ("split", task, split, limit, seed)
        return self.memo.get(key, lambda: self.tasks[task].split(split, limit, seed))

    def evaluate(
        self,
        weights: Weights | Model,
        model: str,
        *,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        normalise: bool = True,
        dtype: torch.dtype = torch.float32,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Evaluation:
        """Top-1 of one model on every task, decided by each task's own head.

        ``normalise`` adds the experts' accuracies on the same images (computed once, in float32). ``dtype`` is the encoder's;
        what is reported or kept is float32.
        """
        told = (lambda share: progress(share, f"{model}: {split} images")) if progress else None
        features = self.features(weights, split=split, limit=limit, seed=seed, dtype=dtype, told=told, cancelled=cancelled)
        experts = self.experts(split=split, limit=limit, seed=seed, cancelled=cancelled) if normalise else None
        is_one = not isinstance(weights, Model) or weights.is_one
        return self.judged(features, model, split=split, limit=limit, seed=seed, experts=experts, joint=is_one)

    def judged(
        self,
        features: Mapping[str, Tensor],
        model: str,
        *,
        split: str,
        limit: int | None,
        seed: int = 0,
        experts: Evaluation | None = None,
        joint: bool = True,
    ) -> Evaluation:
        """The accuracies of unit features (N, d) of these images, by task; ``experts`` normalises them.

        ``joint``: among all tasks' classes too, which has a meaning where one model serves all tasks.
        """
        rows = {}
        for name, own in features.items():
            labels = self.split(name, split, limit, seed).labels
            hits = (own @ self.tasks[name].head.T).argmax(dim=1) == labels
            united = int(self.joint_labels.hits(name, own, labels).sum()) if joint else None
            rows[name] = TaskAccuracy(name, hits, experts.tasks[name].accuracy if experts else None, united)
        return Evaluation(model, split, rows, limit, seed, self.split_rules, self.logit_scale)

    def features(
        self,
        weights: Weights | Model,
        *,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        told: Callable[[float], None] | None = None,
        cancelled: Cancelled | None = None,
    ) -> dict[str, Tensor]:
        """Unit features (N, d) of every task's images, by task, encoded in ``dtype``.

        All images pass the encoder in one go, or task by task where the model has a part for each. ``told`` hears of progress.
        """
        parts = {task: self.split(task, split, limit, seed) for task in self.tasks}
        return self._encoded(weights, parts, told, cancelled, dtype)

    def hits(
        self, weights: Weights | Model, parts: Mapping[str, Split], *, cancelled: Cancelled | None = None
    ) -> dict[str, Tensor]:
        """Which of these images a model gets right, bool (N,), by task."""
        features = self._encoded(weights, parts, None, cancelled)
        return {task: (own @ self.tasks[task].head.T).argmax(dim=1) == parts[task].labels for task, own in features.items()}

    def _encoded(
        self,
        weights: Weights | Model,
        parts: Mapping[str, Split],
        told: Callable[[float], None] | None,
        cancelled: Cancelled | None,
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, Tensor]:
        served = weights if isinstance(weights, Model) else Model(weights)
        small = sum(part.images.nbytes for part in parts.values()) <= _JOINED
        encode = self._encoded_at_once if served.is_one and small else self._encoded_by_task
        return encode(served, parts, told, cancelled, dtype)

    def _encoded_at_once(
        self,
        model: Model,
        parts: Mapping[str, Split],
        told: Callable[[float], None] | None,
        cancelled: Cancelled | None,
        dtype: torch.dtype,
    ) -> dict[str, Tensor]:
        images = torch.cat([part.images for part in parts.values()])
        encoder = model.encoder or self.encoder
        features = encoder.encode(model.weights, images, dtype=dtype, progress=told, cancelled=cancelled)
        return dict(zip(parts, features.split([len(part) for part in parts.values()]), strict=True))

    def _encoded_by_task(
        self,
        model: Model,
        parts: Mapping[str, Split],
        told: Callable[[float], None] | None,
        cancelled: Cancelled | None,
        dtype: torch.dtype,
    ) -> dict[str, Tensor]:
        features, encoder = {}, model.encoder or self.encoder
        for done, (task, part) in enumerate(parts.items()):
            if told:
                told(done / len(parts))
            module = model.modules.get(task, TaskModule())
            own = model.weights_for(task)
            features[task] = encoder.encode(
                own, part.images, edits=module.edits, repair=module.repair, dtype=dtype, cancelled=cancelled
            )
        return features

    def zero_shot(
        self,
        *,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Evaluation:
        """The base with each task's head, without fine-tuning; remembered."""
        images = {"split": split, "limit": limit, "seed": seed}
        return self.memo.get(
            (ZERO_SHOT, split, limit, seed),
            lambda: self.evaluate(self.base_weights(), ZERO_SHOT, **images, progress=progress, cancelled=cancelled),
        )

    def experts(
        self,
        *,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Evaluation:
        """Each expert on its own task; remembered."""
        key = (EXPERTS, split, limit, seed)
        return self.memo.get(key, lambda: self._evaluate_experts(split, limit, seed, progress, cancelled))

    def weak_experts(self, *, split: str = "val", limit: int | None = None) -> tuple[str, ...]:
        """What is wrong with the experts before anything is merged: those that do not beat the base on their own task."""
        return weak_experts(self.zero_shot(split=split, limit=limit), self.experts(split=split, limit=limit))

    def remember(self, evaluation: Evaluation) -> None:
        """Take over a zero-shot or an experts' row that was computed before, on the same images."""
        self.memo.get((evaluation.model, evaluation.split, evaluation.limit, evaluation.seed), lambda: evaluation)

    def _evaluate_experts(
        self, split: str, limit: int | None, seed: int, progress: Progress | None, cancelled: Cancelled | None
    ) -> Evaluation:
        rows = {}
        for name, task in self.tasks.items():
            if progress:
                progress(len(rows) / len(self.tasks), f"{EXPERTS}: {name}, {split} images")
            part = self.split(name, split, limit, seed)
            features = self.encoder.encode(self.expert_weights(name), part.images, cancelled=cancelled)
            hits = (features @ task.head.T).argmax(dim=1) == part.labels
            rows[name] = TaskAccuracy(name, hits, hits.double().mean().item())
        return Evaluation(EXPERTS, split, rows, limit, seed, self.split_rules, self.logit_scale)
