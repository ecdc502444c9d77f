"""What a parameter is for, read from its name: heads, poolers, embeddings. What not all have is told in these groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Libraries' names of the table of token embeddings, and of the layer that scores tokens. Whole parts of a name.
_TOKENS = re.compile(r"(.*\.)?(embed_tokens|wte|word_embeddings|token_embedding|tok_embeddings|shared|embed_in)\.weight")
_TOKEN_SCORES = re.compile(
    r"(.*\.)?(lm_head|embed_out|output_projection|predictions\.decoder|lm_head\.decoder|mlm_head\.decoder)\.(?P<kind>weight|bias)"
)
_POSITIONS = re.compile(
    r"(.*\.)?(pos_embed\w*|position_embeddings?|positional_embeddings?|wpe|embed_positions|relative_position_bias_table"
    r"|position_embedding_table)(\.weight)?"
)


@dataclass(frozen=True)
class Role:
    """``title`` names the kind in the plural, ``unit`` what its size counts, ``axis`` which axis that is."""

    title: str
    unit: str
    parts: tuple[str, ...]
    axis: int = 0


HEADS = Role(
    "classification heads",
    "classes",
    (
        "classifier",
        "classification_head",
        "pre_classifier",
        "score",
        "head",
        "heads",
        "head_dist",
        "fc",
        "last_linear",
        "logits",
        "qa_outputs",
        "summary",
        "sequence_summary",
        "logits_proj",
        "answer_class",
        "v_head",
    ),
)
PRETRAINING = Role(
    "pre-training heads",
    "",
    (
        "cls",
        "lm_head",
        "mlm_head",
        "mlm",
        "embed_out",
        "generator_predictions",
        "generator_lm_head",
        "discriminator_predictions",
        "vocab_transform",
        "vocab_projector",
        "vocab_layer_norm",
        "pred_layer",
        "lm_loss",
        "predictions",
        "sop_classifier",
        "decoder_pred",
        "mask_token",
    ),
)
POOLERS = Role("poolers", "", ("pooler", "attn_pool", "attention_pool"))
POSITIONS = Role("positional embeddings", "positions", (), -2)
TOKENS = Role("token embeddings", "tokens", ())
OTHER = Role("parameters", "rows", ())


def role_of(name: str) -> Role:
    """The role of a canonical name. A part counts only before a block's number: an attention's "head" is no classifier."""
    if _POSITIONS.fullmatch(name):
        return POSITIONS
    if _TOKENS.fullmatch(name):
        return TOKENS
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    outside = parts[: numbers[0]] if numbers else parts[:-1] or parts
    for role in (PRETRAINING, POOLERS, HEADS):
        if any(part in role.parts for part in outside):
            return role
    return OTHER


def is_token_table(name: str) -> bool:
    """Whether it holds one row for each token: the embeddings, or the weight or bias of the layer that scores tokens."""
    return bool(_TOKENS.fullmatch(name) or _TOKEN_SCORES.fullmatch(name)) or name.endswith(("predictions.bias", "lm_head.bias"))


def is_token_embedding(name: str) -> bool:
    return bool(_TOKENS.fullmatch(name))


def scores_tokens(name: str) -> bool:
    """Whether it is the matrix that scores tokens, which many models share with the embeddings."""
    found = _TOKEN_SCORES.fullmatch(name)
    return found is not None and found["kind"] == "weight"


def size_of(role: Role, shapes: Sequence[tuple[int, ...]]) -> int | None:
    """How many classes, positions or tokens parameters of a role have; None where that cannot be told."""
    sizes = {shape[role.axis] for shape in shapes if len(shape) >= abs(role.axis) and shape} if shapes else set()
    return min(sizes) if sizes else None
