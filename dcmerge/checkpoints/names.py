"""Canonical names: the same weight has the same name, however the model was wrapped when it was saved.

Wrappers put a prefix before every name: ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile), ``model.`` (the
ImageEncoder of task arithmetic and its successors; Hugging Face models without a head), ``base_model.model.`` (PEFT).
A prefix is stripped, again and again, as long as *every* floating-point tensor of the file carries it. A language
model with a head (``model.layers...`` and ``lm_head.weight``) therefore keeps its own ``model.``; where base and
expert end up with different prefixes, :func:`aligned` finds those that make them meet. Names that libraries have given up
(BERT's gamma and beta, Mixtral's w1, w2 and w3) count as today's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

PREFIXES = ("base_model.model.", "module.", "_orig_mod.", "model.")
Shape = tuple[int, ...]
Change = tuple[str, str]

#: Names of TensorFlow's BERT and of torch's first weight norm, and what the libraries call them now.
_OF_NORMS = {"gamma": "weight", "beta": "bias"}
_OF_WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
#: Mixtral, PhiMoE and MiniMax in their files, and in transformers since 5.
_OF_MIXTURES = re.compile(
    r"(?P<before>(?:.*\.)?)block_sparse_moe\.(?:(?P<expert>experts\.\d+)\.(?P<which>w[123])|gate)\.(?P<kind>\w+)"
)
_OF_EXPERTS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
#: Words in the name of a model's class, and in the prefix of the tower that it is.
_TOWER_WORDS = (("vision", ("vis", "image")), ("image", ("vis", "image")), ("text", ("text", "language")))
#: So many kinds of names may differ between a base and its expert, each with a prefix of its own.
_CHANGES = 8
#: What keeps the search for prefixes linear in the names: so many parts of a name are looked at, so many names that share an end,
#: and so many prefixes are tried.
_MOST_PARTS, _SHARED, _TRIED = 32, 256, 64


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
        canonical = _modern(source, floating).removeprefix(prefix)
        if canonical in sources:
            names = f"{sources[canonical]} and {source}"
            raise InputError(
                f"Without the prefix '{prefix}' that wrappers add, {shown(names)} of {shown(path)} have the same name."
            )
        sources[canonical] = source
    return sources


def _modern(name: str, names: Mapping[str, bool]) -> str:
    """Today's form of an old name; the name itself where the file has both."""
    found = modern_name(name)
    return name if found in names else found


def modern_name(name: str) -> str:
    """Today's form of an old name; any other name as it is."""
    if "block_sparse_moe." in name and (match := _OF_MIXTURES.fullmatch(name)):
        inside = f"{match['expert']}.{_OF_EXPERTS[match['which']]}" if match["expert"] else "gate"
        return f"{match['before']}mlp.{inside}.{match['kind']}"
    module, dot, last = name.rpartition(".")
    new = _OF_NORMS.get(last.lower()) if "norm" in module.rpartition(".")[2].lower() else _OF_WEIGHT_NORM.get(last)
    return f"{module}.{new}" if new and dot else name


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


@dataclass(frozen=True)
class Alignment:
    """An expert's names as the base has them. ``rivals``: the base's prefixes of which each fits as well as the others."""

    names: dict[str, str]
    rivals: tuple[str, ...] = ()


def align(shapes: Mapping[str, Shape], base_shapes: Mapping[str, Shape]) -> dict[str, str]:
    """name -> the base's name, or the name itself, in the given order; see :func:`aligned`."""
    return aligned(shapes, base_shapes).names


def aligned(shapes: Mapping[str, Shape], base_shapes: Mapping[str, Shape], hint: str = "") -> Alignment:
    """Map an expert's canonical names to the base's, by the longest end that they share and one prefix for all of a kind.

    An adapter of a language model names ``layers.0...`` what its base names ``model.layers.0...``; one of a
    vision-language model from before transformers 4.52 names ``language_model.model.layers.0...`` what the base names
    ``model.language_model.layers.0...``; an adapter that was trained on a part (CLIP's vision_model) lacks the part's
    name, and only the shapes tell it from the text_model. The prefix with which the most names meet one of the same shape
    goes first, then the next one for what is left (``vision_tower.`` beside ``language_model.``). Two names meet where one
    is the end of the other, or where they share an end that holds a block's number. No change wins a tie, then the prefix
    of the same words, then the tower that ``hint`` names; where two still tie nothing is guessed. Names that meet nothing
    keep their own.

    Args:
        shapes: the expert's canonical name -> shape.
        base_shapes: the base's canonical name -> shape.
        hint: the class of the model that was trained ("SiglipVisionModel"), where the settings tell it.
    """
    ends = _ends(base_shapes)
    left, free, found = dict(shapes), dict(base_shapes), {}
    rivals: tuple[str, ...] = ()
    for turn in range(_CHANGES):
        meetings = _meetings(left, free, ends, shortest=1 if turn == 0 else 2)
        best = _best(meetings, hint)
        if len(best) != 1:
            rivals = tuple(f"{added}*" for _, added in best)
            break
        moved = {name: new for name in left if (new := _moved(name, best[0])) in free}
        found |= moved
        left = {name: shape for name, shape in left.items() if name not in moved}
        taken = set(moved.values())
        free = {name: shape for name, shape in free.items() if name not in taken}
    return Alignment({name: found.get(name, name) for name in shapes}, rivals)


