"""Runs as a table to take along: CSV for spreadsheets, Parquet for data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dcmerge.runs.run import Run

#: What a spreadsheet takes for the start of a formula, full-width forms included.
_FORMULA = tuple("=+-@\t\r＝＋－＠")


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row a run with raw values: accuracies in percent, "accuracy: TASK" for the tasks of all; None where there is none."""
    tasks = list(dict.fromkeys(task for run in runs for task in run.evaluation.tasks))
    return [_row(run, tasks) for run in runs]


def _row(run: Run, tasks: Sequence[str]) -> dict[str, Any]:
    measured = run.evaluation
    low, high = measured.mean_interval
    return {
        "id": run.id,
        "made": run.made,
        "kind": run.kind,
        "group": run.group,
        "name": run.name,
        "note": run.note,
        "starred": run.starred,
        "set": run.set.name,
        "set hash": run.set.hash,
        "method": run.method,
        "variant": run.variant,
        "parameters": json.dumps(dict(run.values)),
        "mix": run.mix_text,
        "alpha": run.alpha,
        "alpha from": run.alpha_origin,
        "tried": run.tried,
        "split": measured.split,
        "images a task": measured.images,
        "accuracy": _percent(measured.mean),
        "accuracy low": _percent(low),
        "accuracy high": _percent(high),
        "normalised": _percent(measured.mean_normalised),
        "joint accuracy": _percent(measured.joint_mean),
        "worst task": measured.worst.task,
        "worst accuracy": _percent(measured.worst.accuracy),
        "seconds": run.seconds,
        **{f"accuracy: {task}": _percent(run.accuracies.get(task)) for task in tasks},
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One header line and a line a row. Texts that a spreadsheet would run as a formula are made harmless."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow([_harmless(name) for name in rows[0]])
    writer.writerows([_harmless(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """Names come from files: a text that begins like a formula gets an apostrophe, which spreadsheets take as "text"."""
    return f"'{value}" if isinstance(value, str) and value.lstrip(" \n").startswith(_FORMULA) else value


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The same table as a Parquet file, by pandas and pyarrow, which the dashboard brings."""
    import pandas

    columns = list(rows[0]) if rows else []
    return pandas.DataFrame(list(rows), columns=columns).to_parquet(index=False)
