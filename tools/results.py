"""Tables of docs/results.md from comparisons that were kept as JSON.

python -m dcmerge compare --zoo demo --json > demo.json
python -m tools.results demo.json                # the table of every method
python -m tools.results demo.json --literature   # the order beside the literature's, with its rank correlation
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dcmerge.methods import methods
from dcmerge.methods.reported import reported
from dcmerge.studies.measuring import slug_of

#: Families of checkpoints whose numbers may be ranked together, all on ViT-B/32 and eight tasks.
FAMILIES = {"Task Arithmetic": "the Task Arithmetic papers' checkpoints", "FusionBench": "FusionBench's checkpoints"}
#: Where a method is reported in several forms, the one that its defaults are here.
FORMS = {
    "adamerging": "layer-wise; ",
    "concrete": "Concrete Task Arithmetic",
    "adarank": "from Task Arithmetic",
    "surgery": "on Task",
}
#: Methods that keep a part for each task: no single model.
PARTS = ("emr", "surgery", "intervmerge")


def main() -> int:
    """Print one table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description="Tables of docs/results.md.")
    parser.add_argument("comparison", type=Path, help="what compare --json printed")
    parser.add_argument("--literature", action="store_true", help="the order beside the literature's")
    options = parser.parse_args()
    rows = json.loads(options.comparison.read_text())["rows"]
    print("\n".join(beside_the_literature(rows) if options.literature else table(rows)))
    return 0


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One row a method or reference, in the order of the comparison."""
    yield "| | needs besides weights | α | absolute | joint labels | normalised | minus averaging, points | seconds: merge + α |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        cells = [row["title"], _needs(row), _alpha(row), *_accuracies(row), _gain(row["difference_to_average"]), _seconds(row)]
        yield f"| {' | '.join(cells)} |"


def _needs(row: Mapping[str, Any]) -> str:
    slug = slug_of(row["name"])
    return ", ".join(need for need in methods()[slug].needs if need != "weights") if slug in methods() else ""


def _alpha(row: Mapping[str, Any]) -> str:
    scale = row["scale"]
    if not scale:
        return ""
    return f"{scale['value']:g}" + (" (fixed)" if not scale["curve"] else " (border)" if "tried" in scale["origin"] else "")


def _accuracies(row: Mapping[str, Any]) -> list[str]:
    found = row["accuracy"]
    if row["error"] or not found:
        return [f"failed: {row['error']}", "", ""]
    return [_percent(found["mean"]), _percent(found["joint_mean"]), _percent(found["mean_normalised"])]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _gain(gain: Mapping[str, float] | None) -> str:
    return f"{100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]" if gain else ""


def _seconds(row: Mapping[str, Any]) -> str:
    took = row["seconds"]
    return f"{took['merge']:.0f} + {took['scale']:.0f}" if took else ""


def beside_the_literature(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """For each family: rank and accuracy there and here, of the methods that both have, and Spearman's rank correlation."""
    ours = {row["name"]: row for row in rows if row["accuracy"] and not row["reference"]}
    for family, words in FAMILIES.items():
        theirs = {slug: value for slug in ours if slug not in PARTS and (value := _reported(slug, family)) is not None}
        here = {slug: ours[slug]["accuracy"]["mean"] for slug in theirs}
        ranks, own = _ranks(theirs), _ranks(here)
        yield f"| on {words} | reported | place there | here | place here |"
        yield "| --- | --- | --- | --- | --- |"
        for slug in sorted(theirs, key=ranks.__getitem__):
            cells = [ours[slug]["title"], f"{theirs[slug]:.1f}", f"{ranks[slug]}", _percent(here[slug]), f"{own[slug]}"]
            yield f"| {' | '.join(cells)} |"
        pairs = torch.tensor([[ranks[slug], own[slug]] for slug in theirs], dtype=torch.float64).T
        yield f"\nRank correlation (Spearman): {torch.corrcoef(pairs)[0, 1]:.2f} over {len(theirs)} methods.\n"


def _reported(slug: str, family: str) -> float | None:
    found = [
        one for one in reported(slug) if (one.family, one.model, one.tasks) == (family, "ViT-B/32", 8) and not one.normalised
    ]
    fitting = [one for one in found if one.note.startswith(FORMS.get(slug, ""))]
    return fitting[0].value if fitting else None


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    """1 for the largest."""
    return {name: place for place, name in enumerate(sorted(values, key=values.__getitem__, reverse=True), start=1)}


if __name__ == "__main__":
    raise SystemExit(main())
