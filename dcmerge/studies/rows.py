"""Rows of a comparison measured: here one after another, or on other machines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench, Evaluation
from dcmerge.methods import method
from dcmerge.methods.declare import values_text
from dcmerge.runtime.engines import Engine, Here
from dcmerge.studies.elsewhere import Opener, opened
from dcmerge.studies.measuring import SETTING, VARIANTS, IsCancelled, Progress, Row, Variant, measure, parameters_of, slug_of

#: What a method may fail with besides bad input without taking the others along: no memory, an SVD that does not converge.
FAILURES = (MemoryError, RuntimeError, ArithmeticError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RowMaker:
    """Measures one row after another: parameters by slug, and on what as ``measure`` takes it."""

    parameters: Mapping[str, Mapping[str, Any]]
    measured_on: Mapping[str, Any]

    def _title(self, name: str) -> str:
        """The method's; of a further setting with what differs from the defaults."""
        chosen = method(slug_of(name))
        if SETTING not in name:
            return chosen.title
        return f"{chosen.title} ({values_text(chosen.changed(parameters_of(name, self.parameters))) or 'defaults'})"

    def row(self, bench: Bench, name: str, progress: Progress | None = None, cancelled: IsCancelled | None = None) -> Row:
        """The row; with the reason where the method failed. Raises Cancelled."""
        if cancelled and cancelled():
            raise Cancelled
        chosen = VARIANTS.get(name) or Variant(slug_of(name), self._title(name))
        given = {**parameters_of(name, self.parameters), **chosen.parameters}
        how = {"scale": chosen.scale, "progress": progress, "cancelled": cancelled}
        try:
            row = measure(bench, chosen.slug, given, **how, **self.measured_on)
            return replace(row, name=name, title=chosen.title)
        except InputError as error:
            return Row(name, chosen.title, given, error=str(error))
        except FAILURES as error:
            log.exception("%s failed", name)
            reason = (str(error).splitlines() or [""])[0]
            return Row(name, chosen.title, given, error=f"{type(error).__name__}: {reason}")


@dataclass(frozen=True, eq=False)
class _RowElsewhere:
    """The same on another machine; ``experts``: their rows, which it need not measure again."""

    opener: Opener
    maker: RowMaker
    experts: Sequence[Evaluation] = field(repr=False)

    def __call__(self, name: str) -> Row:
        bench = opened(self.opener)
        for one in self.experts:
            bench.remember(one)
        return self.maker.row(bench, name)


def measured_rows(
    bench: Bench,
    names: Sequence[str],
    maker: RowMaker,
    part: Callable[[int], Progress],
    cancelled: IsCancelled | None,
    engine: Engine | None,
    opener: Opener | None,
) -> Iterator[tuple[str, Row]]:
    """(name, row) as they are ready; ``part`` is the progress of the row that is the so-and-so-many-th to come."""
    if opener is None:
        yield from ((name, maker.row(bench, name, part(place), cancelled)) for place, name in enumerate(names))
        return
    on = maker.measured_on
    looks = ((on["split"], on["limit"]), ("val", on["val_limit"]))
    experts = [bench.experts(split=split, limit=limit, cancelled=cancelled) for split, limit in looks]
    elsewhere = (engine or Here()).map(_RowElsewhere(opener, maker, experts), names, cancelled)
    for place, (name, row) in enumerate(elsewhere):
        part(place)(1.0, row.title)
        yield name, row
