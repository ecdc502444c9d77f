"""A bench for one's own models: an open_clip encoder by name, heads, and data sets around a set of task vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, open_checkpoint
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.checkpoints.schemes import open_clip_weights
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, ImageEncoder, Task
from dcmerge.evaluation.datasets import NO_IMAGES, SPLIT_RULES, LazySplits, Opened, open_data_set, prompts
from dcmerge.evaluation.datasets.templates import OWN_WORDING
from dcmerge.evaluation.heads import Head, read_head, text_heads
from dcmerge.evaluation.named import activation_note, named_encoder
from dcmerge.evaluation.temperature import LogitScale, scale_in, scale_in_file, scale_of_heads
from dcmerge.vectors.cache import Memo, default_store
from dcmerge.vectors.task_vectors import TaskVectors

Progress = Callable[[float, str], None]
#: What the bench remembers, in bytes: the base's weights, drawn images, features of experts.
_MEMO_BYTES = 4 << 30


@dataclass(frozen=True)
class BenchSpecification:
    """Where images, heads and encoder of a model set come from; plain data, checked.

    ``encoder``: an open_clip architecture or its configuration file. ``data``: a folder of data sets. ``datasets``: of tasks that
    are not called by their data set, its name or a folder, or "none" for a task that is not evaluated. ``heads``: a folder of
    head files; without it they are computed from the text tower. ``weights``: where the base lacks the text tower or projection,
    a file or one of open_clip's tags that has it. ``limit`` and ``val_limit``: at most so many test and validation images a task
    are held. ``download``: what is not on this machine may be fetched.
    """

    encoder: str
    data: str | None = None
    heads: str | None = None
    weights: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    split_rule: str = "task_arithmetic"
    limit: int | None = None
    val_limit: int | None = None
    download: bool = False

    @classmethod
    def of(cls, data: Any) -> BenchSpecification:
        """From a mapping of these names; raises InputError for an unknown or missing name and for a value of another kind."""
        known = {one.name for one in fields(cls)}
        if not isinstance(data, Mapping) or not set(data) <= known or "encoder" not in data:
            raise InputError(f"bench: expected encoder and some of {', '.join(sorted(known))}, got {data!r:.200}")
        return cls(**data)

    def __post_init__(self) -> None:
        for name in ("encoder", "data", "heads", "weights"):
            value = getattr(self, name)
            if value is None and name != "encoder":
                continue
            if not isinstance(value, str) or not value or "\0" in value:
                raise InputError(f"{name}: expected a text, got {value!r}")
        given = self.datasets.items() if isinstance(self.datasets, Mapping) else [(None, None)]
        if not all(isinstance(text, str) and text for pair in given for text in pair):
            raise InputError(f"datasets: expected a data set's name or folder for each task, got {self.datasets!r}")
        if self.split_rule not in SPLIT_RULES:
            raise InputError(f"split_rule: expected one of {', '.join(SPLIT_RULES)}, got {self.split_rule!r}")
        for name in ("limit", "val_limit"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name}: expected at least 1 image a task or none for all, got {value!r}")
        if not isinstance(self.download, bool):
            raise InputError(f"download: expected true or false, got {self.download!r}")

    def to_data(self) -> dict[str, Any]:
        """Plain data, from which ``of`` makes the same again."""
        return asdict(self)


def open_bench(
    vectors: TaskVectors, specification: BenchSpecification | None = None, *, progress: Progress | None = None, **values: Any
) -> Bench:
    """The bench of a model set; ``open_bench(vectors, encoder="ViT-B-32-quickgelu", data="~/data", heads="heads/")``.

    Data sets are opened and labels read; images are decoded when they are first needed (``progress`` hears of it), once for all
    times where there is a cache. Raises InputError for whatever is missing or does not fit: data sets, heads of another number of
    classes, an encoder with other weights.
    """
    given = specification or BenchSpecification.of(values)
    encoder = named_encoder(given.encoder)
    opened = _open_data_sets(vectors.tasks, given)
    more = _MoreWeights(vectors, encoder, given)
    extra = more.lacking()
    heads = _heads(opened, given, encoder, more, progress)
    store = default_store()
    tasks = {}
    for name, one in opened.items():
        _check_head(name, heads[name].rows, one, encoder)
        limits = {"val": given.val_limit, "test": given.limit}
        parts = {part: own.limited(limits[part]) for part, own in one.splits.items()}
        splits = LazySplits(parts, encoder.preprocess, store, progress)
        facts = {"source": one.source, "split_rule": one.rule + _held(limits), "head": heads[name].origin}
        tasks[name] = Task(name, one.title, one.classes, heads[name].rows, splits, facts=facts)
    computed = sorted({f"Heads: {text}." for text in {head.origin for head in heads.values()} if OWN_WORDING in text})
    notes = tuple(filter(None, [activation_note(given.encoder), *computed]))
    scale = more.logit_scale() or scale_of_heads({name: head.length for name, head in heads.items()})
    bench = Bench(encoder, tasks, vectors, Memo(_MEMO_BYTES), extra, notes, scale)
    if vectors.base is not None:
        bench.base_weights()
    return bench


def _held(limits: Mapping[str, int | None]) -> str:
    told = [f"{limit} of {part}" for part, limit in limits.items() if limit]
    return f"; at most {' and '.join(told)}, every class in its share" if told else ""


def _open_data_sets(tasks: Iterable[str], given: BenchSpecification) -> dict[str, Opened]:
    tasks = tuple(tasks)
    if unknown := [task for task in given.datasets if task not in tasks]:
        raise InputError(f"datasets: expected tasks of this set ({', '.join(tasks)}), got {', '.join(unknown)}")
    wanted = [task for task in tasks if given.datasets.get(task) != NO_IMAGES]
    if not wanted:
        raise InputError("datasets: expected images of at least one task, got none")
    return {
        task: open_data_set(task, given.data, named=given.datasets.get(task), rule=given.split_rule, download=given.download)
        for task in wanted
    }


def _heads(
    opened: Mapping[str, Opened], given: BenchSpecification, encoder: ImageEncoder, more: _MoreWeights, progress: Progress | None
) -> dict[str, Head]:
    """Each task's head."""
    if given.heads:
        found = {task: read_head(given.heads, [one.name, task, *one.aliases]) for task, one in opened.items()}
        return {task: replace(head, origin=f"file {head.origin}") for task, head in found.items()}
    sentences = {task: [prompts(one.kind, name) for name in one.classes] for task, one in opened.items()}
    heads = text_heads(encoder.config, more.all(), sentences, progress)
    told = f"made by the text tower of {more.origin} from {OWN_WORDING}; only head files give the numbers of the literature"
    return {task: Head(rows, None, told) for task, rows in heads.items()}


