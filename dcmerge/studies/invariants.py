"""What must hold for every merging method, whoever wrote it: checked on small sets, by the tests and for methods from outside.

Every invariant is a function of a trial that raises ``Violation`` where it does not hold. What a method does not promise it
declares (see ``Method``), and then the invariant is not checked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.errors import Cancelled, InputError
from dcmerge.methods import Method, method
from dcmerge.methods.origins import told
from dcmerge.studies.trials import (
    IMAGES,
    LORA,
    NotForThis,
    Sets,
    Trial,
    Violation,
    merged_dense,
    parameters_of,
    relative_error,
    turned,
    vectors_of,
)
from dcmerge.vectors.task_vectors import TaskVectors

HOLDS, VIOLATED, NOT_CHECKED = "holds", "violated", "not checked"
#: Relative errors: of float32 sums in another order; of the same through an encoder.
_CLOSE, _CLOSE_ON_IMAGES = 1e-4, 1e-3
#: A merge of identical experts is at most so many times as long as the longest delta.
_LONGEST = 4.0


@dataclass(frozen=True)
class Finding:
    """What came of one invariant: "holds", "violated" or "not checked", and for the last two why."""

    name: str
    promise: str
    outcome: str
    text: str = ""


@dataclass(frozen=True)
class Invariant:
    """A promise in a sentence, and what checks it; ``excuse`` says why a method is excused from it, empty where it is not."""

    name: str
    promise: str
    check: Callable[[Trial], None]
    excuse: Callable[[Method], str] = lambda method: ""

    def on(self, trial: Trial) -> Finding:
        """Check it. A method that fails in any way violates it."""
        finding = Finding(self.name, self.promise, HOLDS)
        if why := self.excuse(trial.method):
            return replace(finding, outcome=NOT_CHECKED, text=why)
        try:
            self.check(trial)
        except NotForThis as reason:
            return replace(finding, outcome=NOT_CHECKED, text=str(reason))
        except (Violation, InputError) as error:
            return replace(finding, outcome=VIOLATED, text=str(error))
        except Exception as error:
            return replace(finding, outcome=VIOLATED, text=told(error, None))
        return finding


def check_method(
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[float, str], None] | None = None,
) -> list[Finding]:
    """Every invariant on one method with these parameters, its defaults otherwise (of methods that learn, few steps).

    Raises InputError for an unknown method or a bad parameter.
    """
    chosen = method(slug)
    values = chosen.check({**chosen.quick, **(parameters or {})})
    found = []
    with tempfile.TemporaryDirectory(prefix="dcmerge-check-") as folder:
        trial = Trial(slug, values, Sets(Path(folder)))
        for done, invariant in enumerate(INVARIANTS):
            if progress:
                progress(done / len(INVARIANTS), invariant.name)
            found.append(invariant.on(trial))
    return found


def _sound(merged: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every parameter once, in its shape, float32 and finite."""
    if merged.keys() != shapes.keys():
        raise Violation(f"merged {len(merged)} parameters of {len(shapes)}")
    for name, delta in merged.items():
        if tuple(delta.shape) != shapes[name]:
            raise Violation(f"{name}: shape {tuple(delta.shape)} instead of {shapes[name]}")
        if delta.dtype != torch.float32:
            raise Violation(f"{name}: {delta.dtype} instead of torch.float32")
        if not torch.isfinite(delta).all():
            raise Violation(f"{name}: NaN or infinity")


def _close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float = _CLOSE) -> None:
    for name in wanted:
        if not (error := relative_error(found[name], wanted[name])) < tolerance:
            raise Violation(f"{name}: differs by {error:.2g} of its norm")


def _equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    if other := [name for name in wanted if not torch.equal(found[name], wanted[name])]:
        raise Violation(f"{other[0]}: {what}")


def _sound_on(what: str, tasks: int | None = None, kind: str | None = None) -> Callable[[Trial], None]:
    """The check that the merge of that set is sound."""

    def check(trial: Trial) -> None:
        models = trial.sets.get(what, kind or trial.kind, tasks or trial.tasks)
        _sound(trial.merged(models), parameters_of(models))

    return check


