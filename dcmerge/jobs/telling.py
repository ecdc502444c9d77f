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
from dcmerge.jobs.record import Job
from dcmerge.jobs.specification import STUDY_STEP, Tells
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.runtime.state_files import jobs_folder
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.tells.found import Study
from dcmerge.studies.tells.looks import Look
from dcmerge.studies.tells.measuring import looks
from dcmerge.studies.tells.plan import Plan
from dcmerge.vectors.task_vectors import TaskVectors
from dcmerge.zoo import ZOOS

Tell = Callable[[float | None, str], None]
_STUDY, _LOOK, _DONE = "study", "look", "done"


@dataclass(frozen=True, eq=False)
class Kept:
    """A study that lies below the jobs' folder. ``plan``: the one asked for last; ``merges``: how many of its merges there are.

    ``asked``: when that plan was first asked for; ``ended``: when it was finished, 0 where it is not; ``changed``: when the last
    event was written.
    """

    path: Path
    title: str
    plan: Plan
    asked: float
    ended: float
    changed: float
    merges: int

    @property
    def name(self) -> str:
        """The same for the same models and plan, whatever its number of merges; see ``name_of``."""
        return self.path.stem

    def study(self) -> Study:
        """What there is of it. Raises InputError where the journal holds too few merges."""
        return _study_in(self.path, self.plan, self.title)


def study(
    bench: Bench,
    plan: Plan,
    title: str,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Study:
    """Make or finish a study; every merge is kept as it comes. Raises InputError where the set has nothing to study."""
    _folder().mkdir(parents=True, exist_ok=True)
    journal = Journal(_path(name_of(bench.vectors, plan)))
    about = {"title": title, "set": bench.vectors.fingerprint, "plan": to_plain(plan)}
    if [event.get("plan") for event in journal.events(_STUDY)[-1:]] != [about["plan"]]:
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


def run_study(job: Job, spec: Tells, models: ModelSet, tell: Tell, log: Callable[[str], None]) -> None:
    """The work of a job: the merges that are not kept yet."""
    title = f"the zoo {spec.set}" if spec.set in ZOOS else models.title
    found = study(models.images, spec.plan, title, progress=tell, cancelled=job.cancel_marker.exists)
    failed = [look for look in found.looks if look.error]
    for look in failed:
        log(f"left out: {look.setting.label}: {look.error}")
    log(f"{len(found.merged)} merges measured")
    outcome = {"merges": len(found.merged), "failed": len(failed)}
    job.finish_step(STUDY_STEP, {"study": name_of(models.vectors, spec.plan), "title": title, **outcome})


def study_of(job: Job) -> Study | None:
    """What a job that ended has found; None before its end, and where too few of its merges can be read."""
    found, spec = job.steps().get(STUDY_STEP), job.specification
    if not isinstance(spec, Tells) or not isinstance(found, dict) or not {"study", "title"} <= set(found):
        return None
    with suppress(InputError):
        return _study_in(_path(found["study"]), spec.plan, found["title"])
    return None


def known_looks(vectors: TaskVectors, plan: Plan) -> dict[int, Look]:
    """The merges that are made already for such a plan, by number."""
    return _known(Journal(_path(name_of(vectors, plan))))


def kept_of(vectors: TaskVectors) -> list[Kept]:
    """All studies of this set, finished or not, the one that changed last first."""
    try:
        paths = [Path(entry.path) for entry in os.scandir(_folder()) if entry.name.endswith(".jsonl")]
    except OSError:
        return []
    found = [one for path in paths if (one := _kept(path, vectors.fingerprint))]
    return sorted(found, key=lambda one: one.changed, reverse=True)


def _kept(path: Path, set_hash: str) -> Kept | None:
    journal = Journal(path)
    asked, ends = journal.events(_STUDY), journal.events(_DONE)
    about = max((*asked, *ends), key=lambda event: event["time"], default={})
    if about.get("set") != set_hash:
        return None
    with suppress(InputError):  # of another version
        plan = from_plain(Plan, about.get("plan"))
        settings = (event.get("setting") for event in journal.events(_LOOK))
        made = {one["number"] for one in settings if isinstance(one, dict) and isinstance(one.get("number"), int)}
        ended, merges = about["time"] if about["event"] == _DONE else 0.0, sum(number < plan.merges for number in made)
        begun, changed = (asked or ends)[-1]["time"], journal.events()[-1]["time"]
        return Kept(path, str(about.get("title", "")), plan, begun, ended, changed, merges)
    return None


def _known(journal: Journal) -> dict[int, Look]:
    """The merges of an earlier run by number; damaged ones are made again."""
    found: dict[int, Look] = {}
    for event in journal.events(_LOOK):
        with suppress(InputError):
            look = from_plain(Look, event)
            found[look.setting.number] = look
    return found


def _study_in(path: Path, plan: Plan, title: str) -> Study:
    """What a journal holds of the plan's merges. Raises InputError where they are too few."""
    known = _known(Journal(path))
    return Study(plan, tuple(known[number] for number in sorted(known) if number < plan.merges), title)


def name_of(vectors: TaskVectors, plan: Plan) -> str:
    """The name of a study, the same for the same models and plan, whatever its number of merges."""
    text = json.dumps([vectors.fingerprint, to_plain(replace(plan, merges=0))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _path(name: str) -> Path:
    return _folder() / f"{name}.jsonl"


def _folder() -> Path:
    return jobs_folder() / "tells"
