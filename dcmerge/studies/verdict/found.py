"""What a verdict says: the facts of every pair, for the whole models and by part, and the word that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dcmerge.studies.verdict.relations import Relations

#: So many standard deviations away from what independent experts have, a number is no chance any more.
BEYOND = 3.0


@dataclass(frozen=True)
class PairFacts:
    """Two experts, first and second, over some parameters.

    ``cosine`` of what they change, and ``cosine_by_chance``, its standard deviation for independent entries. ``conflict``: of
    the products |a| |b| of their entries, the share with opposite signs, and ``conflict_by_chance`` for shuffled entries.
    ``overlap``: how many times as much of their main directions they share as independent experts would, with ``outputs`` and
    ``inputs`` by side; None without a matrix. ``overlap_share``: of the most that is possible. ``norms``, and ``concentration``:
    share of the energy in each matrix's largest singular value, of both.
    """

    cosine: float
    cosine_by_chance: float
    conflict: float
    conflict_by_chance: float
    overlap: float | None
    outputs: float | None
    inputs: float | None
    overlap_share: float | None
    overlap_beyond_chance: bool
    norms: tuple[float, float]
    concentration: tuple[float, float]

    @property
    def norm_ratio(self) -> float | None:
        """The longer over the shorter; None where the shorter is zero."""
        short, long = sorted(self.norms)
        return long / short if short > 0 else None


def pair_facts(found: Relations, first: int, second: int) -> PairFacts:
    """The facts of two experts, by their places."""
    at = first, second
    norms = (found.norms[first].item(), found.norms[second].item())
    shared, chance, possible = (table[:, first, second] for table in (found.shared, found.chance, found.possible))
    spread = found.variance[:, first, second].sum().sqrt()
    return PairFacts(
        cosine=_ratio(found.inner[at], norms[0] * norms[1]),
        cosine_by_chance=float(found.entries) ** -0.5,
        conflict=_ratio(found.sizes[at] - found.signed[at], 2 * found.sizes[at]),
        conflict_by_chance=_ratio(found.shuffled_apart[at], found.shuffled[at]),
        overlap=_times(shared.sum(), chance.sum()),
        outputs=_times(shared[0], chance[0]),
        inputs=_times(shared[1], chance[1]),
        overlap_share=_times(shared.sum(), possible.sum()),
        overlap_beyond_chance=bool(shared.sum() - chance.sum() > BEYOND * spread),
        norms=norms,
        concentration=(_ratio(found.largest[first], found.energy[first]), _ratio(found.largest[second], found.energy[second])),
    )


def _ratio(part: Tensor, whole: Tensor | float) -> float:
    """0 where there is nothing to divide by: an expert that changed nothing agrees and disagrees with nobody."""
    return float(part) / float(whole) if float(whole) > 0 else 0.0


def _times(part: Tensor, whole: Tensor) -> float | None:
    return float(part) / float(whole) if float(whole) > 0 else None


@dataclass(frozen=True)
class PairVerdict:
    """One word for two experts, the numbers that made it, and the facts of every part of the model."""

    first: str
    second: str
    word: str
    reason: str
    whole: PairFacts
    parts: Mapping[str, PairFacts] = field(repr=False)
    part_words: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class SetFacts:
    """All experts together.

    ``cosine`` and ``overlap`` are means over the pairs of living experts. ``mean_share``: of the energy of all task vectors, the
    part that lies along their mean; ``mean_share_apart`` is what it is where they have nothing in common, 1/T. ``concentration``:
    of the energy of all matrices the share in their largest singular values.
    """

    cosine: float
    overlap: float | None
    overlap_share: float | None
    mean_share: float
    mean_share_apart: float
    concentration: float


@dataclass(frozen=True)
class Verdict:
    """Every pair of a set. ``lengths``: ‖τ‖ by task; ``parts``: the blocks or matrices that the pairs are told by, in order."""

    tasks: tuple[str, ...]
    by: str
    parts: tuple[str, ...]
    lengths: Mapping[str, float]
    pairs: tuple[PairVerdict, ...]
    facts: SetFacts
    text: str

    def pair(self, first: str, second: str) -> PairVerdict:
        """The verdict on two experts, in either order."""
        return next(one for one in self.pairs if {one.first, one.second} == {first, second})

    def words(self) -> dict[str, int]:
        """How many pairs each word has, in the order of the pairs."""
        found: dict[str, int] = {}
        for one in self.pairs:
            found[one.word] = found.get(one.word, 0) + 1
        return found


def set_facts(found: Relations, pairs: Sequence[PairFacts]) -> SetFacts:
    """Of the whole set; ``pairs`` are those of experts that changed something."""
    energy, T = found.inner.diagonal().sum(), len(found.inner)
    overlaps = [one.overlap for one in pairs if one.overlap is not None]
    shares = [one.overlap_share for one in pairs if one.overlap_share is not None]
    return SetFacts(
        sum(one.cosine for one in pairs) / max(1, len(pairs)),
        sum(overlaps) / len(overlaps) if overlaps else None,
        sum(shares) / len(shares) if shares else None,
        _ratio(found.inner.sum(), T * energy),
        1 / T,
        _ratio(found.largest.sum(), found.energy.sum()),
    )
