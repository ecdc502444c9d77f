"""The table of few adapters of docs/results.md: every method on weights alone, with its defaults and its usual α, on validation.

python -m tools.few_adapters                      # two, three, four and eight of the demo's adapters, in their order
python -m tools.few_adapters emoji,fashion        # these two
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dcmerge.evaluation import Bench
from dcmerge.evaluation.accuracy import Evaluation, paired_difference
from dcmerge.methods import merged_deltas, methods
from dcmerge.zoo import open_zoo

COUNTS = (2, 3, 4, 8)
_FROM_WEIGHTS = {"weights", "base", "lora"}


def main() -> int:
    """Print one table for each choice of adapters; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.few_adapters", description="The table of few adapters.")
    parser.add_argument("tasks", nargs="*", help="tasks of --zoo demo-lora, separated by commas; once for each table")
    parser.add_argument("--limit", type=int, help="at most so many validation images a task")
    parser.add_argument("--methods", default="", help="slugs, separated by commas (default: all that need weights alone)")
    options = parser.parse_args()
    whole = open_zoo("demo-lora").bench
    chosen = [one.split(",") for one in options.tasks] or [list(whole.tasks)[:count] for count in COUNTS]
    for tasks in chosen:
        print_table(whole.select(tasks), options.limit, options.methods.split(",") if options.methods else list(methods()))
    return 0


def print_table(bench: Bench, limit: int | None, slugs: Sequence[str]) -> None:
    """A row a method as soon as it is measured; one that lies below zero-shot says so."""
    zero_shot, average = bench.zero_shot(split="val", limit=limit), merged(bench, "average", limit, 1.0)
    print(f"\n| {', '.join(bench.tasks)} | α | mean | minus averaging, points |\n| --- | --- | --- | --- |")
    print(f"| Zero-shot (the base) |  | {100 * zero_shot.mean:.1f} |  |", flush=True)
    for slug in slugs:
        method = methods()[slug]
        if not set(method.needs) <= _FROM_WEIGHTS or method.obstacle(bench.vectors, bench):
            continue
        alpha = method.usual_scale_for(bench.vectors, {})
        found = merged(bench, slug, limit, alpha)
        gain = paired_difference(found, average)
        low = " **below zero-shot**" if found.mean < zero_shot.mean else ""
        interval = f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        print(f"| {method.title} | {alpha:g} | {100 * found.mean:.1f}{low} | {interval} |", flush=True)
    experts = bench.experts(split="val", limit=limit)
    print(f"| Experts, each on its own task |  | {100 * experts.mean:.1f} |  |", flush=True)


def merged(bench: Bench, slug: str, limit: int | None, scale: float) -> Evaluation:
    """The merge by a method's defaults."""
    delta = dict(merged_deltas(bench.vectors, slug))
    return bench.evaluate(bench.merged_weights(delta, scale), slug, split="val", limit=limit)


if __name__ == "__main__":
    raise SystemExit(main())
