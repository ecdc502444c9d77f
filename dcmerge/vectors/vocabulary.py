"""Models whose vocabularies differ: the rows that all have are merged, by token where tokenizers tell, else by number.

A table of tokens (the embeddings, and the layer that scores tokens) of an expert is read with its rows in the order of the
merged model. Rows that an expert or the base lacks are the base's own there, so that nothing of them is merged. With the
vocabulary "union" the merged model also has the experts' new tokens, each as the mean of the experts that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, LowRank, StoredCheckpoint, TensorInfo
from dcmerge.checkpoints.tokenizers import same_tokenizer, tokens_beside
from dcmerge.vectors.fit import UNION, Fit
from dcmerge.vectors.roles import is_token_table

#: No row.
_NONE = -1
_NAMED = 5


@dataclass(frozen=True)
class Words:
    """The rows of one set's tables: of the merged model, each row's place in the base and in every expert (or -1).

    ``added`` are the tokens behind the base's rows: (number, token), the token empty where none is known. ``common`` are the
    rows that are merged.
    """

    size: int
    base: Tensor
    experts: Mapping[str, Tensor]
    added: tuple[tuple[int, str], ...]
    by_token: bool

    @property
    def common(self) -> Tensor:
        found = self.base != _NONE
        for rows in self.experts.values():
            found = found & (rows != _NONE)
        return found


class Retabled(StoredCheckpoint):
    """A view of stored weights in which the tables of tokens have other rows; everything else is as it is in the files.

    ``words`` says of a base which tokens were added to it.
    """

    def __init__(self, whole: StoredCheckpoint, tables: Mapping[str, tuple[TensorInfo, Callable[[], Tensor]]]) -> None:
        vars(self).update(vars(whole))
        self.infos = MappingProxyType({n: tables[n][0] if n in tables else info for n, info in whole.infos.items()})
        self._tables = dict(tables)
        self.words: Words | None = None

    def read(self, name: str) -> Tensor:
        return self._tables[name][1]() if name in self._tables else super().read(name)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.read(name)[start:stop] if name in self._tables else super().read_rows(name, start, stop)


class RetabledLora(LoraCheckpoint):
    """The same of an adapter that holds tables beside its factors."""

    def __init__(self, adapter: LoraCheckpoint, tables: Mapping[str, tuple[TensorInfo, Callable[[], Tensor]]]) -> None:
        vars(self).update(vars(adapter))
        self.infos = MappingProxyType({n: tables[n][0] if n in tables else info for n, info in adapter.infos.items()})
        self._tables = dict(tables)

    def read(self, name: str) -> Tensor | LowRank:
        return self._tables[name][1]() if name in self._tables else super().read(name)


def whole_of(checkpoint: Checkpoint, name: str) -> Tensor:
    """A table's own values, of an adapter too."""
    value = checkpoint.read(name)
    assert isinstance(value, Tensor)  # a table is no pair of factors, see ``_has``
    return value


def with_one_vocabulary(
    base: Checkpoint | None, experts: dict[str, Checkpoint], fit: Fit
) -> tuple[Checkpoint | None, dict[str, Checkpoint]]:
    """The set with tables of one height, where the files have tables that differ; as it was where they do not.

    ``told`` of the views says what differs. Raises InputError for a tokenizer that cannot be read.
    """
    if not isinstance(base, StoredCheckpoint):
        return base, experts
    tables = _tables_of(base, experts)
    # An adapter or a model without any of the tables has nothing to say.
    holders = {task: expert for task, expert in experts.items() if any(_has(name, expert) for name in tables)}
    tokens = {who: _tokens(one, base) for who, one in {"": base, **holders}.items()} if holders else {}
    sizes = {task: _rows(expert, tables) for task, expert in holders.items()}
    height = _rows(base, tables)
    if not holders or (all(size == height for size in sizes.values()) and all(own == tokens[""] for own in tokens.values())):
        return base, experts
    words = _matched(height, sizes, tokens, fit)
    whole, found = _viewed(base, holders, tables, words, fit)
    return whole, {task: found.get(task, expert) for task, expert in experts.items()}


def _has(name: str, expert: Checkpoint) -> bool:
    """Whether an expert has a table of its own: of an adapter, one that was trained in full."""
    return name in (expert.whole if isinstance(expert, LoraCheckpoint) else expert.infos)


