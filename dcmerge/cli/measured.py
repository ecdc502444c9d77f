"""``merge --measure SPLIT --report``: what was measured as one HTML file beside the model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dcmerge.cli.options import set_name
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Evaluation, Scale
from dcmerge.runs import EVALUATION
from dcmerge.runs.recording import measured_run
from dcmerge.vectors.mix import Mix


def add_report(group: argparse._ActionsContainer) -> None:
    """``--report``."""
    group.add_argument(
        "--report",
        action="store_true",
        help="with --measure: write what was measured as one HTML file beside the model, named in its card",
    )


def check_report(args: argparse.Namespace) -> None:
    """Raises InputError where nothing is measured here that could be reported."""
    if args.report and (args.background or not args.measure):
        raise InputError("report: expected --measure SPLIT with it and no --background, got another choice")


def report_of_merge(
    args: argparse.Namespace,
    bench: Bench,
    mix: Mix,
    found: Evaluation,
    parameters: Mapping[str, Any],
    chosen: Mapping[str, Any],
) -> str:
    """The HTML of an evaluation of the merge at ``chosen``'s scale; no run is kept of it."""
    from dcmerge.reports import as_html, report_of_runs  # plotly, which other merges do without

    scale = Scale(chosen["scale"], chosen["scale_origin"])
    run = measured_run(bench, set_name(args), EVALUATION, args.method, found, values=parameters, scale=scale, mix=mix)
    return as_html(report_of_runs([run]))
