"""From an id to its report: a run, or the job of a comparison, a sweep, a damage map or a study of what tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.jobs.commands import repeated
from dcmerge.jobs.damaging import map_so_far
from dcmerge.jobs.telling import study_of
from dcmerge.reports.model import Report
from dcmerge.reports.of_comparison import report_of_comparison
from dcmerge.reports.of_damage import report_of_damage
from dcmerge.reports.of_runs import report_of_runs
from dcmerge.reports.of_sweep import report_of_sweep
from dcmerge.reports.of_tells import report_of_study
from dcmerge.runs import RunStore


def report_of(ids: Sequence[str], titles: Mapping[str, str] | None = None) -> Report:
    """Of one job, or of runs; beginnings of ids are enough. Raises InputError where there is none, or nothing to tell yet."""
    if len(ids) == 1:
        try:
            found = jobs.job(ids[0])
        except InputError:
            found = None
        if found is not None:
            return report_of_job(found, titles)
    store = RunStore()
    return report_of_runs([store.get(id) for id in ids], titles)


def report_of_job(job: jobs.Job, titles: Mapping[str, str] | None = None) -> Report:
    """Of a comparison, a sweep, a damage map, or the runs that an evaluation kept, as far as it is, with how to repeat it."""
    found = _measured(job, titles)
    return replace(found, repeat={**repeated(job), **found.repeat})


def _measured(job: jobs.Job, titles: Mapping[str, str] | None) -> Report:
    spec = job.specification
    if (comparison := job.comparison()) is not None:
        return report_of_comparison(comparison, job.label, titles)
    if isinstance(spec, jobs.Sweep):
        from dcmerge.studies.sweep.running import read_found  # Optuna, which the others do without

        found = read_found(job.study, spec.plan)
        if found is not None and found.points:
            return report_of_sweep(found, job.label)
    if isinstance(spec, jobs.Damage) and (damage := map_so_far(job)) is not None and damage.units:
        return report_of_damage(damage, job.label, titles)
    if isinstance(spec, jobs.Tells) and (study := study_of(job)) is not None:
        return report_of_study(study, job.label)
    if runs := RunStore().find(group=job.id):
        return report_of_runs(sorted(runs, key=lambda run: run.recipe is None), titles)
    raise InputError(f"report: expected a job that has measured something, got {job.id}, which is {job.state}")
