"""How long a study will take, before it is started: by the merges of it that were made, else by the pace of the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from dcmerge.evaluation import Bench
from dcmerge.studies.tells.looks import Look
from dcmerge.studies.tells.plan import Plan, settings

#: Seconds until a worker has started and opened a small set; from so many merges on their own time tells more than a guess.
_START, _ENOUGH = 6.0, 3
#: What one of many merges takes with its measures, in units of the first DC-Merge, whose singular vectors the others share.
_A_MERGE = 0.5


def predicted_seconds(plan: Plan, bench: Bench, pace: float, merging: float, known: Mapping[int, Look]) -> tuple[int, float]:
    """How many merges are to be made, and about how long that takes.

    ``pace``: seconds an image; ``merging``: of the first merge; ``known``: merges that are made already, by number.
    """
    wanted = settings(plan, bench.vectors)
    left = sum(one.number not in known or known[one.number].setting != one for one in wanted)
    images = sum(min(plan.limit + plan.unlabeled, len(task.splits["val"])) for task in bench.tasks.values())
    spent = [look.seconds for look in known.values() if look.rows]
    one = fmean(spent) if len(spent) >= _ENOUGH else _A_MERGE * merging + len(plan.factors) * images * pace
    return left, _START + (2 * images * pace + left * one if left else 0.0) + (merging if not known else 0.0)
