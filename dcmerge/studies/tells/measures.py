"""What can be measured of a merge without labels, and in which direction each measure is hoped to point."""

from __future__ import annotations

import math
from dataclasses import dataclass

DIRSIM, ALIGNMENT, COSINE = "DirSim", "subspace alignment", "cosine"
INTERFERENCE, LENGTH = "interference", "length"
DRIFT, ENTROPY, AGREEMENT = "drift", "entropy", "agreement"


@dataclass(frozen=True)
class Measure:
    """``images``: needs unlabeled images. ``larger``: a larger value is hoped to mean a better merge."""

    name: str
    images: bool
    larger: bool
    about: str

    def score(self, value: float) -> float:
        """The value so turned that larger is hoped to be better; of a length how near it is to the expert's, by ratio."""
        if self.name == LENGTH:
            return -abs(math.log(max(value, 1e-12)))
        return value if self.larger else -value


#: Every measure has a value a task; over all tasks it is their mean.
MEASURES = {
    one.name: one
    for one in (
        Measure(DIRSIM, False, True, "how well the merged matrices point where the expert's pointed; α does not change it"),
        Measure(
            ALIGNMENT,
            False,
            True,
            "how much of the expert's change lies in the merge's main directions; α does not change it",
        ),
        Measure(COSINE, False, True, "cosine of the merged and the expert's matrices; α does not change it"),
        Measure(
            INTERFERENCE,
            False,
            False,
            "how far the merge's answers to the expert's own rows lie from the expert's (WUDI's loss), 1 for the base",
        ),
        Measure(LENGTH, False, False, "length of the merged change over that of the expert's; the nearer to 1 the better"),
        Measure(DRIFT, True, False, "how far the features lie from the expert's on unlabeled images, 1 for the base"),
        Measure(ENTROPY, True, False, "mean entropy of the answers on unlabeled images, in nats"),
        Measure(AGREEMENT, True, True, "share of unlabeled images on which the merge answers as the task's expert does"),
    )
}
