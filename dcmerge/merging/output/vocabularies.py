"""Settings and tokenizer of a model that is written with more tokens than its base has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Checkpoint, read_json, write_text
from dcmerge.checkpoints.tokenizers import TOKENIZER
from dcmerge.vectors.vocabulary import Retabled, Words

_CONFIG = "config.json"


def widen_vocabulary(base: Checkpoint, folder: Path) -> tuple[str, ...]:
    """Write the new number of tokens into the copied settings, and the new tokens into the copied tokenizer.

    Returns a note of what is there, or of what could not be written; nothing where the base's own vocabulary is written.
    """
    words = base.words if isinstance(base, Retabled) else None
    if words is None or not words.added:
        return ()
    _in_settings(folder / _CONFIG, words)
    told = f"the vocabulary has {words.size} tokens, {len(words.added)} more than the base's"
    if words.by_token and (folder / TOKENIZER).is_file():
        _in_tokenizer(folder / TOKENIZER, words)
        return (f"{told}; they are added tokens of its tokenizer",)
    return (f"warning: {told}; the tokenizer is the base's, so take one that knows them from an expert",)


def _in_settings(path: Path, words: Words) -> None:
    if path.is_file():
        settings = read_json(path)
        for part in _parts(settings):
            if part.get("vocab_size") == words.size - len(words.added):
                part["vocab_size"] = words.size
        write_text(path, json.dumps(settings, indent=2) + "\n")


def _parts(settings: Any) -> Iterator[dict[str, Any]]:
    """The settings, and those of every part of the model in them."""
    if isinstance(settings, dict):
        yield settings
        for value in settings.values():
            yield from _parts(value)


def _in_tokenizer(path: Path, words: Words) -> None:
    tokenizer = read_json(path)
    known = tokenizer.get("added_tokens")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    fresh = [{"id": number, "content": token, **plain} for number, token in words.added]
    tokenizer["added_tokens"] = [*(known if isinstance(known, list) else []), *fresh]
    write_text(path, json.dumps(tokenizer, indent=2, ensure_ascii=False) + "\n")
