"""Measures a damage map: every part of a merged model put back, one at a time, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench, Scale
from dcmerge.evaluation.ordered import Hits, OrderedImages
from dcmerge.evaluation.prefixes import KEPT_BYTES, KeptTokens, Proof, changed, first_block
from dcmerge.evaluation.tasks import Split
from dcmerge.merging.merge import Merged, merge
from dcmerge.studies.damage.found import EXPERT, WITHOUT, DamageMap, Repaired
from dcmerge.studies.damage.plan import Plan, Units, units_of
from dcmerge.vectors.task_vectors import Delta

Progress = Callable[[float, str], None]
MERGED, EXPERTS, ZERO_SHOT, REPAIRED = "merged", "experts", "zero-shot", "repaired"


@dataclass(frozen=True, eq=False)
class Look:
    """One finished step: which images were right, bool (n,) by task. ``name``: see ``step_name``."""

    name: str
    hits: Mapping[str, Tensor] = field(repr=False)


def step_name(change: str, unit: str) -> str:
    return f"{change}: {unit}"


def damage(
    bench: Bench,
    plan: Plan,
    scale: Scale,
    *,
    merged: Merged | None = None,
    known: Mapping[str, Look] | None = None,
    on_look: Callable[[Look], None] | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> DamageMap:
    """Merge at ``scale``, and look at every change of the plan on validation images.

    ``merged``: the merge, where it is made already; ``known``: looks of an earlier run by name, which are not taken again;
    ``on_look`` hears of every new one.
    Raises InputError where the set cannot be merged so, Cancelled when ``cancelled()`` turns true.
    """
    frame = frame_of(bench, plan)
    looks = Looks(bench, plan, scale.value, dict(known or {}), on_look, progress, cancelled)
    looks.merges |= {"": merged.deltas} if merged else {}
    looks.total = 3 + len(frame.units) * len(plan.changes) + (len(frame.counts) if EXPERT in plan.changes else 0)
    looks.take(MERGED, lambda: looks.hits_of({}))
    looks.take(EXPERTS, lambda: looks.images.experts(cancelled))
    looks.take(ZERO_SHOT, lambda: looks.images.hits(bench.base_weights(), cancelled=cancelled))
    for unit, names in frame.units.items():
        for change in plan.changes:
            looks.changed(change, unit, names)
    if EXPERT in plan.changes:
        order = _first_half(map_of(plan, looks.known, frame, scale))
        for count in frame.counts:
            names = [name for unit in order[:count] for name in frame.units[unit]]
            looks.changed(REPAIRED, str(count), names)
    found = map_of(plan, looks.known, frame, scale)
    assert found is not None
    return found


@dataclass(frozen=True)
class Frame:
    """The parts of a model in the order of computation, how many numbers each has, and how many are merged in all."""

    units: Units
    sizes: Mapping[str, int]
    numbers: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many parts are repaired at once: 1, 2, 4 …, but not all of them, which would be the experts."""
        return tuple(1 << place for place in range(len(self.units).bit_length()) if 1 << place < len(self.units))


def frame_of(bench: Bench, plan: Plan) -> Frame:
    """What the encoder uses of the set. Raises InputError where the set cannot be merged or changed so."""
    vectors = bench.vectors
    if obstacle := plan.method.obstacle(vectors, bench):
        raise InputError(f"{plan.slug} {obstacle}")
    if WITHOUT in plan.changes and len(vectors.tasks) < 2:
        raise InputError("changes: expected at least two experts to leave one out, got one")
    used = bench.named_base()
    own = {unit: tuple(n for n in names if n in used) for unit, names in units_of(vectors, plan.by).items()}
    units = {unit: names for unit, names in own.items() if names}
    sizes = {unit: sum(vectors.parameters[name].numel for name in names) for unit, names in units.items()}
    return Frame(units, sizes, sum(info.numel for info in vectors.parameters.values()))


def map_of(plan: Plan, looks: Mapping[str, Look], frame: Frame, scale: Scale) -> DamageMap | None:
    """The map of the looks that are taken so far: parts that have all changes. None before base and experts are known."""
    if not {MERGED, EXPERTS, ZERO_SHOT} <= set(looks):
        return None
    units = tuple(unit for unit in frame.units if all(step_name(change, unit) in looks for change in plan.changes))
    changed = {change: {unit: looks[step_name(change, unit)].hits for unit in units} for change in plan.changes}
    merged, experts, zero_shot = (looks[name].hits for name in (MERGED, EXPERTS, ZERO_SHOT))
    found = DamageMap(units, merged, experts, zero_shot, changed, frame.sizes, (), scale.value, scale.origin)
    return replace(found, repaired=tuple(_repaired(found, looks, frame)))


def _repaired(found: DamageMap, looks: Mapping[str, Look], frame: Frame) -> Iterator[Repaired]:
    """The merge with its best parts repaired: chosen on the first half of the images, measured on the second."""
    taken = [count for count in frame.counts if step_name(REPAIRED, str(count)) in looks]
    if not taken:
        return
    order = _first_half(found)
    for count in (0, *taken):
        hits = looks[step_name(REPAIRED, str(count))].hits if count else found.merged
        extra = len(found.tasks) * sum(frame.sizes[unit] for unit in order[:count])
        yield Repaired(tuple(order[:count]), _mean_of_second_half(hits), extra, extra / max(frame.numbers, 1))