def flat_names(names: Iterable[str], base_names: Iterable[str]) -> dict[str, str]:
    """Names whose dots kohya made underscores (``lora_unet_down_blocks_0_to_q.weight``) -> the base's names, by the longest end.

    A name that meets none of the base, or several, keeps its own.
    """
    by_flat: dict[str, list[str]] = {}
    for base_name in base_names:
        module, _, kind = base_name.rpartition(".")
        for end in _ends_of(module):
            by_flat.setdefault(f"{end.replace('.', '_')}.{kind}", []).append(base_name)
    found: dict[str, str] = {}
    for name in names:
        # The part's name comes off first: lora_unet_, lora_te1_, and LyCORIS' own lycoris_.
        flat = name.split("_", 2)[-1] if name.startswith("lora_") else name.removeprefix("lycoris_")
        candidates = by_flat.get(flat, [])
        exact = [one for one in candidates if one.rpartition(".")[0].replace(".", "_") == flat.rpartition(".")[0]]
        chosen = exact or candidates
        found[name] = chosen[0] if len(chosen) == 1 else name
    return found


def _ends(names: Iterable[str]) -> dict[str, list[str]]:
    """Every end of a name, of whole parts -> the names that have it."""
    found: dict[str, list[str]] = {}
    for name in names:
        for end in _ends_of(name):
            found.setdefault(end, []).append(name)
    return found


def _ends_of(name: str) -> Iterator[str]:
    """ "a.b.c", "b.c", "c"; of a name of very many parts the longest ones."""
    yield name
    for _ in range(_MOST_PARTS):
        name = name.partition(".")[2]
        if not name:
            return
        yield name


def _meetings(
    left: Mapping[str, Shape], free: Mapping[str, Shape], ends: Mapping[str, list[str]], shortest: int
) -> dict[Change, int]:
    """Change -> how many names it makes meet one of the same shape; of those that the most names ask for."""
    votes: Counter[Change] = Counter()
    for name, shape in left.items():
        votes.update(set(_changes(name, shape, free, ends, shortest)))
    if any(name in free for name in left):
        votes["", ""] += len(left)
    changes = [change for change, _ in votes.most_common(_TRIED)]
    counts = {change: sum(free.get(_moved(name, change)) == shape for name, shape in left.items()) for change in changes}
    return {change: count for change, count in counts.items() if count}


def _changes(
    name: str, shape: Shape, free: Mapping[str, Shape], ends: Mapping[str, list[str]], shortest: int
) -> Iterator[Change]:
    """The changes that turn ``name`` into names of the base with the longest end in common."""
    for end in _ends_of(name):
        removed, found = name[: len(name) - len(end)], False
        if end.count(".") + 1 < shortest:
            return
        others = ends.get(end, ())
        if removed and not any(part.isdigit() for part in end.split(".")):
            others = (end,)
        # An end that so many names share ("weight") tells none of them.
        for other in others if len(others) <= _SHARED else ():
            if free.get(other) == shape:
                found = True
                yield removed, other[: len(other) - len(end)]
        if found:
            return


def _best(meetings: Mapping[Change, int], hint: str) -> list[Change]:
    """The change with the most meetings; several where nothing tells them apart, none where nothing meets."""
    most = max(meetings.values(), default=0)
    best = [change for change, count in meetings.items() if count == most]
    if len(best) > 1 and ("", "") in best:
        return [("", "")]
    shared = {change: len(set(change[0].split(".")) & set(change[1].split(".")) - {""}) for change in best}
    best = [change for change in best if shared[change] == max(shared.values())]
    lowered = hint.lower()
    for word, marks in _TOWER_WORDS:
        if len(best) > 1 and word in lowered:
            named = [change for change in best if any(mark in change[1].lower() for mark in marks)]
            best = named or best
    return best


def _moved(name: str, change: Change) -> str:
    removed, added = change
    return added + name.removeprefix(removed) if name.startswith(removed) else ""