def _no_change_at_all(trial: Trial) -> None:
    models = trial.sets.get("unchanged", trial.kind, trial.tasks)
    merged = trial.merged(models)
    _sound(merged, parameters_of(models))
    if moved := [name for name, delta in merged.items() if delta.any()]:
        raise Violation(f"{moved[0]}: is not zero")


def _identical_experts(trial: Trial) -> None:
    models = trial.sets.get("twins", trial.kind, trial.tasks)
    merged = trial.merged(models)
    _sound(merged, parameters_of(models))
    if trial.method.may_enlarge or trial.kind == IMAGES:
        return
    vectors = vectors_of(models)
    longest = max(float(d.norm()) for name in vectors.parameters for d in _dense_deltas(vectors, name))
    if long := [name for name, delta in merged.items() if delta.norm() > _LONGEST * longest]:
        raise Violation(f"{long[0]}: more than {_LONGEST:g} times as long as the longest delta")


def _dense_deltas(vectors: TaskVectors, name: str) -> list[Tensor]:
    return [delta if isinstance(delta, Tensor) else delta.dense() for delta in vectors.deltas(name)]


def _order(kind: str | None = None) -> Callable[[Trial], None]:
    def check(trial: Trial) -> None:
        models = trial.sets.get("usual", kind or trial.kind, trial.tasks)
        _close(
            trial.merged(turned(models)),
            trial.usual_merge if kind is None else trial.merged(models),
            _CLOSE_ON_IMAGES if trial.kind == IMAGES else _CLOSE,
        )

    return check


def _scaled_deltas(trial: Trial) -> None:
    """The factor 2 rounds nothing, so thresholds and elections see the same numbers."""
    once, twice = (trial.merged(trial.sets.get(what, trial.kind, trial.tasks)) for what in ("once", "doubled"))
    _close(twice, {name: 2 * delta for name, delta in once.items()})


def _float64(trial: Trial) -> None:
    double = trial.merged(trial.usual, dtype=torch.float64)
    if other := [name for name, delta in double.items() if delta.dtype != torch.float64]:
        raise Violation(f"{other[0]}: {double[other[0]].dtype} when float64 was asked for")
    _close(trial.usual_merge, double)


def _narrow(trial: Trial) -> None:
    for tasks in {trial.method.experts} if trial.method.experts else (2, 3, 7):
        _sound_on("narrow", tasks)(trial)


def _many_adapters(trial: Trial) -> None:
    _sound_on("narrow", trial.method.experts or 5, LORA)(trial)


def _factors_equal_dense(trial: Trial) -> None:
    adapters = trial.sets.get("usual", LORA, trial.tasks)
    _close(trial.merged(adapters), trial.merged(trial.sets.products(trial.tasks)))


def _bad_parameters(trial: Trial) -> None:
    if not trial.refused({"no_such_parameter": 1}):
        raise Violation("takes an unknown parameter")
    for name, declared in trial.method.parameters.items():
        for value in declared.constraint.invalid():
            if trial.refused({name: value}) != f"{name}: expected {declared.constraint.expected}, got {value!r}":
                raise Violation(f"{name}: takes {value!r}, expected {declared.constraint.expected}")


def _same_again(trial: Trial) -> None:
    """Twice alike, and what all methods share (factors, bases) is what it was: another method's merge tells."""
    models = trial.usual
    vectors = vectors_of(models)
    neighbour = "dc_merge" if trial.kind != LORA else "knots"
    before = merged_dense(vectors, neighbour)
    _equal(trial.merged(models), trial.usual_merge, "another value in the second run")
    _equal(
        merged_dense(vectors, neighbour),
        before,
        f"{neighbour} merges another value after it: what is shared was changed in place",
    )


