"""Lost images: a gallery of what the merge gets wrong and its expert right, the reverse, and where two runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.evaluation import Split
from dcmerge.plots.lost import CHANGE, confusion_map
from dcmerge.runs import Run, RunStore
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.glossary import term
from dcmerge.studies.lost import FATES, LOST, NEITHER, WON, Lost, RunsApart, images_of_run, lost_images, runs_apart
from dcmerge.studies.lost.found import MODELS, TaskAnswers
from dcmerge.studies.lost.tables import apart_image_rows, apart_rows, as_csv, task_rows
from dcmerge.studies.run_names import label_of
from dcmerge.ui.charts import show
from dcmerge.ui.choice import Choice, choice_of_method
from dcmerge.ui.history import set_of, told
from dcmerge.ui.merging import merged_once
from dcmerge.ui.shell import Page, readable_errors
from dcmerge.ui.text import interval, plain
from dcmerge.ui.thumbnails import Thumbnail, gallery
from dcmerge.ui.view import remembered

_MERGE, _RUNS = "a merge with its experts", "two runs"
#: The merge that was asked for, and what was found of the last one.
_ASKED, _FOUND = "lost.asked", "lost.found"
_SPLIT = "val"
_LIMITS = {25: "25", 50: "50", 100: "100", 0: "all"}
_TITLES = {LOST: "lost", WON: "won", NEITHER: "both wrong"}
#: So many of a set's newest runs can be chosen.
_LATEST = 100


def lost_cards(page: Page) -> None:
    """One of the two comparisons; a hint where the set has no images."""
    if page.models.bench is None:
        st.info(
            "This set has no images, so nothing can be lost or won. Add images on the Load page, or choose a demo.",
            icon=":material/image_not_supported:",
        )
        return
    what = remembered(st.segmented_control, "Compare", key="lost.what", default=_MERGE, options=[_MERGE, _RUNS], required=True)
    _merge_cards(page) if what == _MERGE else _run_cards(page)


def _merge_cards(page: Page) -> None:
    choice = choice_of_method(page)
    with st.container(border=True):
        limit = remembered(
            st.selectbox,
            "Validation images a task",
            key="lost.limit",
            default=50,
            options=list(_LIMITS),
            format_func=_LIMITS.get,
            help=term("validation split"),
        )
        key = (*choice.key(page), choice.scale.value, limit)
        st.button(
            "Show the images",
            type="primary",
            icon=":material/image_search:",
            on_click=_ask,
            args=(key,),
            help="Asks the base, every expert and the merge about the same images.",
        )
        if st.session_state.get(_ASKED) == key:
            _look(page, choice, limit or None, key)
    known, found = st.session_state.get(_FOUND, (None, None))
    if found is not None and known == key:
        _summary_card(page, found)
        _gallery_card(page, found)
    elif found is not None:
        st.info("The merge above has changed. Show its images again.", icon=":material/info:")


def _ask(key: tuple) -> None:
    st.session_state[_ASKED] = key


def _look(page: Page, choice: Choice, limit: int | None, key: tuple) -> None:
    """Here and not in a thread: Streamlit collects garbage after every drawing, for which a watched thread would wait.

    Whoever moves a widget meanwhile ends it, as the bar is drawn next.
    """
    bench, bar = page.models.images, st.progress(0.0, "Merging …")

    def tell(share: float, text: str) -> None:
        bar.progress(share, text)

    with readable_errors():
        merged = merged_once(page.models, choice.method.slug, dict(choice.parameters))
        model = merged.model(bench, choice.scale.value)
        found = lost_images(bench, model, split=_SPLIT, limit=limit, progress=tell)
    bar.empty()
    st.session_state[_FOUND] = key, found
    del st.session_state[_ASKED]


def _summary_card(page: Page, found: Lost) -> None:
    titles, number = page.models.task_titles, st.column_config.NumberColumn
    with st.container(border=True):
        st.markdown("**What the merge loses and wins, task by task**", help=term("accuracy"))
        share = number(format="%.1f %%", help=term("accuracy"))
        st.dataframe(
            [{**row, "task": titles[row["task"]]} for row in task_rows(found)],
            hide_index=True,
            alt="Accuracies of base, expert and merge, and the images that were lost and won, by task",
            column_config={
                **dict.fromkeys(MODELS, share),
                **{fate: number(help=f"Images: {FATES[fate]}.") for fate in (LOST, WON, NEITHER)},
                "new mistake": st.column_config.TextColumn(
                    help="The mistake that the merge makes more often than the expert, and how much more often."
                ),
            },
        )
        st.download_button(
            "Every image as CSV",
            as_csv(found, page.models.images),
            "images.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
        )


def _gallery_card(page: Page, found: Lost) -> None:
    bench = page.models.images
    with st.container(border=True):
        task = _task_chooser(page, list(found.tasks))
        one, part = found.tasks[task], bench.split(task, found.split, found.limit)
        counts = {fate: len(one.places(fate)) for fate in _TITLES}
        fate = remembered(
            st.segmented_control,
            "Images",
            key="lost.fate",
            default=LOST,
            options=list(_TITLES),
            required=True,
            format_func=lambda name: f"{_TITLES[name]}: {counts[name]}",
            help=". ".join(f"{name}: {FATES[name]}" for name in _TITLES) + ".",
        )
        if not counts[fate]:
            st.info(f"There is no image of which {FATES[fate]}.", icon=":material/image_not_supported:")
        gallery([_thumbnail(one, part, place) for place in one.places(fate)], key=f"lost.page.{task}.{fate}")
        st.caption(
            "**How to read:** below each image stands what it shows, then what expert and merge say. The number is the margin: "
            "above 0 the answer is right, and the further from 0 the surer the model is. Images on which the two are furthest "
            "apart come first."
        )
        shown = remembered(
            st.segmented_control,
            "Mistakes of",
            key="lost.confusion",
            default=CHANGE,
            options=[CHANGE, *MODELS],
            required=True,
            help="Which class is taken for which.",
        )
        reading = (
            "rows are the true classes, columns the answers. Red: the merge makes this mistake more often than the expert, or is "
            "right less often. Blue: the other way round."
            if shown == CHANGE
            else "rows are the true classes, columns the answers. On the diagonal the model is right."
        )
        show(confusion_map(one, shown, page.models.task_titles[task]), reading, key="lost.confusion.map")


def _task_chooser(page: Page, tasks: Sequence[str]) -> str:
    titles = page.models.task_titles
    return remembered(
        st.selectbox, "Task", key="task", default=tasks[0], options=list(tasks), format_func=lambda name: titles[name]
    )


def _thumbnail(one: TaskAnswers, part: Split, place: int) -> Thumbnail:
    true = one.classes[int(one.labels[place])]
    said = [one.classes[int(model.predicted[place])] for model in (one.expert, one.merged)]
    margins = [f"{model.margin[place].item():+.1f}".replace("-", "−") for model in (one.expert, one.merged)]
    lines = [f"**{plain(true)}**", f"expert: {plain(said[0])} {margins[0]}", f"merge: {plain(said[1])} {margins[1]}"]
    alt = f"{true}; the expert says {said[0]}, the merge {said[1]}"
    return Thumbnail(part.images[place], "  \n".join([*lines, *_file(part, place)]), alt)


def _file(part: Split, place: int) -> list[str]:
    """The image's file with its folder, where it is one."""
    path: Path | None = part.files[place] if part.files else None
    return [plain(f"{path.parent.name}/{path.name}")] if path else []