def _first_half(found: DamageMap | None) -> list[str]:
    """The parts, those first that gain most on the first half of the images."""
    assert found is not None
    return found.ranked(EXPERT, min(len(own) for own in found.merged.values()) // 2)


def _mean_of_second_half(hits: Hits) -> float:
    shares = [own[len(own) // 2 :].double().mean().item() for own in hits.values()]
    return sum(shares) / len(shares)


@dataclass(eq=False)
class Looks:
    """Takes looks one after another, and keeps what is merged for them."""

    bench: Bench
    plan: Plan
    scale: float
    known: dict[str, Look]
    on_look: Callable[[Look], None] | None
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    total: int = 1
    merges: dict[str, Mapping[str, Delta]] = field(default_factory=dict)
    done: int = 0

    def __post_init__(self) -> None:
        self.images = OrderedImages(self.bench, "val", self.plan.limit)

    def take(self, name: str, look: Callable[[], Hits]) -> Hits:
        """The look of that name, as it is known or anew."""
        if self.cancelled and self.cancelled():
            raise Cancelled
        self.done += 1
        if name not in self.known:
            if self.progress:  # not of what is known: who tells the time left counts from the first word
                self.progress(min(1.0, (self.done - 1) / self.total), name)
            self.known[name] = Look(name, look())
            if self.on_look:
                self.on_look(self.known[name])
        return self.known[name].hits

    def changed(self, change: str, unit: str, names: Iterable[str]) -> Hits:
        """Which images are right after one part was changed."""
        back = EXPERT if change == REPAIRED else change
        return self.take(step_name(change, unit), lambda: self.hits_of(dict.fromkeys(names, back)))

    def hits_of(self, changes: Mapping[str, str]) -> Hits:
        """Hits of the merge in which these parameters were changed, each task on its own images.

        Where the change is the same for all tasks (the base) they see one model. What the change does not touch is not computed
        again: passes begin at the first block that is another one than the merge's (see ``KeptTokens``).
        """
        if not changes:
            return self.images.hits(self._merged, cancelled=self.cancelled)
        same = not {EXPERT, WITHOUT} & set(changes.values())
        weights = self._weights(changes, "") if same else {}
        if same and not first_block(self.bench.encoder, changed(weights, self._merged)):
            return self.images.hits(weights, cancelled=self.cancelled)
        return {task: self._hits(weights or self._weights(changes, task), task) for task in self.bench.tasks}

    def _hits(self, weights: Mapping[str, Tensor], task: str) -> Tensor:
        """Which images of a task a model gets right that shares its first blocks with the merge."""
        part, bench, other = self._parts[task], self.bench, changed(weights, self._merged)
        if not other:  # the expert and the merge agree there
            return self.known[MERGED].hits[task]
        features = self._kept[task].features(weights, first_block(bench.encoder, other), self.cancelled)
        return (features @ bench.tasks[task].head.T).argmax(dim=1) == part.labels

    @cached_property
    def _parts(self) -> Mapping[str, Split]:
        return self.images.parts()

    @cached_property
    def _merged(self) -> Mapping[str, Tensor]:
        """The merge as the encoder takes it."""
        return self.bench.encoders_weights(self._whole)

    @cached_property
    def _kept(self) -> Mapping[str, KeptTokens]:
        """Every task's images on their way through the merge; the bytes are shared among the tasks by their images."""
        images, proof = sum(map(len, self._parts.values())), Proof()
        return {
            task: KeptTokens(self.bench.encoder, self._merged, part.images, KEPT_BYTES * len(part) // images, proof)
            for task, part in self._parts.items()
        }

    def _weights(self, changes: Mapping[str, str], task: str) -> Mapping[str, Tensor]:
        bench = self.bench
        return bench.encoders_weights(self._whole | {name: self._weight(name, change, task) for name, change in changes.items()})

    def _weight(self, name: str, change: str, task: str) -> Tensor:
        """One changed parameter."""
        if change == EXPERT:
            return self.bench.named_sums({name: self.bench.vectors.delta(name, task)}, 1.0)[name]
        if change == WITHOUT:
            return self.bench.named_sums({name: self._merge(task)[name]}, self.scale)[name]
        return self.bench.named_base()[name]

    @cached_property
    def _whole(self) -> dict[str, Tensor]:
        """The merged model under the set's own names."""
        return self.bench.named_base() | self.bench.named_sums(self._merge(""), self.scale)

    def _merge(self, without: str) -> Mapping[str, Delta]:
        """The merged task vector of all experts, or of all but one."""
        if without not in self.merges:
            bench = self.bench.select([t for t in self.bench.tasks if t != without]) if without else self.bench
            found = merge(bench.vectors, self.plan.slug, bench=bench, cancelled=self.cancelled, **self.plan.parameters)
            self.merges[without] = found.deltas
        return self.merges[without]