def _tables_of(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> list[str]:
    """The tables of the base that differ from those of every expert in their rows alone, all of one height."""
    found = [name for name in base.infos if is_token_table(name) and base.infos[name].shape]
    height = base.infos[found[0]].shape[0] if found else 0
    found = [name for name in found if base.infos[name].shape[0] == height]
    whole = [name for name in found if all(_fits(name, base, expert) for expert in experts.values())]
    heights = [{expert.infos[n].shape[0] for n in whole if _has(n, expert)} for expert in experts.values()]
    return whole if all(len(one) <= 1 for one in heights) else []


def _fits(name: str, base: Checkpoint, expert: Checkpoint) -> bool:
    """Whether only the rows of a table differ; one that an expert lacks altogether is left out elsewhere."""
    own = expert.infos.get(name) if _has(name, expert) else None
    return own is None or (len(own.shape) == len(base.infos[name].shape) and own.shape[1:] == base.infos[name].shape[1:])


def _rows(checkpoint: Checkpoint, tables: list[str]) -> int:
    return next((checkpoint.infos[name].shape[0] for name in tables if _has(name, checkpoint)), 0)


def _tokens(one: Checkpoint, base: Checkpoint) -> dict[str, int] | None:
    """A model's tokens; the base's own object's content where the files are the same, which saves reading them again."""
    if one is not base and one.path.is_dir() and base.path.is_dir() and same_tokenizer(one.path, base.path):
        return tokens_beside(base.path)
    return tokens_beside(one.path)


def _matched(height: int, sizes: Mapping[str, int], tokens: Mapping[str, dict[str, int] | None], fit: Fit) -> Words:
    own = tokens[""]
    by_token = own is not None and all(one is not None for one in tokens.values())
    maps = {task: one if by_token and one is not None else {} for task, one in tokens.items()}
    added: list[tuple[int, str]] = []
    if fit.vocabulary == UNION:
        added = _added_tokens(height, maps, sizes) if by_token else [(n, "") for n in range(height, max(height, *sizes.values()))]
    total = height + len(added)
    base_rows = torch.cat([torch.arange(height), torch.full((len(added),), _NONE)])
    rows = {task: _row_places(height, size, maps[""], maps[task], added, by_token) for task, size in sizes.items()}
    return Words(total, base_rows, rows, tuple(added), by_token)


def _added_tokens(height: int, maps: Mapping[str, dict[str, int]], sizes: Mapping[str, int]) -> list[tuple[int, str]]:
    """New tokens in the experts' order, numbered behind the base's rows."""
    fresh: dict[str, None] = {}
    for task, size in sizes.items():
        ordered = sorted(maps[task].items(), key=lambda item: item[1])
        fresh |= dict.fromkeys(token for token, number in ordered if token not in maps[""] and number < size)
    return [(height + place, token) for place, token in enumerate(fresh)]


def _row_places(
    height: int, size: int, base: dict[str, int], own: dict[str, int], added: list[tuple[int, str]], by_token: bool
) -> Tensor:
    """Where an expert has each row of the merged table."""
    places = torch.full((height + len(added),), _NONE)
    if not by_token:
        shared = min(size, len(places))
        places[:shared] = torch.arange(shared)
        return places
    named = [*((number, token) for token, number in base.items() if number < height), *added]
    for number, token in named:
        place = own.get(token, _NONE)
        places[number] = place if place < size else _NONE
    taken, owned = set(base.values()), set(own.values())
    for number in range(min(height, size)):  # padding: rows that stand for no token in either
        if number not in taken and number not in owned:
            places[number] = number
    return places


def _viewed(
    base: StoredCheckpoint, experts: dict[str, Checkpoint], tables: list[str], words: Words, fit: Fit
) -> tuple[Checkpoint, dict[str, Checkpoint]]:
    whole = Retabled(base, {name: _base_table(base, experts, name, words) for name in tables} if words.added else {})
    whole.words = words
    found: dict[str, Checkpoint] = {}
    for task, expert in experts.items():
        own = {name: _expert_table(whole, expert, name, words, words.experts[task]) for name in tables if _has(name, expert)}
        assert isinstance(expert, (LoraCheckpoint, StoredCheckpoint))  # what files are opened as
        found[task] = RetabledLora(expert, own) if isinstance(expert, LoraCheckpoint) else Retabled(expert, own)
        found[task].told = _told(task, expert, base, tables, words, fit)
    return whole, found


def _base_table(
    base: StoredCheckpoint, experts: Mapping[str, Checkpoint], name: str, words: Words
) -> tuple[TensorInfo, Callable[[], Tensor]]:
    info = base.infos[name]

    def read() -> Tensor:
        own = base.read(name)
        table = own.new_zeros((words.size, *info.shape[1:]), dtype=torch.float32)
        table[: len(own)] = own.float()
        counts = torch.zeros(words.size)
        for task, expert in experts.items():
            if _has(name, expert):
                places = words.experts[task][len(own) :]
                there = torch.nonzero(places != _NONE).flatten()
                table[len(own) + there] += whole_of(expert, name)[places[there]].float()
                counts[len(own) + there] += 1
        table[len(own) :] /= counts[len(own) :].clamp_min(1).view(-1, *[1] * (len(info.shape) - 1))
        return table.to(info.dtype)

    return TensorInfo((words.size, *info.shape[1:]), info.dtype), read


def _expert_table(
    base: Checkpoint, expert: Checkpoint, name: str, words: Words, places: Tensor
) -> tuple[TensorInfo, Callable[[], Tensor]]:
    dtype = torch.promote_types(base.infos[name].dtype, expert.infos[name].dtype)

    def read() -> Tensor:
        table = base.tensor(name).to(dtype)
        table[words.common] = whole_of(expert, name)[places[words.common]].to(dtype)
        return table

    return TensorInfo(base.infos[name].shape, dtype), read


def _told(task: str, expert: Checkpoint, base: Checkpoint, tables: list[str], words: Words, fit: Fit) -> tuple[str, ...]:
    """One sentence on an expert whose vocabulary is another than the base's; none where it is the same."""
    mine, theirs, places = _rows(expert, tables), _rows(base, tables), words.experts[task]
    height = int((words.base != _NONE).sum())
    same = bool((places[:height] == torch.arange(height)).all())
    if mine == theirs and same:
        return ()
    how = "matched by token" if words.by_token else "matched by number, as not all have a tokenizer beside their weights"
    new = [token for number, token in words.added if places[number] != _NONE]
    named = (
        f" ({', '.join(repr(token) for token in new[:_NAMED] if token)}{', …' if len(new) > _NAMED else ''})" if any(new) else ""
    )
    rest = f"its {len(new)} new tokens are added{named}" if fit.vocabulary == UNION else "the others stay as in the base"
    return (
        f"another vocabulary, {mine} tokens where the base has {theirs}; rows are {how}: {int(words.common.sum())} rows that all "
        f"have are merged, and {rest}",
    )
