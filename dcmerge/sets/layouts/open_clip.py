"""open_clip's own names, with the text tower or without: a base (base, zeroshot, pretrained) and its experts in one folder."""

from __future__ import annotations

from dcmerge.sets.layouts.encoders import QUICK, as_openai, encoder_of
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.siblings import Group, groups
from dcmerge.sets.layouts.view import View

TOWER = "visual."


def find(view: View) -> list[FoundSet]:
    """One set for each folder of models with an image tower called ``visual``."""
    return [_set(view, group) for group in groups(view, lambda g: any(name.startswith(TOWER) for name in g.shapes))]


def _set(view: View, group: Group) -> FoundSet:
    settings = next((unit.config for unit in group.members if unit.config), {})
    encoder = encoder_of(group.shapes, settings)
    quick = as_openai(encoder)
    notes = ()
    if not settings and encoder and quick and quick != encoder and quick.endswith(QUICK):
        notes = (
            f"the files do not say whether these are OpenAI's weights; if they are, the encoder is {quick}, otherwise {encoder}",
        )
    return group.found(view, "open_clip", f"open_clip models ({encoder})" if encoder else "open_clip models", encoder, notes)
