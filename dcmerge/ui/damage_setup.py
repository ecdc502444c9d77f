"""Which merge is looked at, how closely, and one button that starts it and says before how long it takes."""

from __future__ import annotations

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.evaluation.prefixes import share_of_pass
from dcmerge.studies.damage import BASE, BLOCKS, EXPERT, MATRICES, WITHOUT, Plan, units_of
from dcmerge.studies.glossary import term
from dcmerge.ui import damaging, tuning
from dcmerge.ui.choice import Choice, choice_of_method
from dcmerge.ui.job_buttons import start_row
from dcmerge.ui.shell import Page
from dcmerge.ui.single_jobs import ahead_text
from dcmerge.ui.text import duration
from dcmerge.ui.view import remembered

CHANGE_TITLES = {EXPERT: "back to the expert", BASE: "back to the base", WITHOUT: "without the expert"}
_LIMITS = {25: "25", 50: "50", 100: "100", 0: "all"}


def setup_card(page: Page) -> None:
    """Method and α as on the Merge page, then what is changed and on how many images."""
    if page.models.bench is None:
        st.info(
            "This set has no images, so no accuracy can be measured. Add images on the Load page, or choose a demo.",
            icon=":material/image_not_supported:",
        )
        return
    choice = choice_of_method(page)
    with st.container(border=True):
        left, middle, right = st.columns([3, 1, 1])
        with left:
            changes = remembered(
                st.multiselect,
                "Change each part",
                key="damage.changes",
                default=[EXPERT, BASE],
                options=list(CHANGE_TITLES),
                format_func=CHANGE_TITLES.get,
                help="Back to the expert: a gain shows what the merge lost there. Back to the base: a loss shows what the merge "
                "brings there. Without the expert: the part is merged from the other experts alone; a loss shows what the task "
                "owes to its own.",
            )
        with middle:
            by = remembered(
                st.selectbox,
                "Parts",
                key="damage.by",
                default=MATRICES,
                options=[MATRICES, BLOCKS],
                help="Every weight matrix by itself, or whole blocks with all that is merged in them.",
            )
        with right:
            limit = remembered(
                st.selectbox,
                "Validation images a task",
                key="damage.limit",
                default=50,
                options=list(_LIMITS),
                format_func=_LIMITS.get,
                help=f"More images tell smaller changes from noise, and take longer. {term('validation split')}",
            )
        _start(page, choice, changes, by, limit or None)


def _start(page: Page, choice: Choice, changes: list[str], by: str, limit: int | None) -> None:
    try:
        plan = Plan.of(choice.method.slug, choice.parameters, changes, by, limit)
        problem = ""
    except InputError as error:
        plan, problem = None, str(error)
    how_long = None if plan is None else lambda: _how_long(page, plan)
    start_row(
        "Make the map",
        damaging.start,
        (page.models, plan, choice.scale),
        how_long=how_long,
        problem=problem,
        note=damaging.REFUSED,
    )


def _how_long(page: Page, plan: Plan) -> str:
    a_image, merging = tuning.pace(page.models.key, page.models)
    bench, units = page.models.images, units_of(page.models.vectors, plan.by)
    images = sum(len(bench.split(task, "val", plan.limit)) for task in bench.tasks)
    # A pass begins at the block that is changed.
    parts = sum(share_of_pass(bench.encoder, names) for names in units.values())
    looks = 3 + parts * len(plan.changes) + len(units).bit_length()
    merges = 1 + len(bench.tasks) * (WITHOUT in plan.changes)
    taken = duration(looks * images * a_image + merges * merging)
    return f"{len(units)} parts take about {taken} on this machine as busy as it is now. {ahead_text()}"
