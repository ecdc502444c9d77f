"""A comparison as a table to take along: CSV for programs and spreadsheets, Markdown for reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcmerge.evaluation import ZERO_SHOT, Difference
from dcmerge.methods import methods
from dcmerge.methods.declare import values_text
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.measuring import PAPERS, TASK_ARITHMETIC, Row

#: Column -> the row that is subtracted.
GAINS = {"minus TA, α = 0.3": PAPERS, "minus TA, tuned": TASK_ARITHMETIC}


def table(comparison: Comparison) -> list[dict[str, Any]]:
    """A row a method or reference with raw values: shares in percent, seconds, MiB; None where there is nothing to tell."""
    return [_row(row) for row in comparison.rows]


def _row(row: Row) -> dict[str, Any]:
    measured, scale, gain, took = row.evaluation, row.scale, row.difference, row.seconds
    low, high = measured.mean_interval if measured else (None, None)
    worst = measured.worst if measured else None
    return {
        "method": row.title,
        "slug": row.name,
        "parameters": "; ".join(filter(None, (values_text(row.parameters), row.mix.text))),
        "alpha": scale.value if scale else None,
        "alpha from": scale.origin if scale else None,
        "accuracy": _percent(measured and measured.mean),
        "accuracy low": _percent(low),
        "accuracy high": _percent(high),
        "normalised": _percent(measured and measured.mean_normalised),
        "joint accuracy": _percent(measured and measured.joint_mean),
        "worst task": worst and worst.task,
        "worst accuracy": _percent(worst and worst.accuracy),
        "minus averaging": _percent(gain and gain.value),
        "minus averaging low": _percent(gain and gain.low),
        "minus averaging high": _percent(gain and gain.high),
        **_gains(row),
        "merge seconds": _rounded(took and took.merge),
        "alpha seconds": _rounded(took and took.scale),
        "evaluation seconds": _rounded(took and took.evaluation),
        "peak MiB": None if row.peak_bytes is None else round(row.peak_bytes / 2**20, 1),
        "needs": needs_text(row),
        "plugin": plugin_text(row),
        "q, k, v": row.qkv,
        "dirsim": _rounded(row.dirsim and row.dirsim.mean, 4),
        "feature drift": _rounded(row.drift and row.drift.relative[-1], 4),
        "split": measured and measured.split,
        "images a task": measured and measured.images,
        "logit scale": measured and measured.logit_scale and round(measured.logit_scale.value, 4),
        "logit scale from": measured and measured.logit_scale and measured.logit_scale.origin,
        "notes": "; ".join(row.notes) or None,
        "splits": measured and "; ".join(measured.split_lines),
        "error": row.error,
    }


def _gains(row: Row) -> dict[str, float | None]:
    """The differences to Task Arithmetic at the papers' α and at the one chosen on validation, with their intervals."""
    found: dict[str, float | None] = {}
    for name, baseline in GAINS.items():
        gain = row.gains.get(baseline)
        found |= {name: _percent(gain and gain.value), f"{name} low": _percent(gain and gain.low)}
        found |= {f"{name} high": _percent(gain and gain.high)}
    return found


def needs_text(row: Row) -> str | None:
    """What the method works with; None of a reference."""
    return ", ".join(methods()[row.slug].needs) if row.slug in methods() else None


def plugin_text(row: Row) -> str | None:
    """Name and hash of the plugin of a method that is not built in."""
    origin = methods()[row.slug].origin if row.slug in methods() else None
    return f"{origin.name} {origin.sha256}" if origin else None


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def as_csv(comparison: Comparison) -> str:
    """One header line and a line a row. Texts that a spreadsheet would run as a formula are made harmless."""
    return csv_text(table(comparison))


def as_markdown(comparison: Comparison) -> str:
    """A table for a report, with what was measured on which images in a line above it."""
    lines = [[name for name, _ in _MARKDOWN], ["---"] * len(_MARKDOWN)]
    lines += [[_cell(write(row)) for _, write in _MARKDOWN] for row in comparison.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    about = (
        f"Top-1 accuracy in percent (95 % interval), mean over tasks; {comparison.measured_on}{_splits(comparison)}. "
        "Normalised: divided by the accuracy of each task's own expert, mean of the ratios. Joint: among all "
        "tasks' classes, the image's task unknown. Minus averaging: points, paired "
        f"bootstrap over images.{_temperature(comparison)}"
    )
    said = [*comparison.notes, *(f"{row.title}: {note}" for row in comparison.rows for note in row.notes)]
    notes = "".join(f"\n- {_cell(note)}" for note in said)
    return f"{about}\n\n{body}\n{notes}{chr(10) if notes else ''}"


def _splits(comparison: Comparison) -> str:
    told = "; ".join(comparison.row(ZERO_SHOT).measured.split_lines)
    return f" ({_cell(told)})" if told else ""


def _temperature(comparison: Comparison) -> str:
    scale = comparison.row(ZERO_SHOT).measured.logit_scale
    return f" Logit scale of entropies and losses: {_cell(scale.text)}." if scale else ""


def _cell(text: str | None) -> str:
    """One line of plain text: neither a column's border nor markup or HTML may come out of a name."""
    flat = " ".join((text or "").split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]|<>~$#" else sign for sign in flat)


def _with_interval(value: float, low: float, high: float, form: str) -> str:
    return f"{100 * value:{form}} ({100 * low:{form}} to {100 * high:{form}})"


def _accuracy(row: Row) -> str | None:
    if row.error:
        return f"failed: {row.error}"
    return row.evaluation and _with_interval(row.evaluation.mean, *row.evaluation.mean_interval, ".1f")


def _normalised(row: Row) -> str | None:
    share = row.evaluation.mean_normalised if row.evaluation else None
    return None if share is None else f"{100 * share:.1f}"


def _joint(row: Row) -> str | None:
    share = row.evaluation.joint_mean if row.evaluation else None
    return None if share is None else f"{100 * share:.1f}"


def _worst(row: Row) -> str | None:
    worst = row.evaluation.worst if row.evaluation else None
    return worst and f"{worst.task} {100 * worst.accuracy:.1f}"


def _gain(row: Row) -> str | None:
    return _difference(row.difference)


def _difference(gain: Difference | None) -> str | None:
    return gain and _with_interval(gain.value, gain.low, gain.high, "+.1f")


def _seconds(row: Row) -> str | None:
    return row.seconds and f"{row.seconds.merge:.1f} + {row.seconds.scale:.1f}"


_MARKDOWN: tuple[tuple[str, Callable[[Row], str | None]], ...] = (
    ("method", lambda row: row.title),
    ("parameters", lambda row: values_text(row.parameters)),
    ("α", lambda row: row.scale and f"{row.scale.value:g}"),
    ("α from", lambda row: row.scale and row.scale.origin),
    ("absolute", _accuracy),
    ("normalised", _normalised),
    ("joint", _joint),
    ("worst task", _worst),
    ("minus averaging", _gain),
    *((name, lambda row, baseline=baseline: _difference(row.gains.get(baseline))) for name, baseline in GAINS.items()),
    ("seconds: merge + α", _seconds),
    ("peak memory", lambda row: None if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f} MiB"),
    ("needs", needs_text),
    ("q, k, v", lambda row: row.qkv),
    ("measured on", lambda row: row.evaluation and row.evaluation.measured_on),
)
