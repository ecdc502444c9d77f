"""Studies of what tells, merge by merge in a journal: the same plan on the same models goes on where it was cut off.

The number of merges is no part of a plan's name: whoever asks for more has those that are made already.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.jobs.journal import Journal
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.runtime.state_files import jobs_folder
from dcmerge.studies.tells.found import Study
from dcmerge.studies.tells.looks import Look
from dcmerge.studies.tells.measuring import looks
from dcmerge.studies.tells.plan import Plan
from dcmerge.vectors.task_vectors import TaskVectors

_STUDY, _LOOK, _DONE = "study", "look", "done"


@dataclass(frozen=True, eq=False)
class Kept:
    """A study that lies below the jobs' folder. ``ended``: the time of its last merge, 0 of an unfinished one."""

    path: Path
    title: str
    plan: Plan
    ended: float

    def study(self) -> Study:
        """Raises InputError where the journal holds too few merges."""
        known = _known(Journal(self.path))
        return Study(self.plan, tuple(known[number] for number in sorted(known) if number < self.plan.merges), self.title)


def study(
    bench: Bench,
    plan: Plan,
    title: str,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Study:
    """Make or finish a study; every merge is kept as it comes. Raises InputError where the set has nothing to study."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / f"{_key(bench.vectors, plan)}.jsonl")
    about = {"title": title, "set": bench.vectors.fingerprint, "plan": to_plain(plan)}
    if not journal.events(_STUDY):
        journal.append(_STUDY, **about)
    found = looks(
        bench,
        plan,
        known=_known(journal),
        on_look=lambda look: journal.append(_LOOK, **to_plain(look)),
        progress=progress,
        cancelled=cancelled,
    )
    journal.append(_DONE, **about)
    return Study(plan, tuple(found), title)


def newest(vectors: TaskVectors) -> Kept | None:
    """The study of this set that was finished last; None where there is none."""
    try:
        paths = [Path(entry.path) for entry in os.scandir(_folder()) if entry.name.endswith(".jsonl")]
    except OSError:
        return None
    kept = [one for path in paths if (one := _kept(path, vectors.fingerprint))]
    return max(kept, key=lambda one: one.ended, default=None)


def _kept(path: Path, set_hash: str) -> Kept | None:
    journal = Journal(path)
    ends = journal.events(_DONE)
    if not ends or ends[-1].get("set") != set_hash:
        return None
    with suppress(InputError):  # of another version
        return Kept(path, str(ends[-1].get("title", "")), from_plain(Plan, ends[-1].get("plan")), ends[-1]["time"])
    return None


def _known(journal: Journal) -> dict[int, Look]:
    """The merges of an earlier run by number; damaged ones are made again."""
    found: dict[int, Look] = {}
    for event in journal.events(_LOOK):
        with suppress(InputError):
            look = from_plain(Look, event)
            found[look.setting.number] = look
    return found


def _key(vectors: TaskVectors, plan: Plan) -> str:
    """A name that is the same for the same models and plan, whatever its number of merges."""
    text = json.dumps([vectors.fingerprint, to_plain(replace(plan, merges=0))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _folder() -> Path:
    return jobs_folder() / "tells"
