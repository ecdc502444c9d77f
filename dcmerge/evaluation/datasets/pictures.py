"""Labelled images that stay on disk until they are looked at, and are decoded and resized once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError
from dcmerge.evaluation import Preprocess, Split, stratified_indices
from dcmerge.evaluation.datasets.decoding import open_picture, turn_for
from dcmerge.vectors.cache import Store, content_key

Tell = Callable[[float, str], None]
T = TypeVar("T")
_THREADS = 8
#: Changes whenever the same files would be decoded to other pixels.
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of one part of a data set. ``labels`` (N,) int64; ``read(place)`` decodes one, ``places`` (N,) are its places.

    ``files`` decide the content: one for each place (``one_each``), or some that hold them all.
    """

    name: str
    labels: Tensor
    read: Callable[[int], Image.Image]
    files: tuple[Path, ...]
    one_each: bool
    places: Tensor

    @classmethod
    def of(
        cls, name: str, labels: list[int] | Tensor, read: Callable[[int], Image.Image], files: list[Path], one_each: bool
    ) -> Pictures:
        """All images of a source, in its order."""
        found = torch.as_tensor(labels, dtype=torch.int64)
        return cls(name, found, read, tuple(files), one_each, torch.arange(len(found)))

    @classmethod
    def of_files(cls, name: str, paths: list[Path], labels: list[int]) -> Pictures:
        """One image file each."""
        return cls.of(name, labels, lambda place: open_picture(paths[place]), paths, one_each=True)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Pictures:
        """Some of these, in the given order."""
        return replace(self, labels=self.labels[indices], places=self.places[indices])

    def limited(self, limit: int | None) -> Pictures:
        """At most so many, every class in its share; the same that ``Split.subset`` draws from all of them."""
        return self if limit is None or limit >= len(self) else self.take(stratified_indices(self.labels, limit))

    def image(self, index: int) -> Image.Image:
        """One image, decoded; raises InputError where it is damaged."""
        return self._with(index, Image.Image.copy)

    def _with(self, index: int, use: Callable[[Image.Image], T]) -> T:
        """What ``use`` makes of one image, decoded; InputError that names its file and class where it is damaged."""
        place = int(self.places[index])
        try:
            with self.read(place) as image, turn_for(image):
                image.load()
                return use(image)
        except Exception as error:  # what a damaged image or archive raises is listed nowhere
            where = self.files[place] if self.one_each else f"number {place}"
            told = f"{shown(where)} of {shown(self.name)} (class number {int(self.labels[index])})"
            raise InputError(f"Cannot read the image {told}: {reason(error)}.") from None

    def key(self, preprocess: Preprocess) -> str:
        """Changes with the files, the images chosen of them, and the size that they get."""
        used = [self.files[place] for place in self.places.tolist()] if self.one_each else self.files
        return content_key([f"images {_VERSION}", preprocess.key, *map(_stamp, used)], [self.places, self.labels])

    def decoded(self, preprocess: Preprocess, store: Store | None = None, tell: Tell | None = None) -> Split:
        """As uint8 (N, 3, H, W), from the cache where it is there (mapped from the file, not held)."""
        files = tuple(self.files[place] for place in self.places.tolist()) if self.one_each else ()
        if store is None:
            return Split(self._pixels(preprocess, tell), self.labels, files)
        key, shape = self.key(preprocess), (len(self), 3, *preprocess.size)
        store.get(key, lambda: {"images": self._pixels(preprocess, tell)}, fits=lambda found: fits(found, shape))
        known = store.load(key)  # again: what was just decoded need not stay in memory either
        images = known["images"] if known and fits(known, shape) else self._pixels(preprocess, tell)
        return Split(images, self.labels, files)

    def _pixels(self, preprocess: Preprocess, tell: Tell | None) -> Tensor:
        pixels = torch.empty((len(self), 3, *preprocess.size), dtype=torch.uint8)

        def work(index: int) -> int:
            pixels[index] = self._with(index, preprocess)
            return index

        workers = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
        try:
            for done in workers.map(work, range(len(self))):
                if tell:
                    tell(done / len(self), f"decoding {self.name}")
        finally:
            workers.shutdown(cancel_futures=True)
        return pixels


def fits(found: Mapping[str, Tensor], shape: tuple[int, ...]) -> bool:
    """Whether a cache entry holds images of this shape."""
    return "images" in found and tuple(found["images"].shape) == shape and found["images"].dtype == torch.uint8


def _stamp(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"Cannot read {shown(path)}: {reason(error)}.") from None
    return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"


class LazySplits(Mapping[str, Split]):
    """Splits of one task that are decoded when they are first asked for, and then remembered."""

    def __init__(
        self, parts: Mapping[str, Pictures], preprocess: Preprocess, store: Store | None = None, tell: Tell | None = None
    ) -> None:
        self._parts, self._preprocess, self._store, self._tell = parts, preprocess, store, tell
        self._decoded: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._decoded:
            self._decoded[name] = self._parts[name].decoded(self._preprocess, self._store, self._tell)
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts
