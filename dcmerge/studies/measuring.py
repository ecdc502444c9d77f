"""One method measured: merge, choose α on validation, report once on test; and the two references, zero-shot and experts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dcmerge.checkpoints.schemes import NONE
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Bench, Difference, Drift, Evaluation, Scale, choose_scale
from dcmerge.merging.merge import merge
from dcmerge.merging.recipe import check_scale
from dcmerge.methods import method
from dcmerge.runtime.peak import PeakMemory
from dcmerge.studies.diagnosis import DirSim, diagnose
from dcmerge.vectors.mix import Mix

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]

TITLES = {ZERO_SHOT: "Zero-shot (the base)", EXPERTS: "Experts, each on its own task"}
#: Adaptive methods report their gain over it, at the papers' fixed α and at the best one.
TASK_ARITHMETIC = "task_arithmetic"


@dataclass(frozen=True)
class Variant:
    """A second row of a method, in another setting than the one that is compared by default."""

    slug: str
    title: str
    scale: Scale | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


PAPERS = f"{TASK_ARITHMETIC}-0.3"
VARIANTS = {
    PAPERS: Variant(TASK_ARITHMETIC, "Task Arithmetic, α = 0.3 (papers')", Scale(0.3, "fixed: the α of the papers")),
    "adamerging-test": Variant("adamerging", "AdaMerging on the test stream, without labels", parameters={"images": "test"}),
    "adarank-test": Variant("adarank", "AdaRank on the test stream, without labels", parameters={"images": "test"}),
}


#: Between a method and which of its settings a row is: "ties#2" is another one than "ties".
SETTING = "#"


def slug_of(name: str) -> str:
    """The method of a row's name."""
    return VARIANTS[name].slug if name in VARIANTS else name.partition(SETTING)[0]


