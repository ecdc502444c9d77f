"""Studies of what tells as the Diagnose page starts them, saying before how long they take, and finds them again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.jobs.telling import Kept, kept_of, known_looks, name_of
from dcmerge.methods import methods
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.glossary import term
from dcmerge.studies.tells import Plan
from dcmerge.studies.tells.forecast import predicted_seconds
from dcmerge.studies.tells.plan import LIMIT, MERGES, UNLABELED, unfit
from dcmerge.ui import tuning
from dcmerge.ui.job_buttons import start_row
from dcmerge.ui.shell import Page
from dcmerge.ui.single_jobs import ahead_text
from dcmerge.ui.text import duration
from dcmerge.ui.view import choose, remembered

#: The study that is shown, and why the last click started nothing.
SHOWN, REFUSED = "tells.study", "tells.refused"
_LIMITS, _UNLABELED = (25, 50, 100), (25, 50, 100)


def setup_card(page: Page) -> None:
    """How many merges, of which methods, on how many images."""
    with st.container(border=True):
        first, second, third, fourth = st.columns([1, 1, 1, 2])
        with first:
            merges = remembered(
                st.number_input,
                "Merges",
                key="tells.merges",
                default=MERGES,
                min_value=3,
                max_value=500,
                step=1,
                help="The methods come by turns, first with their defaults, then with drawn parameters. More merges tell smaller "
                "correlations from chance. A study that was made before goes on with the merges that it lacks.",
            )
        with second:
            limit = remembered(
                st.selectbox,
                "Images with labels",
                key="tells.limit",
                default=LIMIT,
                options=_LIMITS,
                help=f"Of each task, for the accuracy. {term('validation split')}",
            )
        with third:
            unlabeled = remembered(
                st.selectbox,
                "Images without",
                key="tells.unlabeled",
                default=UNLABELED,
                options=_UNLABELED,
                help="Other validation images of each task, whose labels are not read: the measures are taken on them.",
            )
        with fourth:
            fitting = {slug: one.title for slug, one in methods().items() if not unfit(one)}
            slugs = remembered(
                st.multiselect,
                "Methods",
                key="tells.methods",
                default=[],
                options=list(fitting),
                format_func=fitting.get,
                placeholder="all quick ones",
                help="Those that merge the weights alone, without images.",
            )
        subsets = remembered(
            st.toggle,
            "Merge some of the experts too",
            key="tells.subsets",
            default=False,
            help="Every second merge is then of some of the experts only, drawn.",
        )
        _start(page, slugs, {"merges": merges, "limit": limit, "unlabeled": unlabeled, "subsets": subsets})


def _start(page: Page, slugs: list[str], about: dict[str, Any]) -> None:
    try:
        plan, problem = Plan.of(slugs, **about), ""
        told = _how_long(page, plan)
    except InputError as error:
        plan, problem, told = None, str(error), ""
    start_row(
        "Start the study",
        start,
        (page.models, plan),
        how_long=(lambda: told) if plan else None,
        problem=problem,
        note=REFUSED,
    )


def _how_long(page: Page, plan: Plan) -> str:
    vectors = page.models.vectors
    pace = tuning.pace(page.models.key, page.models)
    left, seconds = predicted_seconds(plan, page.models.images, *pace, known_looks(vectors, plan))
    if not left:
        return "All of these merges are made already: the study is there at once."
    made = "" if left >= plan.merges else f" ({plan.merges - left} are made already)"
    return f"{left} merges{made} take about {duration(seconds)} on this machine as busy as it is now. {ahead_text()}"


def start(models: ModelSet, plan: Plan) -> None:
    """For a button: submit it and show it."""
    try:
        jobs.submit({"kind": "tells", "set": models.name, "plan": asdict(plan)})
    except InputError as error:
        st.session_state[REFUSED] = str(error)
        return
    choose(SHOWN, name_of(models.vectors, plan))


@dataclass(frozen=True, eq=False)
class Listed:
    """A study of this set: its plan, when it was asked for last, what is kept of it, and the job that made it last.

    One that was made in a terminal has no job, one that waits in the queue has nothing kept yet.
    """

    plan: Plan
    asked: float
    kept: Kept | None
    job: jobs.Job | None

    @property
    def label(self) -> str:
        """When and what, in one line that stays the same while it runs: a list whose lines change forgets its choice."""
        plan = self.plan
        images = f"{plan.limit} + {plan.unlabeled} images a task"
        methods = f"{len(plan.methods)} methods" if plan.methods else ""
        parts = f"{datetime.fromtimestamp(self.asked):%d %b %H:%M:%S}", f"{plan.merges} merges", images, methods
        return " · ".join(filter(None, (*parts, "subsets" * plan.subsets)))


def listed(models: ModelSet) -> dict[str, Listed]:
    """The studies of this set by name, those that were asked for last first; of jobs that made nothing those that still may."""
    found: dict[str, Listed] = {}
    for job in jobs.all_jobs():
        if isinstance(spec := job.specification, jobs.Tells) and spec.set == models.name:
            found.setdefault(name_of(models.vectors, spec.plan), Listed(spec.plan, job.created, None, job))
    kept = {one.name: one for one in kept_of(models.vectors)}
    for name, one in list(found.items()):
        if one.job and name not in kept and one.job.state not in jobs.ACTIVE and not one.job.resumable:
            del found[name]
    for name, one in kept.items():
        job = found[name].job if name in found else None
        found[name] = Listed(one.plan, max(one.asked, job.created if job else 0.0), one, job)
    return dict(sorted(found.items(), key=lambda pair: -pair[1].asked))
