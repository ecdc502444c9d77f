"""Hugging Face data sets that ``save_to_disk`` wrote (Arrow files; no code comes with them)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation.datasets.collections import Collection, needs, told
from dcmerge.evaluation.datasets.decoding import open_picture
from dcmerge.evaluation.datasets.pictures import Pictures

_IMAGES, _LABELS = ("image", "img", "img_bytes", "image_bytes", "jpg", "png"), ("label", "labels", "fine_label", "cls")
_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def saved_data_set(folder: Path) -> Collection:
    """A Dataset or DatasetDict with a column of images (or their bytes) and a column of labels; InputError for any other."""
    needs("datasets", "a Hugging Face data set")
    import datasets

    with told("a Hugging Face data set that save_to_disk wrote", folder):
        found = datasets.load_from_disk(str(folder))
    named = {str(name): part for name, part in found.items()} if isinstance(found, datasets.DatasetDict) else {"all": found}
    own = {_PARTS.get(name, name): part for name, part in named.items() if name == "all" or name in _PARTS}
    if not own:
        raise InputError(f"Expected splits train, validation, test in {shown(folder)}, got {shown(', '.join(named))}.")
    parts, names = {}, []
    for part, rows in own.items():
        parts[part], names = _pictures(rows, folder, part)
    return Collection(f"Hugging Face data set in {folder}", tuple(names), parts)


def _pictures(rows: Any, folder: Path, part: str) -> tuple[Pictures, list[str]]:
    import datasets

    image, label = (_column(rows, names, folder) for names in (_IMAGES, _LABELS))
    with told("images and whole numbers as labels", folder):
        labels = [int(value) for value in rows[label]]
        files = [Path(entry["filename"]) for entry in rows.cache_files]
    if isinstance(rows.features[image], datasets.Image):
        rows = rows.cast_column(image, datasets.Image(decode=False))  # it would decode any format
    names = getattr(rows.features[label], "names", None) or [str(n) for n in range(max(labels, default=-1) + 1)]
    name = f"{folder.name}/{part}"
    return Pictures.of(name, labels, lambda place: _picture(rows[place][image]), files, one_each=False), names


def _column(rows: Any, names: tuple[str, ...], folder: Path) -> str:
    for name in names:
        if name in rows.features:
            return name
    raise InputError(f"Expected a column {' or '.join(names)} in {shown(folder)}, got {shown(', '.join(rows.features))}.")


def _picture(value: Any) -> Image.Image:
    content = value["bytes"] if isinstance(value, dict) else value
    if not isinstance(content, bytes):  # a path instead, which may lead anywhere
        raise InputError("expected the picture's own bytes in the data set, got none")
    return open_picture(content)