def _check_head(task: str, head: Tensor, one: Opened, encoder: ImageEncoder) -> None:
    if len(head) != len(one.classes):
        raise InputError(
            f"{shown(task)}: expected a head of {len(one.classes)} classes, as its data set has, got one of "
            f"{len(head)} ({shown(one.source)})"
        )
    if head.shape[1] != encoder.config["embed_dim"]:
        raise InputError(f"{shown(task)}: expected a head for embeddings of {encoder.config['embed_dim']}, got {head.shape[1]}")


class _MoreWeights:
    """What the image tower or the text tower needs beyond the set: from the base's own files, or from ``weights``."""

    def __init__(self, vectors: TaskVectors, encoder: ImageEncoder, given: BenchSpecification) -> None:
        self._vectors, self._encoder, self._given = vectors, encoder, given
        self._all: dict[str, Tensor] | None = None

    @property
    def origin(self) -> str:
        """Whose text tower it is."""
        return f"the weights {self._given.weights}" if self._given.weights else "the base"

    def lacking(self) -> dict[str, Tensor]:
        """Weights of the encoder that the set's base lacks, as far as they are to be had."""
        base = self._vectors.base
        if base is None:
            return {}
        names = open_clip_weights(
            {name: torch.empty(info.shape, device="meta") for name, info in base.infos.items() if info.dtype.is_floating_point}
        )
        lacking = [name for name in self._encoder.shapes if name not in names]
        if not lacking or len(lacking) == len(self._encoder.shapes):
            return {}
        return {name: self.all()[name].float() for name in lacking if name in self.all()}

    def logit_scale(self) -> LogitScale | None:
        """The one in ``weights``, whose text tower belongs to the base."""
        if not self._given.weights:
            return None
        path = Path(self._given.weights)
        whose = f"the weights {path.name}"
        return scale_in_file(open_checkpoint(path), whose) if path.exists() else scale_in(self.all(), whose)

    def all(self) -> dict[str, Tensor]:
        """Everything under open_clip's names; read once."""
        if self._all is None:
            self._all = open_clip_weights(self._read())
        return self._all

    def _read(self) -> dict[str, Tensor]:
        if self._given.weights:
            path = Path(self._given.weights)
            return _tensors(open_checkpoint(path)) if path.exists() else self._tagged(self._given.weights)
        base = self._vectors.base
        # Opened again: of the set's own view of the base what no expert has may be gone.
        return {} if base is None else _tensors(open_checkpoint(base.path))

    def _tagged(self, tag: str) -> dict[str, Tensor]:
        """Weights that open_clip offers on the hub."""
        import open_clip

        name = self._given.encoder
        known = [] if name.endswith(".json") else open_clip.list_pretrained_tags_by_model(name)
        if tag not in known:
            tags = f" or one of open_clip's tags of {name} ({', '.join(known)})" if known else ""
            raise InputError(f"weights: expected a file{tags}, got {shown(tag)}")
        if not self._given.download:
            raise InputError(f"weights: {tag} of {name} must be downloaded, and downloads are not allowed", "download")
        try:
            return dict(open_clip.create_model(name, pretrained=tag).state_dict())
        except Exception as error:  # the hub fails in many ways, none of them listed anywhere
            raise InputError(f"weights: could not fetch {tag} of {name}: {shown(reason(error))}") from None


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    if isinstance(checkpoint, LoraCheckpoint):
        raise InputError(f"weights: expected a whole model, got a LoRA adapter: {shown(checkpoint.path)}")
    return {name: checkpoint.tensor(name) for name, info in checkpoint.infos.items() if info.dtype.is_floating_point}
