"""Language models in Hugging Face's folders, of one file or of shards with an index.

The base is called base, or named by the others: a model says in its settings (``_name_or_path``) from which it was made.
"""

from __future__ import annotations

import re

from dcmerge.checkpoints.paths import shown
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.siblings import Group, groups
from dcmerge.sets.layouts.view import View

_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM", "ForSequenceClassification")
_BLOCKS = re.compile(r"(model\.)?(layers|h|blocks|encoder\.layer|decoder\.layers)\.\d+\.")
_TOKENS = re.compile(r"(.*\.)?(embed_tokens|wte|word_embeddings)\.weight")


def find(view: View) -> list[FoundSet]:
    """One set for each folder of language models."""
    return [group.found(view, "language_model", _title(group)) for group in groups(view, _is_language_model)]


def _is_language_model(group: Group) -> bool:
    names = _architectures(group)
    by_names = any(map(_BLOCKS.match, group.shapes)) and any(map(_TOKENS.fullmatch, group.shapes))
    return any(name.endswith(_HEADS) for name in names) or by_names


def _architectures(group: Group) -> list[str]:
    found = group.sample.config.get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []


def _title(group: Group) -> str:
    names = _architectures(group)
    return f"Language models ({shown(names[0])})" if names else "Language models"