def parameters_of(name: str, given: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What is given for a row: by its own name, else by its method's."""
    return given.get(name, given.get(slug_of(name), {}))


def setting_names(slugs: Iterable[str]) -> list[str]:
    """Names of rows, one for each: a method that comes again is another setting of it."""
    seen: Counter[str] = Counter()
    names = []
    for slug in slugs:
        seen[slug] += 1
        names.append(slug if seen[slug] == 1 else f"{slug}{SETTING}{seen[slug]}")
    return names


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds of the three parts of a row. ``scale``: the search for α on validation.

    Methods share factors and bases, so ``merge`` is long for the first one that needs them and short for the others.
    """

    merge: float = 0.0
    scale: float = 0.0
    evaluation: float = 0.0


@dataclass(frozen=True, eq=False)
class Row:
    """One method, or a reference ("zero-shot", "experts"). A method that failed has an ``error`` and no figures.

    ``peak_bytes``: how much the process grew at most while merging (see ``PeakMemory``). ``dirsim`` and ``drift`` only where
    they were asked for. ``curve``: the loss of every step, of methods that train.
    """

    name: str
    title: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scale: Scale | None = None
    evaluation: Evaluation | None = None
    seconds: Seconds | None = None
    difference: Difference | None = None
    error: str | None = None
    peak_bytes: int | None = None
    dirsim: DirSim | None = None
    drift: Drift | None = None
    curve: tuple[float, ...] = ()
    #: How attention's q, k and v were merged, "split" or "fused"; None where there is nothing to choose.
    qkv: str | None = None
    #: This row minus Task Arithmetic, by the name of its row: at the papers' α and at the one chosen on validation.
    gains: Mapping[str, Difference] = field(default_factory=dict)
    #: What a reader should know of the merge at its α: see ``Merged.notes``.
    notes: tuple[str, ...] = ()
    #: How much each expert counted, and profiles over depth.
    mix: Mix = field(default_factory=Mix)

    @property
    def slug(self) -> str:
        """The method of the row; of a reference its name."""
        return slug_of(self.name)

    @property
    def is_reference(self) -> bool:
        return self.name in TITLES

    @property
    def measured(self) -> Evaluation:
        """``evaluation`` of a row that has figures: a reference, or a method that did not fail."""
        assert self.evaluation is not None, f"{self.name} failed: {self.error}"
        return self.evaluation

    @property
    def took(self) -> Seconds:
        """``seconds`` of a method that did not fail; references have none."""
        assert self.seconds is not None, f"{self.name} has no seconds: {self.error}"
        return self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; accuracies are shares, not percent."""
        measured = self.evaluation
        worst = measured.worst if measured else None
        return {
            "name": self.name,
            "title": self.title,
            "reference": self.is_reference,
            "error": self.error,
            "parameters": dict(self.parameters),
            "scale": asdict(self.scale) if self.scale else None,
            "accuracy": measured.to_dict() if measured else None,
            "worst": {"task": worst.task, "accuracy": worst.accuracy} if worst else None,
            "difference_to_average": asdict(self.difference) if self.difference else None,
            "gains": {name: asdict(gain) for name, gain in self.gains.items()},
            "seconds": asdict(self.seconds) if self.seconds else None,
            "peak_bytes": self.peak_bytes,
            "dirsim": asdict(self.dirsim) if self.dirsim else None,
            "drift": self.drift.to_dict() if self.drift else None,
            "curve": list(self.curve),
            "qkv": self.qkv,
            "notes": list(self.notes),
            "mix": self.mix.to_data(),
        }


def measure(
    bench: Bench,
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    scale: float | Scale | None = None,
    split: str = "test",
    limit: int | None = None,
    val_limit: int | None = None,
    diagnosed: bool = False,
    mix: Mix | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Row:
    """Merge with one method, choose α on validation unless ``scale`` is given, and evaluate once on the split.

    ``mix`` gives experts weights and profiles over depth. ``diagnosed`` adds DirSim and feature drift, outside the row's seconds.

    Raises InputError for a bad method, parameter or scale, Cancelled when ``cancelled()`` turns true.
    """
    chosen = method(slug)
    values = chosen.check(parameters or {})
    origin = scale if isinstance(scale, Scale) or scale is None else Scale(check_scale(scale), "given")
    tell = Share(progress, chosen.title)
    started = time.perf_counter()
    with PeakMemory() as peak:
        vectors = bench.vectors.mixed(mix)
        merged = merge(vectors, slug, bench=bench, progress=tell.part(0.0, 0.2), cancelled=cancelled, **values)
    merged_at = time.perf_counter()
    found = (
        origin
        or fixed_scale(slug)
        or choose_scale(bench, merged.deltas, limit=val_limit, progress=tell.part(0.2, 0.8), cancelled=cancelled)
    )
    scaled_at = time.perf_counter()
    model = merged.model(bench, found.value)
    last = tell.part(0.8 if found.curve else 0.2, 1.0)  # without a search the evaluation is most of the work
    evaluation = bench.evaluate(model, slug, split=split, limit=limit, progress=last, cancelled=cancelled)
    durations = Seconds(merged_at - started, scaled_at - merged_at, time.perf_counter() - scaled_at)
    why = diagnose(bench, merged.deltas, model, split=split, limit=limit, cancelled=cancelled) if diagnosed else (None, None)
    return Row(
        slug,
        chosen.title,
        values,
        found,
        evaluation,
        durations,
        None,
        None,
        peak.growth,
        *why,
        merged.curve,
        None if bench.vectors.qkv == NONE else bench.vectors.qkv,
        notes=merged.notes(found.value, found.origin),
        mix=vectors.mix,
    )


def fixed_scale(slug: str) -> Scale | None:
    """The scale of a method without a free one. With α chosen, averaging would be task arithmetic under another name."""
    chosen = method(slug)
    return Scale(chosen.usual_scale, f"fixed: {chosen.fixed_scale}") if chosen.fixed_scale else None


def references(
    bench: Bench,
    *,
    split: str = "test",
    limit: int | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> tuple[Row, Row]:
    """The zero-shot row and the experts' row, which the bench remembers."""
    tell = Share(progress, "")
    experts = bench.experts(split=split, limit=limit, progress=tell.part(0.0, 0.5), cancelled=cancelled)
    zero_shot = bench.zero_shot(split=split, limit=limit, progress=tell.part(0.5, 1.0), cancelled=cancelled)
    return Row(ZERO_SHOT, TITLES[ZERO_SHOT], evaluation=zero_shot), Row(EXPERTS, TITLES[EXPERTS], evaluation=experts)


class Share:
    """Parts of one progress bar, which never goes back."""

    def __init__(self, progress: Progress | None, title: str) -> None:
        self._progress, self._title, self._reached = progress, title, 0.0

    def part(self, start: float, end: float) -> Progress:
        """The progress of one part, between ``start`` and ``end`` of the whole."""

        def tell(share: float, text: str) -> None:
            self._reached = max(self._reached, start + (end - start) * share)
            if self._progress:
                self._progress(self._reached, f"{self._title}: {text}" if self._title else text)

        return tell
