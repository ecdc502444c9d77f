"""How long a sweep will take, before it is started: by the pace of the encoder, and a guess at each merge."""

from __future__ import annotations

import time

from dcmerge.evaluation import Bench
from dcmerge.evaluation.ordered import OrderedImages
from dcmerge.merging.prediction import predicted_costs
from dcmerge.studies.sweep.axes import SCALE
from dcmerge.studies.sweep.plan import Plan

#: About how many α a point tries on its first images, how many of them see the later ones, and how many images are timed.
_TRIED, _KEPT, _TIMED = 6.0, 2.5, 32
#: Seconds until a worker has started and opened a small set.
_START = 6.0


def pace_of(bench: Bench) -> float:
    """Seconds that the encoder takes for an image on this machine, as busy as it is now; measured on a few."""
    weights, task = bench.base_weights(), next(iter(bench.tasks))
    images = bench.split(task, "val", None).images[:_TIMED]
    bench.encoder.encode(weights, images[:1])
    began = time.perf_counter()
    bench.encoder.encode(weights, images)
    return (time.perf_counter() - began) / len(images)


def merge_seconds(bench: Bench) -> float:
    """About how long the first merge takes, singular vectors included."""
    vectors = bench.vectors
    costs = predicted_costs(vectors.base, vectors.experts, vectors.parameters.values())
    return max(cost.seconds for title, cost in costs.items() if title == "DC-Merge")


def predicted_seconds(plan: Plan, bench: Bench, pace: float, merging: float, workers: int = 1) -> tuple[float, float]:
    """Until the last point is there, and until the look at test has ended.

    The first merge of each worker takes ``merging``; the later ones share its singular vectors, and take about a tenth.
    """
    images = OrderedImages(bench, "val", plan.limit)
    shares = images.shares() if plan.early else (1.0,)
    counts = [sum(images.count(task, share) for task in bench.tasks) for share in shares]
    searched = plan.scale is None and not plan.method.fixed_scale and SCALE not in {axis.name for axis in plan.axes}
    tried, kept = (_TRIED, _KEPT) if searched else (1.0, 1.0)
    looks = tried * counts[0] + kept * (counts[-1] - counts[0])
    points = len(plan.cells())
    until_points = _START + 2 * pace * counts[-1] + merging + points * (pace * looks + merging / 10) / workers
    tested = sum(len(bench.split(task, "test", plan.test_limit)) for task in bench.tasks) if plan.test else 0
    return until_points, until_points + 2 * pace * tested
