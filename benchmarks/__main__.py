"""Run the benchmarks: ``python -m benchmarks [CASE ...]`` (default: all of full layer lora adapters memory growth svd ...).

Each case replaces its own section of benchmarks/RESULTS.md, so that a long one can be run alone.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.beside_mergekit import beside_mergekit
from benchmarks.bounds import bounds
from benchmarks.browser import browser
from benchmarks.browser_at_size import browser_at_size
from benchmarks.cases import CASES
from benchmarks.diagnose import diagnose
from benchmarks.large import large
from benchmarks.looks import looks
from benchmarks.measuring import PROCESSOR, WALL, Row, Timer, machine
from benchmarks.stopping import stopping

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Benchmarks

`python -m benchmarks` (or `make bench`) measures the library against a plain implementation (`benchmarks/plain.py`: one full
SVD each, dense products, everything in memory), in one process, in turn. Seconds are medians; the error is the relative
Frobenius difference between both results.
"""


def cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = ["| | what | plain, s | ours, s | ratio | error | target | runs | |", "|---|---|---:|---:|---:|---:|---|---:|---|"]
    for r in rows:
        ratio = "" if r.ratio is None else f"{r.ratio:.3g} x"
        lines.append(
            f"| {r.case} | {r.what} | {cell(r.plain, '.3g')} | {cell(r.ours, '.3g')} | {ratio} | {cell(r.error, '.1e')} "
            f"| {r.target} | {r.runs} | {r.remark} |"
        )
    return "\n".join(lines)


def replace_section(text: str, name: str, body: str) -> str:
    """The document with the section ``## name`` replaced, or added at its end."""
    section = f"## {name}\n\n{body}\n"
    found = re.search(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", text, re.M | re.S)
    if not found:
        return f"{text}\n{section}"
    before, after = text[: found.start()], text[found.end() :]
    return before + section + ("\n" + after if after else "")


def main() -> None:
    """Run the chosen cases and write their sections."""
    cases = {
        **CASES,
        "mergekit": beside_mergekit,
        "bounds": bounds,
        "stopping": stopping,
        "browser": browser,
        "browser-at-size": browser_at_size,
        "diagnose": diagnose,
        "looks": looks,
        "large": large,
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against a plain implementation.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(cases)} (default: all but large)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each candidate, in turn (default 3)")
    parser.add_argument("--blocks", type=int, help="transformer blocks of the towers (default: all)")
    parser.add_argument("--count", type=int, default=20, help="experts of the memory case (default 20)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="seconds of processor time of one thread, for a machine on which other work runs (default: the wall's, --threads)",
    )
    parser.add_argument("--folder", type=Path, default=Path("bench-models"), help="where the synthetic experts are kept")
    parser.add_argument(
        "--mergekit", type=Path, default=Path(".venv-mergekit/bin/mergekit-yaml"), help="mergekit's command (make mergekit)"
    )
    options = parser.parse_args()
    unknown = set(options.cases) - set(cases)
    if unknown:
        parser.error(f"expected some of {', '.join(cases)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1 if options.processor_time else options.threads)
    Timer.clock = PROCESSOR if options.processor_time else WALL
    for name in options.cases or [case for case in cases if case != "large"]:
        given: dict[str, Any] = {"folder": options.folder, "runs": options.runs, "count": options.count}
        given["mergekit"] = options.mergekit
        given["blocks"] = options.blocks or (12 if name == "full" else None)
        wanted = inspect.signature(cases[name]).parameters
        rows = []
        for row in cases[name](**{key: value for key, value in given.items() if key in wanted}):
            print(table([row]).splitlines()[-1], flush=True)
            rows.append(row)
        said = f"{machine()}. {datetime.date.today()}.{' Seconds are processor time.' if options.processor_time else ''}"
        text = RESULTS.read_text() if RESULTS.exists() else HEAD
        RESULTS.write_text(replace_section(text, name, f"{said}\n\n{table(rows)}"))


if __name__ == "__main__":
    main()
