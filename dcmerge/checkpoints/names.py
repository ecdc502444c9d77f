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


def align(names: Iterable[str], base_names: Iterable[str]) -> dict[str, str]:
    """Map an expert's canonical names to the base's, where one prefix more or less makes them meet.

    An adapter of a language model names ``layers.0...`` what its base names ``model.layers.0...``; an adapter that was
    trained on a part (CLIP's vision_model) lacks the part's name. One prefix serves all names: of the prefixes that
    make at least one name meet, the one with the most meetings; the identity wins a tie, and between two others that
    tie nothing is guessed. Names that meet nothing keep their own.

    Returns:
        name -> the base's name, or the name itself, in the given order.
    """
    wanted = list(names)
    known = set(base_names)
    meetings = {("", ""): sum(name in known for name in wanted)}
    probe = min(wanted, key=len, default="")
    # The prefix must be read off some name; names unknown to the base (a head) must not decide, so probe several.
    for name in {probe, *wanted[:: max(1, len(wanted) // 16)]}:
        for base_name in known:
            if base_name.endswith("." + name):
                meetings.setdefault(("", base_name[: -len(name)]), 0)
            elif name.endswith("." + base_name):
                meetings.setdefault((name[: -len(base_name)], ""), 0)
    for removed, added in meetings:
        meetings[removed, added] = sum(_moved(name, removed, added) in known for name in wanted)
    most = max(meetings.values())
    best = [change for change, count in meetings.items() if count == most]
    change = ("", "") if len(best) > 1 else best[0]
    aligned = {name: _moved(name, *change) for name in wanted}
    return {name: other if other in known else name for name, other in aligned.items()}


def _moved(name: str, removed: str, added: str) -> str:
    return added + name.removeprefix(removed)
