"""The data sets of the merging literature: their names, their classes in words, their kind of picture.

Class names stand here only where torchvision's data set objects carry none, or none that can be said in a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DIGITS = tuple("0123456789")
_SIGNS = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by trucks",
    "right of way at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "general danger",
    "dangerous curve to the left",
    "dangerous curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "ice or snow",
    "wild animals crossing",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "go straight or right",
    "go straight or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by trucks",
)
#: The order of the labels in FER2013's own CSV file.
_FACES = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")


@dataclass(frozen=True)
class KnownDataSet:
    """A data set that is found by its name. ``name`` is how the literature's files call it (``head_<name>Val.pt``).

    ``kind`` chooses the sentences of a zero-shot head; ``classes`` are names in the order of the labels, empty where the
    files bring them; ``aliases`` are other names, in lower case without signs.
    """

    name: str
    title: str
    kind: str
    classes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


_TABLE = (
    KnownDataSet("Cars", "Stanford Cars", "car", aliases=("stanfordcars",)),
    KnownDataSet("DTD", "Describable Textures", "texture"),
    KnownDataSet("EuroSAT", "EuroSAT", "satellite"),
    KnownDataSet("GTSRB", "German traffic signs", "sign", _SIGNS),
    KnownDataSet("MNIST", "MNIST", "digit", _DIGITS),
    KnownDataSet("RESISC45", "RESISC45", "satellite", aliases=("resisc", "nwpuresisc45")),
    KnownDataSet("SVHN", "Street View House Numbers", "number", _DIGITS),
    KnownDataSet("SUN397", "SUN397", "scene", aliases=("sun",)),
    KnownDataSet("STL10", "STL-10", "object"),
    KnownDataSet("OxfordIIITPet", "Oxford-IIIT Pet", "pet", aliases=("oxfordpets", "oxfordpet", "pets")),
    KnownDataSet("Flowers102", "Oxford Flowers 102", "flower", aliases=("oxfordflowers102", "oxfordflowers", "flowers")),
    KnownDataSet("CIFAR100", "CIFAR-100", "object"),
    KnownDataSet(
        "PCAM",
        "PatchCamelyon",
        "tissue",
        ("healthy lymph node tissue", "lymph node tumor tissue"),
        ("patchcamelyon", "pcamelyon"),
    ),
    KnownDataSet("FER2013", "FER2013", "face", _FACES, ("fer",)),
    KnownDataSet("CIFAR10", "CIFAR-10", "object"),
    KnownDataSet("Food101", "Food-101", "food"),
    KnownDataSet("FashionMNIST", "Fashion-MNIST", "clothing", aliases=("fmnist",)),
    KnownDataSet("RenderedSST2", "Rendered SST-2", "review", aliases=("sst2", "sst")),
    KnownDataSet("EMNIST", "EMNIST digits", "digit", _DIGITS, ("emnistdigits",)),
    KnownDataSet("KMNIST", "Kuzushiji-MNIST", "hiragana"),
    KnownDataSet("EMNISTLetters", "EMNIST letters", "letter", tuple("abcdefghijklmnopqrstuvwxyz")),
)

#: By name: the twenty tasks of the literature in their usual order, and EMNIST's letters.
DATA_SETS = {one.name: one for one in _TABLE}
_BY_ALIAS = {alias: one for one in _TABLE for alias in (one.name.lower(), *one.aliases)}


def known_data_set(name: str) -> KnownDataSet | None:
    """The data set that a task's or a folder's name means (``mnist``, ``MNISTVal``, ``stanford-cars``); None where none does."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _BY_ALIAS.get(plain) or _BY_ALIAS.get(plain.removesuffix("val")) or _BY_ALIAS.get(plain.removesuffix("dataset"))


def spoken(name: str) -> str:
    """A folder's or a label's name as words: ``AnnualCrop`` -> "annual crop", ``apartment_building/outdoor`` -> with spaces.

    Only names without any space are taken apart: "BMW M3 Coupe 2012" stays as it is.
    """
    text = name.replace("_", " ").replace("/", " ").strip()
    if text == name and " " not in name and re.fullmatch(r"([A-Z][a-z]+){2,}", name):
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return " ".join(text.split())
