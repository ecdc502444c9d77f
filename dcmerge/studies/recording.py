"""Rows of comparisons and evaluations as runs that stay."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from dcmerge.evaluation import Bench
from dcmerge.methods import methods
from dcmerge.runs import Run
from dcmerge.runs.recording import keep, measured_run
from dcmerge.studies.measuring import Row

#: The method of a run of a saved model.
CHECKPOINT = "checkpoint"


def new_group(kind: str) -> str:
    """A name for what belongs together and is no job, as jobs are named."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}-{secrets.token_hex(2)}"


def keep_rows(bench: Bench, set_name: str, kind: str, rows: Iterable[Row], group: str = "") -> str:
    """Record the rows that have figures; why they could not be kept, empty where they were."""
    return keep(run_of_row(bench, set_name, kind, row, group) for row in rows if row.evaluation)[1]


def run_of_row(bench: Bench, set_name: str, kind: str, row: Row, group: str = "") -> Run:
    """The run of a row that did not fail; ``variant`` is the row's own name: of other settings, or of a checkpoint."""
    took, is_checkpoint = row.seconds, not row.is_reference and row.slug not in methods()
    return measured_run(
        bench,
        set_name,
        kind,
        CHECKPOINT if is_checkpoint else row.slug,
        row.measured,
        values=row.parameters,
        scale=row.scale,
        mix=row.mix,
        variant=row.name if is_checkpoint or row.name != row.slug else "",
        group=group,
        seconds=took and took.merge + took.scale + took.evaluation,
        tried=tried_text(row),
    )


def tried_text(row: Row) -> str:
    """From how many values of α the row's own was chosen, and on which images; empty where nothing was searched."""
    return f"α: best of {len(row.scale.curve)} on the {row.scale.origin}" if row.scale and row.scale.curve else ""
