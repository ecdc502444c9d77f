"""The table of few adapters of docs/results.md: every method on weights alone, with its defaults and its usual α, on validation.

python -m tools.few_adapters                      # two, three, four and eight of the demo's adapters, in their order
python -m tools.few_adapters emoji,fashion        # these two
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from dcmerge.evaluation import Bench
from dcmerge.evaluation.accuracy import Evaluation, paired_difference
from dcmerge.methods import merged_deltas, methods
from dcmerge.vectors.cache import Memo
from dcmerge.zoo import open_zoo

COUNTS = (2, 3, 4, 8)
_FROM_WEIGHTS = {"weights", "base", "lora"}
_MEMORY = 256 << 20


def main() -> int:
    """Print one table for each choice of adapters; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.few_adapters", description="The table of few adapters.")
    parser.add_argument("tasks", nargs="*", help="tasks of --zoo demo-lora, separated by commas; once for each table")
    parser.add_argument("--limit", type=int, help="at most so many validation images a task")
    options = parser.parse_args()
    whole = open_zoo("demo-lora").bench
    chosen = [one.split(",") for one in options.tasks] or [list(whole.tasks)[:count] for count in COUNTS]
    for tasks in chosen:
        print_table(subset(whole, tasks), options.limit)
    return 0


def subset(bench: Bench, tasks: Sequence[str]) -> Bench:
    """Only these experts, on their own images."""
    vectors = replace(bench.vectors, experts={task: bench.vectors.experts[task] for task in tasks}, memo=Memo())
    return replace(bench, tasks={task: bench.tasks[task] for task in tasks}, vectors=vectors, memo=Memo(_MEMORY))


def print_table(bench: Bench, limit: int | None) -> None:
    """A row a method as soon as it is measured; one that lies below zero-shot says so."""
    zero_shot, average = bench.zero_shot(split="val", limit=limit), merged(bench, "average", limit)
    print(f"\n| {', '.join(bench.tasks)} | α | mean | minus averaging, points |\n| --- | --- | --- | --- |")
    print(f"| Zero-shot (the base) |  | {100 * zero_shot.mean:.1f} |  |", flush=True)
    for slug, method in methods().items():
        if not set(method.needs) <= _FROM_WEIGHTS or method.obstacle(bench.vectors, bench):
            continue
        found = merged(bench, slug, limit)
        gain = paired_difference(found, average)
        low = " **below zero-shot**" if found.mean < zero_shot.mean else ""
        interval = f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        alpha = method.usual_scale_for(bench.vectors, {})
        print(f"| {method.title} | {alpha:g} | {100 * found.mean:.1f}{low} | {interval} |", flush=True)
    experts = bench.experts(split="val", limit=limit)
    print(f"| Experts, each on its own task |  | {100 * experts.mean:.1f} |  |", flush=True)


def merged(bench: Bench, slug: str, limit: int | None) -> Evaluation:
    """The merge by a method's defaults, at its usual α."""
    delta = dict(merged_deltas(bench.vectors, slug))
    scale = methods()[slug].usual_scale_for(bench.vectors, {})
    return bench.evaluate(bench.merged_weights(delta, scale), slug, split="val", limit=limit)


if __name__ == "__main__":
    raise SystemExit(main())
