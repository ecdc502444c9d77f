"""Cards of the Merge page."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import Evaluation, Scale, choose_scale, paired_difference
from dcmerge.methods import Method, methods
from dcmerge.methods.dc_merge import smoothing_in_use
from dcmerge.ui import work
from dcmerge.ui.charts import show
from dcmerge.ui.controls import method_controls
from dcmerge.ui.history import Run, record, runs
from dcmerge.ui.merging import merged_once, quick_look
from dcmerge.ui.shell import Page, readable_errors
from dcmerge.ui.text import percent, plain
from dcmerge.ui.view import choose, remembered

_WORK, _CURVES, _NOTE, _FOUND = "merge.work", "merge.curves", "merge.note", "merge.found"
_LIMITS = [25, 50, 100, 200]
_DOWNLOAD_LIMIT = 500 << 20


@dataclass(frozen=True)
class Choice:
    """Method, parameters and scale as chosen on the page."""

    method: Method
    parameters: Mapping[str, Any]
    scale: Scale = field(default_factory=lambda: Scale(1.0, "set by hand"))

    def key(self, page: Page) -> tuple:
        return (page.models.name, self.method.slug, tuple(sorted(self.parameters.items())))


def choice_of_method(page: Page) -> Choice:
    """Method, its generated controls, and α."""
    known = methods()
    with st.container(border=True):
        left, right = st.columns([1, 2])
        with left:
            slug = remembered(st.selectbox, "Method", key="method", default="dc_merge", options=list(known),
                              format_func=lambda s: known[s].title,
                              help="Every method of the register, with its own controls.")  # fmt: skip
        chosen = known[slug]
        right.markdown(chosen.idea)
        right.caption(f"{chosen.source}. {_variant(page, chosen)}")
        with readable_errors():
            parameters = method_controls(chosen, page.smoothing)
        alpha = _alpha_control(chosen)
    choice = Choice(chosen, parameters)
    found: Scale | None = st.session_state.get(_CURVES, {}).get(choice.key(page))
    by_hand = "the method's usual value" if alpha == chosen.usual_scale else "set by hand"
    origin = found.origin if found and found.value == alpha else by_hand
    return Choice(chosen, parameters, Scale(alpha, origin, found.curve if found else ()))


def _alpha_control(chosen: Method) -> float:
    """α, kept for each method by itself; what a search found is set here, before the slider is drawn."""
    key, found = f"{chosen.slug}.alpha", st.session_state.setdefault(_FOUND, {}).pop(chosen.slug, None)
    if found is not None:
        choose(key, found)
    highest = max(5.0, found or 0.0, st.session_state.get(key, 0.0))
    return remembered(st.slider, "Scale α", key=key, default=chosen.usual_scale, min_value=0.0, max_value=highest, step=0.05,
                      help="How far to go along the merged task vector: 0 is the base.")  # fmt: skip


def _variant(page: Page, chosen: Method) -> str:
    """Which variant of DC-Merge runs, in words."""
    if chosen.slug != "dc_merge":
        return ""
    kind = page.models.vectors.kind
    strategy = smoothing_in_use(page.smoothing["smoothing"], kind)
    path = "LoRA" if kind == "lora" else "full fine-tuning"
    ratio = f" with ρ = {page.smoothing['rho']:g}" if strategy == "linear" else ""
    return f"Runs the {path} variant, smoothing: {strategy}{ratio} (sidebar)."


def live_card(page: Page, choice: Choice) -> None:
    """The quick look: merged again at every change."""
    if page.models.bench is None:
        st.info("This set has no images to evaluate on. You can merge and save it below.", icon=":material/info:")
        return
    with st.container(border=True):
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.subheader("Live accuracy")
        with right:
            limit = remembered(st.selectbox, "Quick subset", key="quick", default=50, options=_LIMITS,
                               format_func=lambda n: f"{n} images a task",
                               help="Validation images, the same share of every class, "
                               "drawn with a fixed seed. More images: narrower intervals, slower.")  # fmt: skip
        with readable_errors(), st.spinner("Merging and evaluating …"):
            look = quick_look(page.models, choice.method.slug, choice.parameters, choice.scale.value, limit)
        record(Run(page.models.name, choice.method.slug, choice.parameters, choice.scale, look.merged, datetime.now()))
        _metrics(look.zero_shot, look.merged, look.experts)
        show(
            plots.accuracy_bars(look.zero_shot, look.merged, look.experts, page.models.task_titles, label=choice.method.title),
            "grey is the base without fine-tuning, dark the task's own expert, blue the merged model. Whiskers are 95 % Wilson "
            f"intervals: with {limit} images a task, differences inside them mean nothing.",
            key="merge.live",
        )


def _metrics(zero_shot: Evaluation, merged: Evaluation, experts: Evaluation) -> None:
    gain = paired_difference(merged, zero_shot)
    with st.container(horizontal=True):
        st.metric("Mean accuracy", percent(merged.mean), border=True, help=f"Top-1, mean over tasks. {merged.measured_on}.",
                  delta=f"{100 * gain.value:+.1f} points over zero-shot [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
                  delta_color="normal" if gain.excludes_zero else "off", delta_arrow="auto" if gain.excludes_zero else "off",
                  height="stretch")  # fmt: skip
        st.metric("Normalised", percent(merged.mean_normalised), border=True, height="stretch",
                  help="Mean over tasks of the accuracy divided by that of the task's own expert.")  # fmt: skip
        st.metric("Zero-shot", percent(zero_shot.mean), border=True, height="stretch", help="The base with the tasks' heads.")
        st.metric("Experts", percent(experts.mean), border=True, height="stretch", help="Each expert on its own task.")
        worst = merged.worst
        st.metric("Worst task", percent(worst.accuracy), border=True, height="stretch",
                  help=f"{worst.task}, the lowest accuracy of all tasks.")  # fmt: skip


def full_evaluation_card(page: Page, choice: Choice) -> None:
    """Choice of α on validation and the one look at the test split, in the background."""
    if page.models.bench is None:
        return
    with st.container(border=True):
        st.subheader("Choose α on validation, report on test")
        st.markdown("α is chosen on the whole validation split, by mean normalised accuracy; the test split is then "
                    "evaluated once.")
        busy = work.running(_WORK)
        with st.container(horizontal=True):
            st.button("Find α", icon=":material/search:", disabled=busy, on_click=_start_scale, args=(page, choice),
                      help="Tries α = 0.1 … 3.0 on validation (further while the best is at the border) and sets the "
                           "slider.")  # fmt: skip
            st.button("Evaluate on test", icon=":material/checklist:", disabled=busy, on_click=_start_test, args=(page, choice),
                      help="All test images of every task, with the α above.")  # fmt: skip
        # First, because the watch redraws the page as long as it finds finished work.
        _collect(page)
        work.watch(_WORK)
        curves = {k: c for k, c in st.session_state.get(_CURVES, {}).items() if k[0] == page.models.name}
        if curves:
            lines = {Run(k[0], k[1], dict(k[2]), c, None, datetime.now()).label: c for k, c in curves.items()}
            show(plots.scale_curve(lines, choice.scale.value),
                 "the top of a line is the α chosen for that method; a flat top means that α hardly matters, a steep side "
                 "that it does. "
                 "Every fourth value was tried first, then all around the best.", key="merge.curve")  # fmt: skip


def _start_scale(page: Page, choice: Choice) -> None:
    def find(progress: work.Progress, cancelled: Any) -> tuple[str, Choice, Scale]:
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        return "scale", choice, choose_scale(page.models.bench, merged.deltas, progress=progress, cancelled=cancelled)

    work.start(_WORK, f"Choosing α for {choice.method.title}", find)


def _start_test(page: Page, choice: Choice) -> None:
    def evaluate(progress: work.Progress, cancelled: Any) -> tuple[str, Choice, Evaluation]:
        bench = page.models.bench
        weights = bench.merged_weights(merged_once(page.models, choice.method.slug, choice.parameters).deltas, choice.scale.value)
        return "test", choice, bench.evaluate(weights, choice.method.slug, progress=progress, cancelled=cancelled)

    work.start(_WORK, f"Evaluating {choice.method.title}", evaluate)


def _collect(page: Page) -> None:
    """Take over what the background work found."""
    done = work.finished(_WORK)
    if done and done.error:
        st.warning(plain(done.error), icon=":material/info:")
    elif done:
        kind, choice, result = done.result
        if kind == "scale":
            st.session_state.setdefault(_CURVES, {})[choice.key(page)] = result
            st.session_state[_NOTE] = f"α = {result.value:g} is the best for {choice.method.title} ({result.origin}); the slider is set."
            # For the method that was searched, whichever is chosen by now.
            st.session_state.setdefault(_FOUND, {})[choice.method.slug] = result.value
        else:
            record(Run(page.models.name, choice.method.slug, choice.parameters, choice.scale, result, datetime.now()))
            st.session_state[_NOTE] = (f"{choice.method.title}: {percent(result.mean)} absolute, "
                                       f"{percent(result.mean_normalised)} "
                                       f"normalised ({result.measured_on}; α = {choice.scale.value:g}, {choice.scale.origin}).")  # fmt: skip
        st.rerun()
    if note := st.session_state.get(_NOTE):
        st.success(plain(note), icon=":material/check_circle:")


def history_card(page: Page) -> None:
    """All runs of this session on this set; two picked ones are compared."""
    known = runs(page.models.name)
    if not known:
        return
    with st.container(border=True):
        st.subheader("Runs of this session")
        st.markdown("Pick two rows to compare them task by task.")
        rows = [
            {
                "time": run.at.strftime("%H:%M:%S"), "method": methods()[run.slug].title, "parameters": run.changed or "defaults",
                "α": run.scale.value, "α from": run.scale.origin, "absolute": 100 * run.evaluation.mean,
                "normalised": _hundredfold(run.evaluation.mean_normalised), "worst task": 100 * run.evaluation.worst.accuracy,
                "measured on": run.evaluation.measured_on,
            }
            for run in known
        ]  # fmt: skip
        number = {name: st.column_config.NumberColumn(format="%.1f %%") for name in ("absolute", "normalised", "worst task")}
        picked = st.dataframe(rows, hide_index=True, key="merge.history", on_select="rerun", selection_mode="multi-row",
                              column_config=number, alt="Runs of this session",
                              height=min(300, 38 + 35 * len(rows))).selection.rows  # fmt: skip
        if len(picked) == 2:
            _compare(page, known[picked[0]], known[picked[1]])
        elif len(picked) > 2:
            st.info("Two runs can be compared at a time: unpick one.", icon=":material/info:")


def _hundredfold(share: float | None) -> float | None:
    """In percent; None where an expert is right on no image, which leaves its ratio without meaning."""
    return None if share is None else 100 * share


def _compare(page: Page, first: Run, second: Run) -> None:
    if first.evaluation.measured_on != second.evaluation.measured_on:
        st.info("These two were measured on different images: evaluate both on the same split to compare them.", icon=":material/info:")
        return
    difference = paired_difference(first.evaluation, second.evaluation)
    verdict = "a real difference" if difference.excludes_zero else "no difference that these images can show"
    st.markdown(
        f"**{plain(first.label)}** minus **{plain(second.label)}**: {100 * difference.value:+.1f} points "
        f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], {verdict} (paired bootstrap over images, 95 %)."
    )
    show(plots.comparison_bars([(first.label, first.evaluation), (second.label, second.evaluation)], page.models.task_titles),
         "the two runs on the same images; whiskers are 95 % Wilson intervals of each.", key="merge.compare")  # fmt: skip


def save_card(page: Page, choice: Choice) -> None:
    """Download the merged model, or the command that makes it."""
    with st.container(border=True):
        st.subheader("Take it with you")
        size = sum(info.nbytes for info in page.models.vectors.base.infos.values()) if page.models.vectors.base else 0
        st.markdown("The merged model in the base's own names and dtypes, with its recipe (inputs and their hashes, method, "
                    "parameters, α and where it came from) in the file's metadata.")  # fmt: skip
        if size and size <= _DOWNLOAD_LIMIT:
            name = f"{choice.method.slug}-alpha-{choice.scale.value:g}.safetensors"
            st.download_button("Save merged model", data=lambda: _file(page, choice), file_name=name, icon=":material/download:",
                               mime="application/octet-stream", on_click="ignore",
                               help=f"safetensors, about {size / 1e6:.0f} MB")  # fmt: skip
        else:
            st.info("Too large for a browser download: run the command below.", icon=":material/info:")
        st.caption("The same merge on the command line:")
        st.code(_command(page, choice), language="bash", wrap_lines=True)


def _file(page: Page, choice: Choice) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.safetensors"
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        merged.save(path, scale=choice.scale.value, scale_origin=choice.scale.origin)
        return path.read_bytes()


def _command(page: Page, choice: Choice) -> str:
    defaults = choice.method.defaults()
    changed = [f"--set {n}={_text(v)}" for n, v in choice.parameters.items() if v != defaults[n]]
    source = f"--zoo {page.models.name}" if page.models.bench else "--base … --expert NAME=…"
    return " ".join(["python -m dcmerge merge", source, f"--method {choice.method.slug}", *changed,
                     f"--scale {choice.scale.value:g}", "--out merged.safetensors"])  # fmt: skip


def _text(value: Any) -> str:
    """A parameter's value as the command line takes it."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
