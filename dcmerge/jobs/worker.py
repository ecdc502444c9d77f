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
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Scale, choose_scale
from dcmerge.jobs.damaging import make_map
from dcmerge.jobs.journal import Journal
from dcmerge.jobs.record import Job, State, read_job
from dcmerge.jobs.single import evaluate, find_scale
from dcmerge.jobs.specification import Compare, Damage, FindScale, Merge, MethodChoice, Sweep, checked_target
from dcmerge.merging.merge import Merged, merge, merge_to_file
from dcmerge.merging.recipe import USUAL, settled_scale
from dcmerge.methods import load_plugin, method
from dcmerge.runs import COMPARISON
from dcmerge.runtime.plain import from_plain
from dcmerge.sets.model_sets import ModelSet, open_set_by_name
from dcmerge.studies.comparison import compare
from dcmerge.studies.measuring import Row, fixed_scale, references
from dcmerge.studies.recording import keep_rows

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
        _merge(job, spec, tell)
    elif isinstance(spec, Damage):
        _damage(job, spec, tell)
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
    parameters = {choice.slug: choice.parameters for choice in spec.methods}
    compare(
        bench,
        list(parameters),
        parameters,
        **measured_on,
        val_limit=spec.val_limit,
        diagnosed=spec.diagnosed,
        known=known,
        on_row=keep,
        progress=tell,
        cancelled=job.cancel_marker.exists,
    )


def _merge(job: Job, spec: Merge, tell: Told) -> None:
    """The target is claimed, α chosen, the file written; the file appears whole or not at all."""
    done, out = job.steps(), Path(spec.out)
    if "target" not in done:
        checked_target(out)
        job.finish_step("target", {"out": spec.out})
    models = _open(job, tell)
    merged = None
    if "scale" in done:
        scale = from_plain(Scale, done["scale"])
    else:
        given = None if spec.scale is None else Scale(spec.scale, spec.scale_origin)
        scale, merged = _scale(job, models, spec.method, given, spec.val_limit, tell)
        _log(f"α = {scale.value:g} ({scale.origin})")
        job.finish_step("scale", scale)
    how = {"scale": scale.value, "scale_origin": scale.origin, "delta_only": spec.delta_only}
    if merged is not None:
        tell(0.95, f"writing {out.name}")
        merged.save(out, **how)
    else:
        merge_to_file(
            models.vectors,
            spec.method.slug,
            out,
            **how,
            bench=models.bench,
            progress=tell,
            cancelled=job.cancel_marker.exists,
            **spec.method.parameters,
        )
    _log(f"wrote {out}")
    job.finish_step("file", {"out": spec.out, "bytes": out.stat().st_size})


def _damage(job: Job, spec: Damage, tell: Told) -> None:
    """α, then the looks."""
    done, models = job.steps(), _open(job, tell)
    if "scale" in done:
        scale = from_plain(Scale, done["scale"])
    else:
        about = MethodChoice(spec.plan.slug, spec.plan.parameters)
        given = None if spec.scale is None else Scale(spec.scale, spec.scale_origin)
        scale, _ = _scale(job, models, about, given, spec.plan.limit, tell)
        _log(f"α = {scale.value:g} ({scale.origin})")
        job.finish_step("scale", scale)
    _log(make_map(job, spec, models, scale, tell))


def _scale(
    job: Job, models: ModelSet, choice: MethodChoice, given: Scale | None, val_limit: int | None, tell: Told
) -> tuple[Scale, Merged | None]:
    """α as given, fixed or usual; else the best on validation, with the merge that it was found with."""
    slug, parameters = choice.slug, choice.parameters
    if given is not None:
        return Scale(*settled_scale(slug, parameters, models.vectors, given.value, given.origin)), None
    if fixed := fixed_scale(slug):
        return fixed, None
    if models.bench is None:
        return Scale(method(slug).usual_scale_for(models.vectors, parameters), USUAL), None
    cancelled = job.cancel_marker.exists
    merged = merge(
        models.vectors,
        slug,
        bench=models.bench,
        progress=lambda share, text: tell(0.3 * share, text),
        cancelled=cancelled,
        **parameters,
    )
    tell(0.3, "α on validation")
    models.bench.experts(split="val", limit=val_limit, cancelled=cancelled)
    found = choose_scale(
        models.bench,
        merged.deltas,
        limit=val_limit,
        cancelled=cancelled,
        progress=lambda share, text: tell(0.35 + 0.3 * share, text),
    )
    return found, merged


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
