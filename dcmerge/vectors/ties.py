"""Tensors that are one tensor under several names: a head tied to the embeddings, and copies that a library wrote out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, StoredCheckpoint, TensorInfo, read_json
from dcmerge.errors import InputError
from dcmerge.vectors.roles import is_token_embedding, scores_tokens

#: So many rows tell most tensors that differ apart, before all of both is read.
_ROWS = 4
_CONFIG = "config.json"
_MOST_MISSING = 256


def tied(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> dict[str, str]:
    """Name -> the name of the tensor that it is a copy of, by the base's names; either may be missing in the base.

    A copy is told by its content, equal to another table in every file that holds both, or by the base's settings
    (``tie_word_embeddings``). Tables of tokens are compared, and matrices that not every file names.
    """
    files = [base, *(expert for expert in experts.values() if not isinstance(expert, LoraCheckpoint))]
    found: dict[str, str] = {}
    for name in _candidates(files):
        original = next((other for other in _partners(name, files) if other not in found and _equal(name, other, files)), None)
        if original is not None:
            found[name] = original
    return found | _by_settings(base, experts, found)


def stand_ins(shapes: Mapping[str, tuple[int, ...]], base_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Of a tied pair, the name that a file holds -> the one that the base holds, where each holds another of the two."""
    for mine, theirs in ((is_token_embedding, scores_tokens), (scores_tokens, is_token_embedding)):
        own = [name for name in shapes if mine(name)]
        other = [name for name in base_shapes if theirs(name)]
        both = any(theirs(name) for name in shapes) or any(mine(name) for name in base_shapes)
        if len(own) == len(other) == 1 and not both and shapes[own[0]] == base_shapes[other[0]]:
            return {own[0]: other[0]}
    return {}


def _candidates(files: list[Checkpoint]) -> list[str]:
    """Names that may be copies: heads before embeddings, so that an embedding is the original; then what not all files name."""
    every = list(dict.fromkeys(name for file in files for name in file.infos))
    partly = [name for name in every if any(name not in file.infos for file in files)]
    tables = [name for name in every if scores_tokens(name) or (is_token_embedding(name) and ".embed_tokens." in name)]
    tables += [name for name in every if name == "embed_tokens.weight"]
    partly = [name for name in partly if _is_matrix(name, files)]
    missing = frozenset(partly)
    # Each candidate is compared with all names: so many are another model's, and no copies.
    both = dict.fromkeys([*tables, *(partly if len(partly) <= _MOST_MISSING else ())])
    named = sorted(both, key=lambda name: (not scores_tokens(name), name not in missing))
    return [name for name in named if _is_matrix(name, files)]


def _is_matrix(name: str, files: list[Checkpoint]) -> bool:
    info = next(file.infos[name] for file in files if name in file.infos)
    return len(info.shape) == 2 and min(info.shape) > 0 and info.dtype.is_floating_point


def _partners(name: str, files: list[Checkpoint]) -> Iterator[str]:
    """What a name may be a copy of: a matrix of its shape that every file with it names too; embeddings first."""
    holders = [file for file in files if name in file.infos]
    shape = holders[0].infos[name].shape
    same = [other for other, info in holders[0].infos.items() if other != name and info.shape == shape]
    yield from sorted(
        (other for other in same if all(other in file.infos for file in files) or is_token_embedding(other)),
        key=lambda other: (not is_token_embedding(other), not other.startswith("shared")),
    )


def _equal(name: str, other: str, files: list[Checkpoint]) -> bool:
    """Whether two tensors hold the same numbers in every file that has both, and are not all one number."""
    both = [file for file in files if name in file.infos and other in file.infos]
    return bool(both) and all(_same(file, name, other) for file in both)


def _same(file: Checkpoint, name: str, other: str) -> bool:
    if file.infos[name] != file.infos[other]:
        return False
    few = min(_ROWS, file.infos[name].shape[0])
    one, two = (_rows(file, each, few) for each in (name, other))
    if not torch.equal(one, two):
        return False
    whole = file.tensor(name)
    return bool((whole != whole.flatten()[0]).any()) and torch.equal(whole, file.tensor(other))


def _rows(file: Checkpoint, name: str, count: int) -> Tensor:
    rows = file.read_rows(name, 0, count)
    assert isinstance(rows, Tensor)  # a candidate is of a file of whole weights
    return rows


def _by_settings(base: Checkpoint, experts: Mapping[str, Checkpoint], known: Mapping[str, str]) -> dict[str, str]:
    """Heads that the base's settings tie to its embeddings; of adapters also one that the base has no weight for."""
    embeddings = [name for name in base.infos if is_token_embedding(name) and name not in known]
    if len(embeddings) != 1:
        return {}
    (table,), told = embeddings, _ties_words(base)
    wanted = base.infos[table]
    asked = [expert for expert in experts.values() if told or isinstance(expert, LoraCheckpoint)]
    adapted = {name: info for expert in asked for name, info in expert.infos.items() if name not in base.infos}
    inside: dict[str, TensorInfo] = dict(base.infos) if told else {}
    heads = {name: info for name, info in {**inside, **adapted}.items() if scores_tokens(name) and name not in known}
    return {name: table for name, info in heads.items() if name != table and info.shape == wanted.shape and told is not False}


def _ties_words(base: Checkpoint) -> bool | None:
    """What ``config.json`` says of ties; None where it says nothing."""
    path = base.path / _CONFIG
    if not isinstance(base, StoredCheckpoint) or not path.is_file():
        return None
    try:
        config = read_json(path)
    except InputError:
        return None
    inner = config.get("text_config")
    told = [one.get("tie_word_embeddings") for one in (config, inner) if isinstance(one, dict)]
    return next((value for value in told if isinstance(value, bool)), None)
