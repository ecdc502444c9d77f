"""From a measurement to a run, and into the store without ever getting in the measurement's way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Evaluation, Scale
from dcmerge.merging.recipe import recipe_of
from dcmerge.methods import methods
from dcmerge.runs.run import Run, SetId, images_of
from dcmerge.runs.store import RunStore
from dcmerge.vectors.mix import Mix


def measured_run(
    bench: Bench,
    set_name: str,
    kind: str,
    method: str,
    evaluation: Evaluation,
    *,
    values: Mapping[str, Any] | None = None,
    scale: Scale | None = None,
    mix: Mix | None = None,
    **more: Any,
) -> Run:
    """The run of a model of this bench's set, merged with this mix; ``more`` are further fields of ``Run``.

    A registered method gets its recipe, for which the inputs are hashed (once in this process).
    """
    vectors, values = bench.vectors, dict(values or {})
    if method in methods() and "recipe" not in more:
        alpha, origin = (scale.value, scale.origin) if scale else (None, None)
        more["recipe"] = recipe_of(vectors.mixed(mix), method, values, alpha, origin, None).to_data()
    return Run(
        kind,
        SetId.of(vectors, set_name),
        method,
        evaluation,
        images_of(bench, evaluation.split, evaluation.limit, evaluation.seed),
        values,
        scale.value if scale else None,
        scale.origin if scale else "",
        **more,
    )


def keep(runs: Iterable[Run], store: RunStore | None = None) -> tuple[list[str], str]:
    """Record them; their ids, and why they could not be kept where they could not: what was measured stays good all the same."""
    try:
        return (store or RunStore()).record_all(runs), ""
    except InputError as error:
        return [], f"{str(error).rstrip('.')}; nothing was recorded"