def _run_cards(page: Page) -> None:
    found = told(RunStore().find, default=[], set=set_of(page).hash, limit=_LATEST)
    known = {run.id: run for run in found if sum(other.images == run.images for other in found) > 1}
    if len(known) < 2:
        st.info(
            "There are no two runs on the same images of this set yet. Merge or compare something first.", icon=":material/info:"
        )
        return
    with st.container(border=True):
        first = _run_chooser("First run", "lost.first", list(known.values()))
        others = [run for run in known.values() if run.images == first.images and run.id != first.id]
        second = _run_chooser("Second run", "lost.second", others)
    try:
        apart = runs_apart(first, second)
        images = images_of_run(page.models.images, first)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/info:")
        return
    _apart_card(page, apart, images)


def _run_chooser(label: str, key: str, runs: Sequence[Run]) -> Run:
    labels = {run.id: f"{label_of(run)} · {run.evaluation.measured_on} · {run.id[-6:]}" for run in runs}
    id = remembered(st.selectbox, label, key=key, default=runs[0].id, options=list(labels), format_func=lambda id: labels[id])
    return next(run for run in runs if run.id == id)


def _apart_card(page: Page, found: RunsApart, images: Mapping[str, Split]) -> None:
    titles, sides = page.models.task_titles, {"first": "only the first is right", "second": "only the second is right"}
    with st.container(border=True):
        st.markdown(
            f"Second minus first: {plain(interval(found.difference))} points of mean accuracy, with its 95 % interval.",
            help=term("paired bootstrap"),
        )
        rows = [{**row, "task": titles.get(row["task"], row["task"])} for row in apart_rows(found)]
        st.dataframe(rows, hide_index=True, alt="On how many images of each task the runs differ")
        st.download_button(
            "These images as CSV",
            csv_text(apart_image_rows(found, images, page.models.images)),
            "runs-apart.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
        )
        task = _task_chooser(page, list(found.tasks))
        one, part = found.tasks[task], images[task]
        places = {"first": one.only_first, "second": one.only_second}
        side = remembered(
            st.segmented_control,
            "Images",
            key="lost.side",
            default="first",
            options=list(sides),
            required=True,
            format_func=lambda name: f"{sides[name]}: {len(places[name])}",
        )
        if not places[side]:
            st.info(f"There is no image of which {sides[side]}.", icon=":material/image_not_supported:")
        classes = page.models.images.tasks[task].classes
        gallery([_plain_thumbnail(part, place, classes) for place in places[side]], key=f"lost.page.{task}.{side}")


def _plain_thumbnail(part: Split, place: int, classes: Sequence[str]) -> Thumbnail:
    shown = classes[int(part.labels[place])]
    return Thumbnail(part.images[place], "  \n".join([f"**{plain(shown)}**", *_file(part, place)]), shown)
