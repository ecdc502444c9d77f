"""``dcmerge jobs``: the work that runs in the background, the same as on the dashboard's panel."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dcmerge import jobs
from dcmerge.cli.options import Commands, Parser, add_command, parameters_text
from dcmerge.cli.output import paragraph, percent, print_json, printable, table
from dcmerge.errors import InputError, listed
from dcmerge.merging.recipe import MODEL
from dcmerge.vectors.mix import Mix

ACTIONS = ("list", "show", "cancel", "resume")
#: A running job ends within two seconds of its cancel; so long the command waits to tell how.
_CANCEL_SECONDS, _LOOK_EVERY = 2.5, 0.1


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "jobs", run, example="show 20260131")
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="default: list")
    parser.add_argument("id", nargs="?", metavar="ID", help="a job's id, or the beginning of only one")


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        if args.id is not None:
            raise InputError(f"expected no id after jobs list, got {args.id!r}; jobs show ID shows one job")
        found = jobs.all_jobs()
        document = {"folder": str(jobs.state_folder()), "jobs": [summary(job) for job in found]}
        print_json(document) if args.json else print(list_text(found))
        return 0
    if args.id is None:
        raise InputError(f"expected the id of a job: jobs {args.action} ID")
    job = {"show": jobs.job, "cancel": _cancel, "resume": jobs.resume}[args.action](args.id)
    if args.action == "show":
        print_json(details(job)) if args.json else print(show_text(job))
    else:
        print_json(summary(job)) if args.json else print(f"{job.id} is {job.state}")
    return 0


def _cancel(name: str) -> jobs.Job:
    """Cancel, and wait until the job has stopped."""
    job = jobs.cancel(name)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while job.state in jobs.ACTIVE and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
    return job


def submitted(args: argparse.Namespace, specification: Mapping[str, Any]) -> int:
    """``--background`` of any command: hand the work in, print the job's id; the exit code."""
    job = jobs.submit(specification)
    print_json({"id": job.id, "label": job.label, "folder": str(job.folder)}) if args.json else print(job.id)
    return 0


def summary(job: jobs.Job) -> dict[str, Any]:
    """A job in one line of facts; the share is 1 where all is done."""
    progress = job.progress
    return {
        "id": job.id,
        "label": job.label,
        "state": job.state,
        "created": job.created,
        "share": progress.share,
        "text": progress.text,
        "remaining_seconds": progress.remaining,
        "error": job.error or None,
    }


def details(job: jobs.Job) -> dict[str, Any]:
    """Everything that is known of a job."""
    found = job.comparison()
    return {
        **summary(job),
        "folder": str(job.folder),
        "specification": jobs.to_data(job.specification),
        "finished_steps": list(job.steps()),
        "steps": job.specification.steps,
        "comparison": found.to_dict() if found else None,
        "plugins": [{"path": path, "sha256": sha256} for path, sha256 in job.plugins],
        "log": job.log_tail(),
    }


def list_text(found: list[jobs.Job]) -> str:
    """One line a job, the newest first."""
    strange = jobs.strange_folders()
    told = [paragraph(f"cannot be read by this version: {listed(strange)}")] if strange else []
    if not found:
        return "\n".join([f"no jobs in {jobs.state_folder()}", *told])
    rows = [[job.id, job.state, f"{job.progress.share:.0%}", left(job), job.label] for job in found]
    return "\n".join([table(["id", "state", "done", "left", "what"], rows, left=(0, 1, 4)), *told])


def show_text(job: jobs.Job) -> str:
    """State, progress, specification, finished steps, the end of the log."""
    progress, finished = job.progress, job.steps()
    remaining = f", about {left(job)} left" if progress.remaining is not None else ""
    created = datetime.fromtimestamp(job.created).strftime("%Y-%m-%d %H:%M:%S")
    return "\n".join(
        [
            paragraph(f"{job.id}: {job.label}"),
            paragraph(f"{job.state}{f': {job.error}' if job.error else ''}", indent=2),
            paragraph(f"{progress.share:.0%} done{f', {progress.text}' if progress.text else ''}{remaining}", indent=2),
            *([paragraph(job.odd, indent=2)] if job.odd else ()),
            f"  submitted {created}, kept in {printable(job.folder)}",
            *(paragraph(line, indent=2) for line in _specification_lines(job)),
            *(paragraph(f"plugin: {path}, sha256 {sha256}", indent=2) for path, sha256 in job.plugins),
            f"  {len(finished)} of {len(job.specification.steps)} steps finished",
            *(paragraph(f"{name}{_outcome(job, name)}", indent=4) for name in finished),
            *(["  the end of its log:", *(paragraph(line, indent=4) for line in job.log_tail(10))] if job.log_tail() else ()),
        ]
    )


def left(job: jobs.Job) -> str | None:
    """The remaining time as "2:05 min"; None where it is not known."""
    return jobs.duration(job.progress.remaining)


def _specification_lines(job: jobs.Job) -> list[str]:
    spec = job.specification
    if isinstance(spec, jobs.Sweep):
        plan = spec.plan
        limit = f"at most {plan.limit} validation images a task" if plan.limit else "all validation images"
        fixed = f" ({parameters_text(plan.parameters)})" if plan.parameters else ""
        return [f"{spec.kind} on {spec.set}: {plan.text}, {limit}, workers {spec.workers}", f"method: {plan.slug}{fixed}"]
    if isinstance(spec, jobs.Damage):
        return [f"{spec.kind} on {spec.set}: {', '.join(spec.plan.changes)}, by {spec.plan.by}", f"method: {spec.plan.slug}"]
    if isinstance(spec, jobs.Tells):
        images = f"{spec.plan.limit} images a task with labels, {spec.plan.unlabeled} without"
        methods = ", ".join(spec.plan.methods) or "all quick ones"
        return [f"{spec.kind} on {spec.set}: {spec.plan.merges} merges, {images}", f"methods: {methods}"]
    limits = [
        f"{name.replace('_', '-')} {value}" for name in ("limit", "val_limit") if (value := getattr(spec, name, None)) is not None
    ]
    choices, about = spec.methods if isinstance(spec, jobs.Compare) else (spec.method,), []
    if isinstance(spec, jobs.Compare | jobs.Evaluate):
        about += [f"{spec.split} split"]
    if isinstance(spec, jobs.Merge | jobs.Evaluate):
        about += [f"α {'chosen by the job' if spec.scale is None else f'{spec.scale:g}'}"]
    if isinstance(spec, jobs.Merge):
        about += [f"into {spec.out}", *([spec.content] if spec.content != MODEL else [])]
    about += [f"mix: {mixed}"] if (mixed := Mix.from_data(spec.mix).text) else []
    settings = [f"{c.slug}{f' ({parameters_text(c.parameters)})' if c.parameters else ''}" for c in choices]
    told = ", ".join([*about, *limits])
    return [f"{spec.kind} on {spec.set}{f': {told}' if told else ''}", f"methods: {', '.join(settings)}"]


def _outcome(job: jobs.Job, name: str) -> str:
    point = job.points().get(name)
    if point:
        said = f"failed: {point['error']}" if "error" in point else f"{point['values']}: {percent(point['mean'])} % normalised"
        return f" {said}"
    row = job.rows().get(name)
    if row is None:
        return ""
    return f" failed: {row.error}" if row.error else f" {percent(row.measured.mean)} % on average"
