"""The scale α: where one came from, and the search for it on validation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from dcmerge.evaluation.bench import Bench, Cancelled, Progress
from dcmerge.evaluation.models import TaskModule
from dcmerge.vectors.task_vectors import Delta

#: Where a best value at the lower end of the grid is looked at more closely, the steps between are a fifth as long.
_FINER = 5


@dataclass(frozen=True)
class Scale:
    """A scale α and where it came from; ``curve`` holds the (α, mean normalised validation accuracy) that were tried.

    The accuracies are absolute where an expert is right on no image, which leaves its ratio without meaning.
    """

    value: float
    origin: str
    curve: tuple[tuple[float, float], ...] = ()


def choose_scale(
    bench: Bench,
    merged: Mapping[str, Delta],
    *,
    modules: Mapping[str, TaskModule] | None = None,
    step: float = 0.1,
    last: float = 3.0,
    furthest: float = 10.0,
    nearest: float = 0.01,
    coarse: int = 4,
    limit: int | None = None,
    judge: Callable[[float], float] | None = None,
    judged_by: str = "validation split",
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Scale:
    """The α of the best mean normalised accuracy on validation, on the grid step, 2·step .. last.

    Every ``coarse``-th value is tried first, then every value between the best one's neighbours: with one maximum this
    finds the grid's best at a third of the cost; ``coarse`` 1 tries them all. While the best is the last value the grid
    goes on, up to ``furthest``; while it is the first, in fifths of it, down to ``nearest``: the sum of twenty experts is their
    mean at 0.05. Ties go to the smaller α of the grid, as in the authors' code. Test images are never looked at.
    An α at either end of what was tried says so in its origin, which goes into tables, recipes and cards.
    ``modules``: what each task adds, where a method makes such parts. ``judge``: what is largest at the best α instead of
    the accuracy, which ``judged_by`` names for the origin.
    """
    tried: dict[float, float] = {}
    end = round(last / step)
    # About so many values are tried: the first ones and those around the best. Only a search at a border goes on.
    expected = len(range(coarse, end, coarse)) + 1 + 2 * (coarse - 1)

    def measure(alphas: Iterable[float]) -> float:
        """Try these; the best of all that were tried."""
        new = [
            alpha for alpha in dict.fromkeys(_rounded(alpha) for alpha in alphas) if 0 < alpha <= furthest and alpha not in tried
        ]
        for alpha in new:
            if progress:
                progress(min(1.0, len(tried) / expected), f"α = {alpha:g} on validation")
            if judge:
                tried[alpha] = judge(alpha)
                continue
            model = bench.model(merged, alpha, modules) if modules else bench.merged_weights(merged, alpha)
            found = bench.evaluate(model, "merged", split="val", limit=limit, cancelled=cancelled)
            tried[alpha] = found.mean if found.mean_normalised is None else found.mean_normalised
        return max(sorted(tried), key=tried.__getitem__)

    best = measure(point * step for point in (*range(coarse, end, coarse), end))
    while best == _rounded(end * step) and end < round(furthest / step):
        end += coarse
        best = measure([end * step])
    best = measure(best + step * k for k in range(1 - coarse, coarse))
    while best == min(tried) and nearest < best <= step:
        grown = measure(max(nearest, best * k / _FINER) for k in range(1, 2 * _FINER) if k != _FINER)
        if tried[grown] == tried[best]:
            break  # a tie: the grid's own value stays
        best = grown
    origin = f"{judged_by}, {_images(bench, limit)} images a task{_at_border(best, tried)}"
    return Scale(best, origin, tuple(sorted(tried.items())))


def _at_border(best: float, tried: Collection[float]) -> str:
    """What to add where a better α may lie beyond those that were tried."""
    if len(tried) < 2 or min(tried) < best < max(tried):
        return ""
    return f"; the {'smallest' if best == min(tried) else 'largest'} value tried"


def _rounded(alpha: float) -> float:
    return round(alpha, 6)


def _images(bench: Bench, limit: int | None) -> str:
    sizes = sorted({len(bench.split(task, "val", limit)) for task in bench.tasks})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
