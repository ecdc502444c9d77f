"""Which number a tokenizer gives to each token, read from the files beside a model's weights. Nothing of it is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dcmerge.checkpoints.paths import checked_file, read_json, shown
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.errors import InputError

TOKENIZER, VOCAB, ADDED, LINES = "tokenizer.json", "vocab.json", "added_tokens.json", "vocab.txt"
_MOST_BYTES = 64 << 20


def tokens_beside(path: Path) -> dict[str, int] | None:
    """Token -> number, of a model's folder; None where no tokenizer that can be read lies there."""
    try:
        return _tokens_in(path) if path.is_dir() else None
    except InputError:
        return None  # it decides nothing then: rows are matched by their numbers, which the report says


def _tokens_in(path: Path) -> dict[str, int] | None:
    if (path / TOKENIZER).is_file():
        return _of_tokenizer(read_json(path / TOKENIZER), path / TOKENIZER)
    if (path / VOCAB).is_file():
        added = read_json(path / ADDED) if (path / ADDED).is_file() else {}
        return _numbers({**read_json(path / VOCAB), **added}, path / VOCAB)
    if (path / LINES).is_file():
        return {token: number for number, token in enumerate(_lines(path / LINES))}
    return None


def same_tokenizer(one: Path, other: Path) -> bool:
    """Whether the files that decide the numbers are the same, byte for byte."""
    return all(_digest(one / name) == _digest(other / name) for name in (TOKENIZER, VOCAB, ADDED, LINES))


def _digest(path: Path) -> str:
    return SeenFile.of(path).digest() if path.is_file() else ""


def _of_tokenizer(data: Mapping[str, object], path: Path) -> dict[str, int]:
    model = data.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # Unigram: [token, score], numbered as they come
        found = {entry[0]: number for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    else:
        found = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    added = data.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and "content" in token and "id" in token:
            found[token["content"]] = token["id"]
    return _numbers(found, path)


def _numbers(found: Mapping[str, object], path: Path) -> dict[str, int]:
    numbers = {token: number for token, number in found.items() if isinstance(number, int) and number >= 0}
    if not numbers or len(numbers) != len(found):
        raise InputError(f"Expected a number for each token, got none for some in {shown(path)}.")
    return numbers


def _lines(path: Path) -> list[str]:
    file = checked_file(path)
    if file.stat().st_size > _MOST_BYTES:
        raise InputError(f"Expected a vocabulary of at most {_MOST_BYTES} bytes, {shown(file)} has more.")
    return file.read_text(encoding="utf-8", errors="replace").splitlines()
