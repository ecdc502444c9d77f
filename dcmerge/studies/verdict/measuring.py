"""Measures a verdict: one pass over the parameters, of which one at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from itertools import combinations
from operator import add

from dcmerge.errors import InputError
from dcmerge.studies.damage.plan import BLOCKS, MATRICES, units_of
from dcmerge.studies.pieces import Piece, Pieces
from dcmerge.studies.verdict.found import PairFacts, PairVerdict, Verdict, pair_facts, set_facts
from dcmerge.studies.verdict.relations import Relations, relations
from dcmerge.studies.verdict.text import paragraph
from dcmerge.studies.verdict.words import dead_ones, word_of
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.task_vectors import TaskVectors

Progress = Callable[[float, str], None]


def verdict(
    vectors: TaskVectors,
    by: str = BLOCKS,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Verdict:
    """Every pair of experts, as a whole and ``by`` blocks or matrices.

    Reads every expert once and takes the leading singular vectors of every matrix (shared with methods and pictures). Raises
    InputError for fewer than two experts, Cancelled when ``cancelled()`` turns true.
    """
    return verdicts(vectors, by).whole(progress, cancelled)


def verdicts(vectors: TaskVectors, by: str = BLOCKS) -> Pieces[Verdict]:
    """``verdict`` parameter by parameter. There is none of a part of the model: it may be another one."""
    if len(vectors.tasks) < 2:
        raise InputError("verdict: expected at least two experts to compare, got one")
    if by not in (BLOCKS, MATRICES):
        raise InputError(f"by: expected {BLOCKS} or {MATRICES}, got {by!r}")

    def look(name: str) -> Piece:
        return vars(relations(layer_of(vectors, name)))

    def together(found: Mapping[str, Piece]) -> Verdict:
        return _verdict(vectors, by, {name: Relations(**found[name]) for name in vectors.parameters})

    return Pieces("relations", vectors, tuple(vectors.parameters), look, together, grows=False)


def _verdict(vectors: TaskVectors, by: str, found: Mapping[str, Relations]) -> Verdict:
    whole = _sum(found, found)
    parts = {unit: _sum(found, names) for unit, names in units_of(vectors, by).items()}
    lengths = dict(zip(vectors.tasks, whole.norms.tolist(), strict=True))
    dead = dead_ones(lengths, vectors.report.base_norm)
    pairs = tuple(_pair(vectors.tasks, whole, parts, at, dead) for at in combinations(range(len(vectors.tasks)), 2))
    living = [one.whole for one in pairs if not {one.first, one.second} & set(dead)]
    facts = set_facts(whole, living)
    text = paragraph(pairs, facts, len(vectors.tasks), dead, adapters=vectors.kind == "lora")
    return Verdict(vectors.tasks, by, tuple(parts), lengths, pairs, facts, text)


def _sum(found: Mapping[str, Relations], names: Mapping[str, Relations] | tuple[str, ...]) -> Relations:
    return reduce(add, (found[name] for name in names))


def _pair(
    tasks: tuple[str, ...], whole: Relations, parts: Mapping[str, Relations], at: tuple[int, int], dead: tuple[str, ...]
) -> PairVerdict:
    names = tasks[at[0]], tasks[at[1]]
    facts = {unit: pair_facts(own, *at) for unit, own in parts.items()}
    together = pair_facts(whole, *at)
    word, reason = word_of(together, names, dead, facts.values())
    return PairVerdict(*names, word, reason, together, facts, {unit: _part_word(own, names) for unit, own in facts.items()})


def _part_word(facts: PairFacts, names: tuple[str, str]) -> str:
    """Of a part an expert is dead where it changed nothing at all: how much is little, only the whole tells."""
    dead = [name for name, norm in zip(names, facts.norms, strict=True) if norm == 0]
    return word_of(facts, names, dead)[0]
