"""The model card of a merge: what went in, how it was merged, and what was measured, or why nothing was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from dcmerge.checkpoints import ADAPTER_CONFIG, read_json, shown
from dcmerge.checkpoints.hub import HubName, name_in_cache
from dcmerge.evaluation import Evaluation
from dcmerge.merging.output.targets import Target
from dcmerge.merging.recipe import Recipe
from dcmerge.methods import method
from dcmerge.methods.declare import value_text
from dcmerge.vectors.task_vectors import TaskVectors

#: Signs that mean something in Markdown or HTML.
_SIGNS = re.compile(r"([\\`*_{}\[\]()<>#+!|&~$-])")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CONTENT = {
    "model": "base + α · merged task vector",
    "delta": "α · merged task vector alone, to be added to the base",
    "adapter": "α · merged task vector as a PEFT LoRA adapter (α is folded into the factors: lora_alpha is the rank)",
}


def card(vectors: TaskVectors, recipe: Recipe, target: Target, notes: Sequence[str]) -> str:
    """Markdown behind the YAML front matter that hubs read; text from files is escaped."""
    return "\n".join([*_front_matter(vectors, recipe, target), "", *_body(recipe, target, notes), ""])


def _front_matter(vectors: TaskVectors, recipe: Recipe, target: Target) -> Iterator[str]:
    """Every value in JSON's quotes, which YAML reads as they are."""
    library = "peft" if target.content == "adapter" else _library(vectors)
    known: dict[str, Any] = {"library_name": library, "base_model": _base_model(vectors), "base_model_relation": "merge"}
    if known["base_model"] is None:
        del known["base_model_relation"]
    known["tags"] = ["merge", "dcmerge", recipe.method]
    yield "---"
    yield from (f"{key}: {json.dumps(value)}" for key, value in known.items() if value is not None)
    yield "---"


def _library(vectors: TaskVectors) -> str | None:
    names = vectors.base.infos if vectors.base else ()
    if any(name.startswith("visual.") for name in names):
        return "open_clip"
    config = _base_config(vectors)
    return "transformers" if "model_type" in config or "architectures" in config else None


def _base_model(vectors: TaskVectors) -> str | None:
    """The base's name on a hub, where it comes from there or a file says it."""
    if vectors.base and (on_hub := name_in_cache(vectors.base.path)):
        return HubName.of(on_hub).repository
    files = [expert.path / ADAPTER_CONFIG for expert in vectors.adapters if expert.settings]
    said = [read_json(file).get("base_model_name_or_path") for file in files] + [_base_config(vectors).get("_name_or_path")]
    return next((name for name in said if isinstance(name, str) and _HUB_NAME.fullmatch(name)), None)


def _base_config(vectors: TaskVectors) -> dict[str, Any]:
    path = vectors.base.path / "config.json" if vectors.base else None
    return read_json(path) if path and path.is_file() else {}


def _body(recipe: Recipe, target: Target, notes: Sequence[str]) -> Iterator[str]:
    chosen = method(recipe.method)
    tasks = [name for name in recipe.inputs if name != "base"]
    yield f"# {_plain(chosen.title)} of {_plain(', '.join(tasks))}"
    yield f"\n{_CONTENT[target.content]}. Merged with dcmerge; the recipe is in the weights' metadata.\n"
    yield from _table(("", "file", "SHA-256"), [(n, one["file"], one["sha256"]) for n, one in recipe.inputs.items()])
    yield "\n## How\n"
    facts = {
        "method": f"{chosen.title} (`{recipe.method}`; {_plain(chosen.source)})",
        **({"plugin": f"{_plain(recipe.plugin['name'])} (SHA-256 {recipe.plugin['sha256']})"} if recipe.plugin else {}),
        **{f"`{name}`": _plain(value_text(value)) for name, value in recipe.parameters.items()},
        "α": f"{recipe.scale:g} ({_plain(recipe.scale_origin)})" if recipe.scale is not None else "not chosen",
        "dtype": _plain(recipe.dtype),
    }
    if qkv := getattr(recipe, "qkv", None):
        facts["q, k, v"] = _plain(qkv)
    yield from (f"- {name}: {value}" for name, value in facts.items())
    yield f"- versions: {_plain(', '.join(f'{name} {number}' for name, number in recipe.versions.items()))}"
    yield from (f"- {_plain(note)}" for note in notes)
    if recipe.left_out:
        yield "\n## Not merged\n"
        yield from (f"- {_plain(text)}" for text in recipe.left_out)
    yield "\n## Accuracy\n"
    yield from _accuracies(target.evaluation)
    if told := _report(target):
        yield f"\n{told}"


def _report(target: Target) -> str:
    """Where the report is, or the commands that make one; those take a whole model."""
    if target.report_path:
        name = target.report_path.name
        return f"Report: [{_plain(name)}]({quote(name)}), with figures, every value, the recipe and the versions."
    if target.content != "model":
        return ""
    return (
        "A report: `python -m dcmerge evaluate --checkpoint FILE`, with the tasks and their images, keeps what it measures as a "
        "run, and `python -m dcmerge report RUN --out report.html` writes it with figures."
    )


def _accuracies(found: Evaluation | None) -> Iterator[str]:
    if found is None:
        yield "None was measured: no evaluation on images of the tasks was part of this merge."
        return
    yield f"Top-1 in percent on the {found.measured_on}; 95 % intervals (Wilson; of the mean by MOVER).\n"
    rows = [(name, one.accuracy, one.interval, one.normalised, str(one.images)) for name, one in found.tasks.items()]
    rows.append(("mean", found.mean, found.mean_interval, found.mean_normalised, found.images))
    cells = [
        (name, _percent(share), f"{_percent(low)} to {_percent(high)}", _percent(ratio), images)
        for name, share, (low, high), ratio, images in rows
    ]
    yield from _table(("task", "accuracy", "interval", "divided by its expert's", "images"), cells)
    if found.logit_scale:
        yield f"\nLogit scale of entropies and losses: {_plain(found.logit_scale.text)}."


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    for row in (header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)):
        yield f"| {' | '.join(row)} |"


def _plain(text: object) -> str:
    """Text as text: nothing in it is Markdown, HTML or a new line."""
    return _SIGNS.sub(r"\\\1", shown(text))
