"""A job as its folder tells it: specification, state, progress, finished steps, log.

The folder of a job holds ``job.json`` (what it is), ``journal.jsonl`` (what happened), ``steps/`` (a file for each
finished step), ``worker.log``, ``lock`` (held while it is run) and, once somebody wants it to stop, ``cancel``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation import ZERO_SHOT, Scale
from dcmerge.jobs.journal import Journal
from dcmerge.jobs.specification import CHOSEN_STEP, KINDS, TEST_STEP, Compare, Evaluate, FindScale, Specification, Sweep
from dcmerge.runtime import state_files
from dcmerge.runtime.locks import held
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.measuring import Row

#: No remaining time before this share of the work is done: it would only jump.
_ENOUGH = 0.02
_LOG_BYTES = 64 << 10


class State(StrEnum):
    """Where a job stands. "interrupted": its worker died before the end. "unknown": a word of another version's."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> State:
        return cls.UNKNOWN


ACTIVE = (State.QUEUED, State.RUNNING)
#: What can be resumed; of the done ones only comparisons in which a method failed.
RESUMABLE = (State.FAILED, State.CANCELLED, State.INTERRUPTED)


@dataclass(frozen=True)
class Progress:
    """How much is done; of a running job also what it does, and the seconds that are left, if that can be told."""

    share: float = 0.0
    text: str = ""
    remaining: float | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One job. What changes is read from the disk each time it is asked for."""

    folder: Path
    label: str
    created: float
    specification: Specification
    roots: tuple[str, ...] = ()
    #: Path and SHA-256 of the files that bring its methods, where those are not built in.
    plugins: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "journal.jsonl")

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def cancel_marker(self) -> Path:
        return self.folder / "cancel"

    @property
    def log_file(self) -> Path:
        return self.folder / "worker.log"

    @property
    def told_state(self) -> State:
        """The last state in the journal, whether or not its worker lives."""
        states = self.journal.events("state")
        return State(states[-1]["state"]) if states else State.QUEUED

    @property
    def state(self) -> State:
        if self.told_state is not State.RUNNING or held(self.lock):
            return self.told_state
        if self.told_state is not State.RUNNING:  # it ended between the two looks
            return self.told_state
        # Whoever was asked to stop and is gone has stopped, though nobody has written it down yet.
        return State.CANCELLED if self.cancel_marker.exists() else State.INTERRUPTED

    @property
    def queued_at(self) -> float:
        """When it was last put into the queue."""
        return max((e["time"] for e in self.journal.events("state") if e["state"] == State.QUEUED), default=self.created)

    @property
    def error(self) -> str:
        """Why it ended as it did; empty where there is nothing to say."""
        states = self.journal.events("state")
        if states and self.told_state is State.UNKNOWN:
            return f"its journal says {shown(states[-1]['state'])[:50] or 'nothing'}, which this version does not know"
        return states[-1]["text"] if states else ""

    @property
    def odd(self) -> str:
        """What of its files is not understood, in words; empty where all is."""
        lines = self.journal.odd()
        return f"{lines} line{'s' if lines > 1 else ''} of its journal cannot be understood and do not count" if lines else ""

    @property
    def progress(self) -> Progress:
        events = self.journal.events()
        told = [event for event in events if event["event"] == "progress"]
        if not told:
            return Progress()
        shares = [event["share"] for event in told if event["share"] is not None]
        share = 1.0 if self.told_state is State.DONE else shares[-1] if shares else 0.0
        if self.state is not State.RUNNING:
            return Progress(share)
        return Progress(share, told[-1]["text"], _remaining(events))

    @property
    def resumable(self) -> bool:
        return self.state in RESUMABLE or (self.state is State.DONE and self.has_failed_rows)

    @property
    def has_failed_rows(self) -> bool:
        """Whether a method of a comparison or a point of a sweep failed."""
        return any("error" in facts for facts in self.points().values()) or any(row.error for row in self.rows().values())

    def steps(self) -> dict[str, Any]:
        """Results of the finished steps by name, in the order of the specification."""
        found = {name: state_files.read_json(self.folder / "steps" / f"{name}.json") for name in self.specification.steps}
        return {name: result for name, result in found.items() if result is not None}

    def finish_step(self, name: str, result: Any, **facts: Any) -> None:
        """Keep a step's result, and tell the journal."""
        folder = self.folder / "steps"
        folder.mkdir(exist_ok=True)
        state_files.write_json(folder / f"{name}.json", to_plain(result))
        self.journal.append("step", name=name, **facts)

    def rows(self) -> dict[str, Row]:
        """The finished rows of a comparison or an evaluation by name, failed methods included; none of another job."""
        if not isinstance(self.specification, Compare | Evaluate):
            return {}
        found = {}
        for name, result in self.steps().items():
            if name != "set":
                with suppress(InputError):  # damaged, or of another version: as if it had not been measured yet
                    found[name] = from_plain(Row, result)
        return found

    def scale(self) -> Scale | None:
        """The α that a search found; None before that, for another job, and where it cannot be read."""
        found = self.steps().get("scale") if isinstance(self.specification, FindScale) else None
        with suppress(InputError):
            return None if found is None else from_plain(Scale, found)
        return None

    def set_hash(self) -> str:
        """The hash of the models that a search or an evaluation opened; empty before that, and for another job."""
        found = self.steps().get("set")
        return str(found.get("hash", "")) if isinstance(found, dict) else ""

    def points(self) -> dict[str, Mapping[str, Any]]:
        """What is known of a sweep's finished points without opening its study, by step; none of another job."""
        if not isinstance(self.specification, Sweep):
            return {}
        return {name: facts for name, facts in self.steps().items() if name not in (TEST_STEP, CHOSEN_STEP)}

    def chosen(self) -> Mapping[str, Any] | None:
        """What a sweep that ended has chosen: parameters, scale, origin, and the hash of its models; None of another job."""
        found = self.steps().get(CHOSEN_STEP) if isinstance(self.specification, Sweep) else None
        return found if isinstance(found, dict) else None

    @property
    def study(self) -> Path:
        """The file of a sweep's points."""
        return self.folder / "study.sqlite3"

    def comparison(self) -> Comparison | None:
        """The comparison of the rows that are finished so far; None before the zero-shot row, and for another job."""
        rows, spec = self.rows(), self.specification
        if ZERO_SHOT not in rows or not isinstance(spec, Compare):
            return None
        return Comparison(spec.split, spec.limit, spec.val_limit, tuple(rows.values()))

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines that the worker printed."""
        try:
            with open(self.log_file, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - _LOG_BYTES))
                return file.read().decode(errors="replace").splitlines()[-lines:]
        except OSError:
            return []


def _remaining(events: tuple[Mapping[str, Any], ...]) -> float | None:
    """Seconds left at the pace since this run began; None before there is enough to judge by."""
    starts = [place for place, event in enumerate(events) if event.get("state") == State.RUNNING]
    run = [e for e in events[starts[-1] if starts else 0 :] if e["event"] == "progress" and e["share"] is not None]
    if not run or run[-1]["share"] - run[0]["share"] <= _ENOUGH:
        return None
    pace = (run[-1]["time"] - run[0]["time"]) / (run[-1]["share"] - run[0]["share"])
    return max(0.0, pace * (1 - run[-1]["share"]) - (time.time() - run[-1]["time"]))


def duration(seconds: float | None) -> str | None:
    """ "40 s", "2:05 min" or "1:02 h"; None of None."""
    if seconds is None:
        return None
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"


def state_folder() -> Path:
    """The folder of ``DCMERGE_JOBS``, else ``dcmerge/jobs`` in the user's folder for programs' states."""
    return state_files.jobs_folder()


def all_jobs(folder: Path | None = None) -> list[Job]:
    """Every job, the newest first."""
    try:
        names = [entry.name for entry in os.scandir(folder or state_folder()) if entry.is_dir()]
    except OSError:
        return []
    found = [read_job((folder or state_folder()) / name) for name in names]
    return sorted((one for one in found if one), key=lambda one: (one.created, one.id), reverse=True)


def strange_folders(folder: Path | None = None) -> tuple[str, ...]:
    """Names of the folders of jobs that this version cannot read, in order."""
    place = folder or state_folder()
    try:
        names = [entry.name for entry in os.scandir(place) if entry.is_dir() and os.path.exists(f"{entry.path}/job.json")]
    except OSError:
        return ()
    return tuple(sorted(name for name in names if read_job(place / name) is None))


def job(prefix: str) -> Job:
    """The job whose id begins so; raises InputError where none does, or several."""
    found = [one for one in all_jobs() if one.id.startswith(prefix)] if prefix else []
    exact = [one for one in found if one.id == prefix]
    if len(exact or found) == 1:
        return (exact or found)[0]
    got = f"{prefix!r}, with which {len(found)} ids begin" if found else f"{prefix!r}, with which no id begins"
    raise InputError(f"job: expected the id of a job or the beginning of just one, got {got}")


def read_job(folder: Path) -> Job | None:
    """The job in a folder; None where there is no whole one."""
    data = state_files.read_json(folder / "job.json")
    if not isinstance(data, dict):
        return None
    try:
        datetime.fromtimestamp(data["created"])
        if not isinstance(data["label"], str) or not all(isinstance(root, str) for root in data["roots"]):
            return None
        spec = from_plain(KINDS[data["specification"]["kind"]], data["specification"])
        if not all(isinstance(name, str) for name in spec.steps):
            return None
        plugins = tuple((path, sha256) for path, sha256 in data.get("plugins", ()))
        return Job(folder, data["label"], data["created"], spec, tuple(data["roots"]), plugins)
    except (InputError, KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, RecursionError):
        return None  # damaged, or written by another version
