"""Sentences around a class name, from which a text tower makes a zero-shot head.

They are this project's own wording, a few a kind of picture, and not the lists of the CLIP papers: heads that are computed here
differ somewhat from the head files of the literature, which reproduce its numbers.
"""

from __future__ import annotations

OWN_WORDING = "sentences of this project, not the CLIP papers'"

_KINDS: dict[str, tuple[str, ...]] = {
    "picture": ("a photo of a {}.", "a picture of the {}.", "an image that shows a {}."),
    "object": ("a photo of a {}.", "a small photo of a {}.", "a blurry photo of the {}."),
    "car": ("a photo of a {}.", "a photo of a parked {}.", "a {} seen on the street."),
    "texture": ("a photo of a {} texture.", "a close view of a {} surface.", "something that looks {}."),
    "satellite": ("a satellite image of {}.", "{} seen from above.", "an aerial photo of {}."),
    "sign": ("a photo of a traffic sign: {}.", "a road sign that says {}.", 'a close view of the traffic sign "{}".'),
    "digit": ("the handwritten digit {}.", 'a scan of the number "{}".', 'a photo of the number: "{}".'),
    "number": ('a house number: "{}".', 'a photo of the number "{}" on a wall.', "the digit {} in a street scene."),
    "letter": ("the handwritten letter {}.", 'a scan of the letter "{}".'),
    "hiragana": ("the handwritten hiragana {}.", 'a scan of the Japanese character "{}".'),
    "scene": ("a photo of a {}.", "a photo taken at a {}.", "the view of a {}."),
    "pet": ("a photo of a {}, a pet.", "a photo of my {}.", "a close view of a {}."),
    "flower": ("a photo of a {}, a flower.", "a close view of a blooming {}."),
    "tissue": ("a microscope image of {}.", "a stained slice of {}."),
    "face": ("a photo of a {} face.", "the face of someone who is {}.", "a person who looks {}."),
    "food": ("a photo of {}, a dish.", "a plate of {}.", "a close view of {}."),
    "clothing": ("a photo of a {}, a piece of clothing.", "a product photo of a {}."),
    "review": ("a {} review of a movie.", "a picture of a text with a {} opinion."),
}


def prompts(kind: str, class_name: str) -> list[str]:
    """Every sentence of a kind with the class name in it; "picture" is for what is of no known kind."""
    return [template.format(class_name) for template in _KINDS.get(kind, _KINDS["picture"])]
