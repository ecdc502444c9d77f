"""One paragraph for a set: what its pairs are, what its experts share, and advice that rests on something measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dcmerge.studies.verdict.found import PairVerdict, SetFacts
from dcmerge.studies.verdict.words import CONFLICT, DEAD, DROWNS, DUPLICATE, TROUBLE, WORDS
from dcmerge.zoo.results import DemoResults, demo_results

#: The overlap of the demo's experts as this verdict finds it, in multiples of chance (a test measures it again).
DEMO_OVERLAP = 7.7
#: Methods that take the experts' directions apart, and methods that add entries: what is cited of them was measured on the demo.
_APART, _ADDED = ("dc_merge", "tsv_m", "iso_c"), ("task_arithmetic", "ties")
#: Sets whose overlap is within this factor of the demo's are told what was measured there.
_LIKE_DEMO = 2.5
_NAMED, _SPIKE = 4, 0.5
_ADVICE = {
    DUPLICATE: "Keep one of each, or give both less weight, because together they count double.",
    CONFLICT: "Measure what a merge costs each of them before you keep both: one takes back what the other one adds.",
    DROWNS: "Give the longer one less weight. On the demo, an expert three times as long as the other cost that one most of what "
    "it knew.",
}


def paragraph(pairs: Sequence[PairVerdict], facts: SetFacts, experts: int, dead: Sequence[str], adapters: bool) -> str:
    """Plain sentences, the trouble first. ``adapters``: the experts are; the cited methods were measured on full models."""
    told = [_counts(pairs, experts), *_trouble(pairs, dead), *_shared(facts)]
    return " ".join([*told, *([] if any(one.word in TROUBLE for one in pairs) else _evidence(facts, adapters))])


def _counts(pairs: Sequence[PairVerdict], experts: int) -> str:
    counted = [(word, sum(one.word == word for one in pairs)) for word in WORDS]
    told = ", ".join(f"{count} {word}" for word, count in counted if count)
    return f"{experts} experts make {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'}: {told}."


def _trouble(pairs: Sequence[PairVerdict], dead: Sequence[str]) -> Iterator[str]:
    if dead:
        yield f"{_listed(dead)} hardly changed the base. Check {'its file' if len(dead) == 1 else 'their files'}."
    for word in (one for one in TROUBLE if one != DEAD):
        found = [f"{one.first} and {one.second} ({one.reason})" for one in pairs if one.word == word]
        if found:
            yield f"{word.capitalize()}: {_listed(found)}. {_ADVICE[word]}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def _shared(facts: SetFacts) -> Iterator[str]:
    yield f"The mean cosine of two task vectors is {facts.cosine:.3f}."
    if facts.overlap is not None and facts.overlap_share is not None:
        yield (
            f"Their main directions overlap {facts.overlap:.1f} times as much as chance would have it, "
            f"{100 * facts.overlap_share:.0f} % of what is possible."
        )
    yield (
        f"What all have in common, their mean, holds {100 * facts.mean_share:.1f} % of their energy; with nothing in common it "
        f"would be {100 * facts.mean_share_apart:.1f} %."
    )
    if facts.concentration:
        spike = ", so that each changes mainly in one direction (a spike of rank one)" if facts.concentration > _SPIKE else ""
        yield f"{100 * facts.concentration:.0f} % of the energy lies in the largest singular value of each matrix{spike}."


def _evidence(facts: SetFacts, adapters: bool) -> Iterator[str]:
    """What was measured on the demo, for a set that is like it; that nothing was, for any other."""
    results = demo_results()
    like = facts.overlap is not None and DEMO_OVERLAP / _LIKE_DEMO <= facts.overlap <= DEMO_OVERLAP * _LIKE_DEMO
    if results is None or adapters or not like:
        yield "No method was measured on a set like this one for this advice, so compare some before you choose."
        return
    yield (
        f"On the demo, whose experts overlap {DEMO_OVERLAP:g} times as much as chance, methods that take directions apart "
        f"(DC-Merge, TSV-M, Iso-C) were {_gains(results, _APART)} points better than averaging, and Task Arithmetic and TIES "
        f"{_gains(results, _ADDED)}."
    )


def _gains(results: DemoResults, slugs: Sequence[str]) -> str:
    average = results.rows["average"].accuracy
    gains = [100 * (results.rows[slug].accuracy - average) for slug in slugs]
    return f"{min(gains):.0f} to {max(gains):.0f}"
