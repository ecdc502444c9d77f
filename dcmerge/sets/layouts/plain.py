"""Any models: a checkpoint called base beside its experts, which are called by their tasks."""

from __future__ import annotations

from dcmerge.sets.layouts.encoders import encoder_of
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.siblings import groups
from dcmerge.sets.layouts.view import View


def find(view: View) -> list[FoundSet]:
    """One set for each folder of models that no other layout took."""
    return [
        group.found(view, "plain", "A base and its experts", encoder_of(group.shapes, group.sample.config))
        for group in groups(view)
    ]
