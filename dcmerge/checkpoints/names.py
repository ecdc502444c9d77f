"""Canonical names: the same weight has the same name, however the model was wrapped when it was saved.

Wrappers put a prefix before every name: ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile), ``model.`` (the
ImageEncoder of task arithmetic and its successors; Hugging Face models without a head), ``base_model.model.`` (PEFT).
A prefix is stripped, again and again, as long as *every* floating-point tensor of the file carries it. A language
model with a head (``model.layers...`` and ``lm_head.weight``) therefore keeps its own ``model.``; where base and
expert end up with different prefixes, :func:`align` finds the one that makes them meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

PREFIXES = ("base_model.model.", "module.", "_orig_mod.", "model.")
Shape = tuple[int, ...]
Change = tuple[str, str]


def canonical_names(floating: Mapping[str, bool], path: Path) -> dict[str, str]:
    """Canonical name -> name in the file, in the file's order.

    Args:
        floating: name in the file -> whether it is a floating-point tensor. Only those decide which prefix goes;
            integer buffers and the like lose it where they carry it.
        path: named in the error.

    Raises:
        InputError: two tensors would get the same name.
    """
    prefix = common_prefix([name for name, is_floating in floating.items() if is_floating] or list(floating))
    sources: dict[str, str] = {}
    for source in floating:
        canonical = source.removeprefix(prefix)
        if canonical in sources:
            names = f"{sources[canonical]} and {source}"
            raise InputError(
                f"Without the prefix '{prefix}' that wrappers add, {shown(names)} of {shown(path)} have the same name."
            )
        sources[canonical] = source
    return sources


def common_prefix(names: Iterable[str]) -> str:
    """The longest chain of :data:`PREFIXES` that all names start with, and that leaves something of each."""
    rest = list(names)
    chain = ""
    while True:
        for prefix in PREFIXES:
            if rest and all(name.startswith(prefix) and len(name) > len(prefix) for name in rest):
                rest = [name[len(prefix) :] for name in rest]
                chain += prefix
                break
        else:
            return chain


def align(shapes: Mapping[str, Shape], base_shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Map an expert's canonical names to the base's, where one prefix more or less makes them meet.

    An adapter of a language model names ``layers.0...`` what its base names ``model.layers.0...``; an adapter that was
    trained on a part (CLIP's vision_model) lacks the part's name, and only the shapes tell it from the text_model. One
    prefix serves all names: the one with which the most names meet one of the same shape. No change wins a tie, and
    between two changes that tie nothing is guessed. Names that meet nothing keep their own.

    Args:
        shapes: the expert's canonical name -> shape.
        base_shapes: the base's canonical name -> shape.

    Returns:
        name -> the base's name, or the name itself, in the given order.
    """
    probes = list(shapes)[:: max(1, len(shapes) // 16)]
    # Several probes: a name that the base does not know (a head) must not decide.
    changes = dict.fromkeys([("", ""), *(change for name in probes for change in _changes(name, base_shapes))])
    meetings = {
        change: sum(base_shapes.get(_moved(name, change)) == shape for name, shape in shapes.items()) for change in changes
    }
    most = max(meetings.values())
    best = [change for change, count in meetings.items() if count == most]
    change = best[0] if len(best) == 1 else ("", "")
    return {name: _moved(name, change) if _moved(name, change) in base_shapes else name for name in shapes}


def _changes(name: str, base_names: Iterable[str]) -> Iterable[Change]:
    """The prefixes to remove and to add, of which one is empty, that turn ``name`` into a name of the base."""
    for base_name in base_names:
        if base_name.endswith("." + name):
            yield "", base_name[: -len(name)]
        elif name.endswith("." + base_name):
            yield name[: -len(base_name)], ""


def _moved(name: str, change: Change) -> str:
    removed, added = change
    return added + name.removeprefix(removed)
