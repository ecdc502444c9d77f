"""``dcmerge jobs``: what runs in the background on this machine, also what was started in the dashboard."""

from __future__ import annotations

import argparse
import time

from dcmerge import jobs
from dcmerge.cli.options import Commands, Parser, add_command
from dcmerge.cli.output import paragraph, percent, print_json, seconds, table
from dcmerge.errors import InputError
from dcmerge.jobs import Job
from dcmerge.jobs.journal import jobs_folder


def add_to(commands: Commands, common: Parser) -> None:
    about = "list, show, cancel or resume runs in the background"
    parser = add_command(commands, common, "jobs", about, run)
    parser.add_argument("action", nargs="?", choices=("list", "show", "cancel", "resume"), default="list", help="default: list")
    parser.add_argument("id", nargs="?", metavar="ID", help="a job's id, or its beginning where no other begins so")


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        if args.id is not None:
            raise InputError(f"jobs: expected no id after list, got {args.id!r}")
        return _listed(args.json)
    if args.id is None:
        raise InputError(f"jobs: expected the id of a job after {args.action}, got none")
    found = {"show": jobs.job, "cancel": jobs.cancel, "resume": jobs.resume}[args.action](args.id)
    if args.json:
        print_json(found.to_dict())
    else:
        print(as_text(found) if args.action == "show" else f"{found.id}: {found.state}")
    return 0


def _listed(json: bool) -> int:
    known = jobs.all_jobs()
    if json:
        print_json({"folder": str(jobs_folder()), "jobs": [one.to_dict() for one in known]})
    elif not known:
        print(f"no jobs in {jobs_folder()}")
    else:
        rows = [[one.id, one.state, f"{percent(one.share)} %", rest(one), one.label] for one in known]
        print(table(["id", "state", "done", "remaining", "what"], rows, left=(0, 1, 4)))
    return 0


def rest(job: Job) -> str | None:
    """The remaining time in words."""
    return None if job.remaining is None else f"about {seconds(job.remaining)} s"


def as_text(job: Job) -> str:
    """State, what was asked for, what is finished, and the end of the log."""
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.created))
    lines = [f"{job.id}: {job.state}", paragraph(job.label, indent=2), f"  asked for on {begun}"]
    if job.is_active:
        lines.append(f"  {percent(job.share)} % done{f', {rest(job)} remain' if rest(job) else ''}: {job.text or 'waiting'}")
    if job.error:
        lines.append(paragraph(job.error, indent=2))
    rows = [[row.name, percent(row.evaluation.mean) if row.evaluation else f"failed: {row.error}"] for row in job.rows()]
    if rows:
        lines += ["", "Finished, with the mean accuracy in percent:", table(["", "mean"], rows)]
    elif steps := job.folder.steps():
        lines += ["", *(f"  {name}: {result}" for name, result in steps.items())]
    log = job.folder.log_tail()
    return "\n".join([*lines, *(["", "The end of its log:", *(f"  {line}" for line in log)] if log else [])])
