"""From the facts of two experts to one word, with the numbers that made it.

What chance gives is derived (``chance_overlap``, shuffled signs); the bounds below are conventions. Two of them rest on the demo:
its pairs of like tasks (letters, kana and house numbers) have cosines of 0.12 to 0.18, all others at most 0.06; and with one of
two experts made three times as long, the other one fell from 96 to 61 % of its own accuracy (clothes and emoji, Task Arithmetic
at its best α), at twice the length to 74 %.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcmerge.studies.verdict.found import BEYOND, PairFacts

INDEPENDENT, REINFORCING, CONFLICT = "independent", "reinforcing", "in conflict"
DUPLICATE, DEAD, DROWNS = "duplicate", "dead", "one drowns the other"
#: Every word and what it means, those to act on first.
MEANINGS = {
    DEAD: "one of the two hardly changed the base, so there is nothing to merge: is it the right file?",
    DUPLICATE: "both made the same change, perhaps of another length: together they count double",
    CONFLICT: "they pull in opposite directions, or fill the same directions with different things",
    DROWNS: "one is so much longer that the other hardly shows in the merge",
    REINFORCING: "a part of their change is the same, and adds up in a merge",
    INDEPENDENT: "as wholes they neither add up nor cancel; the overlap says whether they use the same directions",
}
WORDS = tuple(MEANINGS)
#: What somebody should look at before merging.
TROUBLE = (DEAD, DUPLICATE, CONFLICT, DROWNS)

#: An expert shorter than this share of the set's longest, or of the base, is dead: rounding to 16 bits alone can make as much.
DEAD_SHARE, DEAD_OF_BASE = 1e-3, 1e-6
DUPLICATE_COSINE = 0.95
#: A cosine beyond this, up or down, and beyond what chance gives so few entries; opposite signs so much above their baseline.
LIKE_COSINE = SIGN_EXCESS = 0.1
#: Where parts that pull in opposite directions weigh this much, the whole is in conflict even if others make up for it.
AGAINST_SHARE = 0.25
#: Main directions that are shared by more than this, but not the change itself: the same directions for different things.
SAME_DIRECTIONS = 0.5
DROWNING_RATIO = 3.0


def word_of(
    facts: PairFacts, names: tuple[str, str], dead: Iterable[str] = (), parts: Iterable[PairFacts] = ()
) -> tuple[str, str]:
    """The word for a pair and the numbers that made it. ``dead``: experts that are; ``parts``: the pair's parts, of a whole."""
    if gone := [name for name in names if name in set(dead)]:
        return DEAD, f"{' and '.join(gone)}: length {min(facts.norms):.2g} beside {max(facts.norms):.3g}"
    if facts.cosine >= DUPLICATE_COSINE:
        return DUPLICATE, _cosine(facts)
    if reason := _conflict(facts, list(parts)):
        return CONFLICT, reason
    ratio = facts.norm_ratio
    if ratio is None or ratio >= DROWNING_RATIO:
        longer = names[0] if facts.norms[0] >= facts.norms[1] else names[1]
        return DROWNS, f"{longer} is {'infinitely' if ratio is None else f'{ratio:.1f} times as'} long"
    if facts.cosine >= _noticed(facts):
        return REINFORCING, _cosine(facts)
    return INDEPENDENT, _cosine(facts)


def _conflict(facts: PairFacts, parts: list[PairFacts]) -> str:
    """Why two experts are in conflict; empty where they are not."""
    if _against(facts):
        return _cosine(facts)
    if facts.conflict - facts.conflict_by_chance >= max(SIGN_EXCESS, BEYOND * facts.cosine_by_chance):
        return f"{100 * facts.conflict:.0f} % of opposite signs, by chance {100 * facts.conflict_by_chance:.0f} %"
    weights = [one.norms[0] * one.norms[1] for one in parts]
    against = sum(w for w, one in zip(weights, parts, strict=True) if _against(one))
    if against > AGAINST_SHARE * max(sum(weights), 1e-300):
        return f"{100 * against / sum(weights):.0f} % of the weight lies in parts that pull in opposite directions"
    same = facts.overlap_share is not None and facts.overlap_share >= SAME_DIRECTIONS and facts.overlap_beyond_chance
    if same and facts.cosine < LIKE_COSINE:
        return f"{100 * (facts.overlap_share or 0):.0f} % of the main directions shared, but a cosine of {facts.cosine:.2f}"
    return ""


def _noticed(facts: PairFacts) -> float:
    return max(LIKE_COSINE, BEYOND * facts.cosine_by_chance)


def _against(facts: PairFacts) -> bool:
    return facts.cosine <= -_noticed(facts)


def _cosine(facts: PairFacts) -> str:
    return f"cosine {facts.cosine + 0.0:.3f}".replace("-0.000", "0.000")


def dead_ones(lengths: dict[str, float], base: float | None) -> tuple[str, ...]:
    """The experts that changed nothing to speak of; ``base``: the length of the base's weights, where it is known."""
    least = max(DEAD_SHARE * max(lengths.values()), DEAD_OF_BASE * (base or 0.0))
    return tuple(task for task, length in lengths.items() if length <= least)
