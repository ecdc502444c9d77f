"""``dcmerge inspect --verdict``: what the weights say of every pair of experts before anything is merged."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.cli.options import Parser
from dcmerge.cli.output import paragraph, table
from dcmerge.errors import InputError
from dcmerge.studies.damage.plan import BLOCKS, MATRICES
from dcmerge.studies.damage.tables import label_of
from dcmerge.studies.verdict import MEANINGS, TROUBLE, WORDS, PairFacts, PairVerdict, Verdict
from dcmerge.studies.verdict.tables import as_csv

#: Exit code where a pair should be looked at before merging.
TROUBLED = 3
#: Of more pairs only those to act on first stand in the text.
_LISTED = 45


def add_verdict(parser: Parser) -> None:
    """``--verdict``, ``--by`` and ``--csv``."""
    group = parser.add_argument_group("will it merge?")
    group.add_argument(
        "--verdict",
        action="store_true",
        help=f"one word for every pair of experts, with the numbers that made it; exit code {TROUBLED} where a pair is "
        f"{', '.join(TROUBLE[:-1])}, or {TROUBLE[-1]}",
    )
    group.add_argument("--by", choices=(BLOCKS, MATRICES), default=BLOCKS, help=f"the parts told beside the whole ({BLOCKS})")
    group.add_argument("--csv", metavar="FILE", help="write the verdict of every pair and part as CSV as well")


def check_verdict(args: argparse.Namespace) -> None:
    """Before any work: options that contradict each other, and a file that could not be written."""
    if args.csv is None:
        return
    if not args.verdict:
        raise InputError("csv: expected --verdict with it, got none")
    check_text_target(Path(args.csv))


def write_verdict(args: argparse.Namespace, found: Verdict | None) -> None:
    """The CSV file that was asked for."""
    if args.csv is not None and found is not None:
        write_text(Path(args.csv), as_csv(found))


def verdict_code(found: Verdict | None) -> int:
    """0 where every pair is fine, or nobody asked."""
    return TROUBLED if found and any(one.word in TROUBLE for one in found.pairs) else 0


def verdict_lines(found: Verdict) -> list[str]:
    """The paragraph, a row a pair, and a row a part."""
    ordered = _by_word(found.pairs)
    rows = [[f"{one.first}, {one.second}", one.word, *_numbers(one.whole)] for one in ordered[:_LISTED]]
    more = len(ordered) - len(rows)
    used, parts = set(found.words()), [_part(found, unit) for unit in found.parts]
    header = ["pair", "word", "cosine", "opposite signs (by chance)", "overlap × chance", "share", "norms", "top share"]
    return [
        "Will it merge?",
        paragraph(found.text, indent=2, hanging=0),
        table(header, rows, left=(0, 1), indent=2),
        *([f"  and {more} more, the last of them {ordered[-1].word}; --csv and --json have them all"] if more else []),
        *(paragraph(f"{word}: {MEANINGS[word]}", indent=2) for word in WORDS if word in used),
        f"By {found.by}: mean cosine and overlap of the pairs, and how many have which word",
        table(["part", "cosine", "overlap × chance", "pairs"], parts, left=(0, 3), indent=2),
    ]


def _by_word(pairs: Sequence[PairVerdict]) -> list[PairVerdict]:
    """Those to act on first, and among equals the most alike."""
    return sorted(pairs, key=lambda one: (WORDS.index(one.word), -abs(one.whole.cosine)))


def _numbers(facts: PairFacts) -> list[object]:
    ratio = facts.norm_ratio
    return [
        f"{facts.cosine:.3f}",
        f"{100 * facts.conflict:.0f} % ({100 * facts.conflict_by_chance:.0f} %)",
        _times(facts.overlap),
        None if facts.overlap_share is None else f"{100 * facts.overlap_share:.0f} %",
        None if ratio is None else f"{ratio:.2f}",
        " / ".join(f"{100 * share:.0f} %" for share in facts.concentration),
    ]


def _times(overlap: float | None) -> str | None:
    return None if overlap is None else f"{overlap:.1f}"


def _part(found: Verdict, unit: str) -> list[object]:
    facts = [one.parts[unit] for one in found.pairs]
    overlaps = [one.overlap for one in facts if one.overlap is not None]
    counts = [(word, sum(one.part_words[unit] == word for one in found.pairs)) for word in WORDS]
    return [
        label_of(unit),
        f"{sum(one.cosine for one in facts) / len(facts):.3f}",
        _times(sum(overlaps) / len(overlaps) if overlaps else None),
        ", ".join(f"{count} {word}" for word, count in counts if count),
    ]
