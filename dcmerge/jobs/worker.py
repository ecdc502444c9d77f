"""``python -m dcmerge.jobs.worker FOLDER``: does the work of one job, step by step, and leaves those that are finished."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

from dcmerge.checkpoints import Roots
from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import EXPERTS, ZERO_SHOT
from dcmerge.jobs.damaging import run_damage
from dcmerge.jobs.journal import Journal
from dcmerge.jobs.merging import run_merge
from dcmerge.jobs.record import Job, State, read_job
from dcmerge.jobs.single import evaluate, find_scale
from dcmerge.jobs.specification import Compare, Damage, FindScale, Merge, Sweep, Tells
from dcmerge.jobs.telling import run_study
from dcmerge.methods import load_plugin
from dcmerge.runs import COMPARISON
from dcmerge.sets.model_sets import ModelSet, open_set_by_name
from dcmerge.studies.comparison import compare
from dcmerge.studies.measuring import Row, references
from dcmerge.studies.recording import keep_rows
from dcmerge.vectors.mix import Mix

#: Seconds between two notes of progress: the first, and the last one of a long job, whose journal shall stay small.
_OFTEN, _SELDOM = 0.5, 5.0
_NOTES = 120


class Told:
    """Progress for the journal, not more often than somebody could see."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._began, self._last = journal, time.monotonic(), float("-inf")

    def __call__(self, share: float | None, text: str) -> None:
        """``share`` is None while it is not known how much is done."""
        now = time.monotonic()
        if share is None or now - self._last >= min(_SELDOM, max(_OFTEN, (now - self._began) / _NOTES)):
            self._journal.append("progress", share=share, text=text)
            self._last = now if share is not None else self._last


def main(folder: Path) -> None:
    """Run the job to its end, whatever comes, and say in its journal how it ended."""
    signal.signal(signal.SIGTERM, _stop)
    job = read_job(folder)
    if job is None:
        raise SystemExit(f"expected a job in {folder}, found none")
    job.journal.append("worker", pid=os.getpid())
    _log(f"{job.label}: started")
    try:
        _work(job)
        state, text = State.DONE, ""
    except Cancelled:
        state, text = (State.CANCELLED, "") if job.cancel_marker.exists() else (State.INTERRUPTED, "the worker was stopped")
    except InputError as error:
        state, text = State.FAILED, str(error)
    except Exception as error:
        traceback.print_exc()
        state, text = State.FAILED, f"failed unexpectedly: {type(error).__name__}; the end of its log says why"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _log(f"{job.label}: {state}{f': {text}' if text else ''}")
    job.journal.append("state", state=state, text=text)
    # Everything is said and flushed. The interpreter's own end takes a second, for which the job's lock would be held.
    os._exit(0)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise Cancelled


def _work(job: Job) -> None:
    if job.cancel_marker.exists():
        raise Cancelled
    for path, sha256 in job.plugins:
        load_plugin(path, sha256=sha256)
    tell = Told(job.journal)
    spec = job.specification
    if isinstance(spec, Compare):
        _compare(job, spec, tell)
    elif isinstance(spec, Merge):
        run_merge(job, spec, tell, _log)
    elif isinstance(spec, Damage):
        run_damage(job, spec, _open(job, tell), tell, _log)
    elif isinstance(spec, Tells):
        run_study(job, spec, _open(job, tell), tell, _log)
    elif isinstance(spec, Sweep):
        from dcmerge.jobs.sweeping import run_sweep  # Optuna, which the other kinds do without

        run_sweep(job, spec, _open(job, tell), tell)
    else:
        models = _open(job, tell)
        _log(find_scale(job, spec, models, tell) if isinstance(spec, FindScale) else evaluate(job, spec, models, tell))


def _open(job: Job, tell: Told) -> ModelSet:
    tell(None, "opening the models")
    return open_set_by_name(job.specification.set, Roots(job.roots))


def _compare(job: Job, spec: Compare, tell: Told) -> None:
    """Every row is a step. Rows of an earlier run are kept, but for those of failed methods."""
    known = {name: row for name, row in job.rows().items() if not row.error}
    bench = _open(job, tell).images
    measured_on = {"split": spec.split, "limit": spec.limit}

    def keep(row: Row) -> None:
        outcome = f"failed: {row.error}" if row.error else f"{100 * row.measured.mean:.1f} % on average"
        _log(f"{row.title}: {outcome}")
        if problem := keep_rows(bench, spec.set, COMPARISON, [row], job.id):
            _log(problem)
        job.finish_step(row.name, row, **({"error": row.error} if row.error else {}))

    if ZERO_SHOT not in known or EXPERTS not in known:
        # Before the comparison, which hands the experts out last: a run that is stopped in between keeps them.
        tell(None, "zero-shot and experts")
        for row in references(bench, **measured_on, cancelled=job.cancel_marker.exists):
            if row.name not in known:
                known[row.name] = row
                keep(row)
    compare(
        bench,
        list(spec.parameters),
        spec.parameters,
        **measured_on,
        val_limit=spec.val_limit,
        diagnosed=spec.diagnosed,
        mix=Mix.from_data(spec.mix),
        known=known,
        on_row=keep,
        progress=tell,
        cancelled=job.cancel_marker.exists,
    )


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