def _not_shared(trial: Trial) -> None:
    models = trial.usual
    wanted = {name: delta.clone() for name, delta in trial.usual_merge.items()}
    for delta in trial.merged(models).values():
        delta.zero_()
    _equal(trial.merged(models), wanted, "is a view of what is shared: who changes the result changes the next merge")


def _part_of_the_whole(trial: Trial) -> None:
    names = tuple(list(parameters_of(trial.usual))[::3])
    part, whole = trial.merged(trial.usual, names=names), trial.usual_merge
    if set(part) != set(names):
        raise Violation(f"gives {', '.join(part)} where {', '.join(names)} were asked for")
    _equal(part, {name: whole[name] for name in names}, "another value when it is merged alone")


def _cancel(trial: Trial) -> None:
    told: list[str] = []
    for cancelled in (lambda: True, lambda: len(told) >= 1):
        try:
            trial.merged(trial.usual, progress=lambda share, text: told.append(text), cancelled=cancelled)
        except Cancelled:
            continue
        raise Violation("goes on when it is cancelled")


def _progress(trial: Trial) -> None:
    told: list[tuple[float, str]] = []
    trial.merged(trial.usual, progress=lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    if shares != sorted(shares) or not all(0 <= share < 1 for share in shares):
        raise Violation("goes back, or leaves 0 to 1")
    if missing := parameters_of(trial.usual).keys() - {text for _, text in told}:
        raise Violation(f"does not tell {sorted(missing)[0]}")


def _on_images(method: Method) -> str:
    return "it needs images, whose encoder works in float32" if "images" in method.needs else ""


def _adapters(method: Method) -> str:
    return "it needs images" if "images" in method.needs else ""


def _orders(method: Method) -> str:
    return "it declares that the order matters" if method.order_matters else ""


def _scales(method: Method) -> str:
    return "it declares that it is not homogeneous" if not method.homogeneous else _on_images(method)


def _sees_factors(method: Method) -> str:
    declared = "it declares that it looks at the factors" if method.sees_factors else ""
    return declared or ("it draws at random" if method.order_matters else "") or _adapters(method)


INVARIANTS = (
    Invariant("usual set", "Every parameter comes once, in its shape, float32 and finite.", _sound_on("usual")),
    Invariant("one task", "One expert alone can be merged.", _sound_on("usual", 1)),
    Invariant("permuted tasks", "The order of the experts does not matter.", _order(), _orders),
    Invariant("zero delta", "An expert that is still the base does no harm.", _sound_on("idle")),
    Invariant("zero deltas", "Experts that are all still the base merge to zero.", _no_change_at_all, _on_images),
    Invariant("identical experts", "Two equal experts give a finite merge that is not far longer than they.", _identical_experts),
    Invariant("scaled deltas", "Twice the deltas give twice the merge.", _scaled_deltas, _scales),
    Invariant("float64", "The merge in float32 agrees with that in float64.", _float64, _on_images),
    Invariant("narrow matrices", "More experts than rows or columns can be merged.", _narrow, _on_images),
    Invariant("adapter ranks", "LoRA adapters of different ranks can be merged.", _sound_on("ragged", kind=LORA), _adapters),
    Invariant("many adapters", "More LoRA directions than rows or columns can be merged.", _many_adapters, _adapters),
    Invariant(
        "permuted adapters", "The order of LoRA adapters does not matter.", _order(LORA), lambda m: _orders(m) or _adapters(m)
    ),
    Invariant("factors equal dense", "LoRA adapters merge like their dense products.", _factors_equal_dense, _sees_factors),
    Invariant("bad parameters", "A value outside the declared range is refused in one sentence.", _bad_parameters),
    Invariant("same again", "A second run gives equal bits, and other methods merge as before.", _same_again),
    Invariant("own result", "The result is not a view of what methods share.", _not_shared),
    Invariant("part of the whole", "Some parameters alone are merged as in the whole.", _part_of_the_whole),
    Invariant("cancel", "A merge that is cancelled stops.", _cancel),
    Invariant("progress", "The progress never goes back and names every parameter.", _progress),
)
