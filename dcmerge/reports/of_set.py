"""The report of a set of models before any merge: what each expert is, and whether they will merge."""

from __future__ import annotations

from collections.abc import Callable

from dcmerge.plots import concentration_map
from dcmerge.plots.verdicts import pair_matrix
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.inspection import concentration
from dcmerge.studies.verdict import WORDS, verdict
from dcmerge.studies.verdict.tables import rows, to_data


def report_of_set(models: ModelSet, command: str, progress: Callable[[float, str], None] | None = None) -> Report:
    """Reads every expert once. One expert alone gets no verdict on pairs."""
    vectors, titles, tell = models.vectors, models.task_titles, progress or (lambda share, text: None)
    energy = concentration(vectors, lambda share, text: tell(0.5 * share, text))
    reading = "a light cell is a matrix whose energy lies in few directions. Smoothing changes those most."
    sections = [Section("Spectra", figures=[Figure(concentration_map(energy, titles), reading)])]
    values: dict[str, float] = {"experts": float(len(vectors.tasks))}
    data = {}
    if len(vectors.tasks) > 1:
        found = verdict(vectors, progress=lambda share, text: tell(0.5 + 0.5 * share, text))
        reading = "each square is a pair of experts, its colour the word that fits them."
        figure = Figure(pair_matrix(found, titles), reading)
        sections.insert(0, Section("Will it merge?", found.text, [figure], rows(found)))
        counts = {word: float(found.words().get(word, 0)) for word in WORDS}
        values |= {"cosine": found.facts.cosine, "mean_share": found.facts.mean_share, **counts}
        data = {"verdict": to_data(found)}
    about = {"experts": ", ".join(titles.values()), "kind": vectors.kind, "matrices": str(len(energy.layers))}
    return Report(f"Experts: {models.title}", about, sections, values, {"command": command}, data)
